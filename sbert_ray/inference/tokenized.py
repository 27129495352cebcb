"""Texts as token ids, flat and without padding. Knows no torch.

Shapes: N texts, L tokens of all texts together.
"""

from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class TokenizedTexts:
    """The token ids of N texts, one text after the other."""

    ids: NDArray[np.int32]
    """(L,)"""
    offsets: NDArray[np.int64]
    """(N + 1,), where each text begins in ``ids``, and L"""
    type_ids: NDArray[np.int32] | None = None
    """(L,), for models that read ``token_type_ids``"""
    prompt_length: int | None = None
    """Tokens that the prompt takes at the start of each text, where there is a prompt."""

    def __len__(self) -> int:
        return len(self.offsets) - 1

    @cached_property
    def lengths(self) -> NDArray[np.int64]:
        """Tokens of each text (N,), after truncation and with special tokens."""
        return np.diff(self.offsets)

    def positions(self, rows: NDArray[np.int64]) -> NDArray[np.int64]:
        """Return where in ``ids`` the tokens of ``rows`` are, row after row."""
        lengths = self.lengths[rows]
        ends = np.cumsum(lengths)
        return np.repeat(self.offsets[rows] - (ends - lengths), lengths) + np.arange(lengths.sum())
