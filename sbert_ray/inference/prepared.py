"""What the engine asks of inputs that are ready to be cut into batches."""

from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

Features = dict[str, Any]
"""What flows through a model, mostly tensors: ``input_ids`` and ``attention_mask`` (B, T) and, with a prompt,
``prompt_length`` (1,); or ``pixel_values`` (B, C, H, W) and ``modality``; then ``token_embeddings`` (B, T, D), then
``sentence_embedding`` (B, D) or ``scores`` (B, K)."""


BATCH_VALUES = 2**24
"""Values that the rows of a batch may have where they are wide, however short their texts: 64 MB of float32."""


def rows_of_width(width: int) -> int:
    """Return how many rows of ``width`` values each a batch may have."""
    return max(BATCH_VALUES // width, 1)


class Prepared(Protocol):
    """N inputs, ready for a model: tokenized texts, pairs of them, or images.

    A batch depends on its rows alone, so that results do not depend on who computes them.
    """

    def __len__(self) -> int: ...

    @property
    def lengths(self) -> NDArray[np.int64]:
        """Positions that each input takes (N,): tokens, or what costs as much."""

    @property
    def max_rows(self) -> int | None:
        """The most rows of a batch, for rows that take memory beyond their positions; None is no limit."""

    def num_positions(self, rows: NDArray[np.int64]) -> int:
        """Return the positions that a batch of ``rows`` computes, padding included."""

    def batch(self, rows: NDArray[np.int64]) -> Features:
        """Return the features of ``rows``, on the CPU."""
