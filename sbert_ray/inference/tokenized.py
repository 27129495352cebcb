"""Texts as token ids, flat and without padding, until they are cut into batches.

Shapes: N texts, L tokens of all texts together, B texts of a batch, T tokens of the longest of them.
"""

from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from sbert_ray.inference.packing import Packing
from sbert_ray.inference.prepared import Features


@dataclass(frozen=True)
class Padding:
    """How a tokenizer pads."""

    token_id: int = 0
    type_id: int = 0
    side: str = "right"


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
    padding: Padding = Padding()
    max_rows: int | None = None
    """The most rows of a batch, for modules that make much of few tokens."""

    def __len__(self) -> int:
        return len(self.offsets) - 1

    @cached_property
    def lengths(self) -> NDArray[np.int64]:
        """Tokens of each text (N,), after truncation and with special tokens."""
        return np.diff(self.offsets)

    def num_positions(self, rows: NDArray[np.int64]) -> int:
        """Return the positions of a batch of ``rows``, padding included."""
        return len(rows) * self._width(rows)

    def _width(self, rows: NDArray[np.int64]) -> int:
        return max(int(self.lengths[rows].max(initial=0)), 1)

    def batch(self, rows: NDArray[np.int64]) -> Features:
        """Return the features of ``rows``: ids and mask (B, T).

        Rows of one length have a mask of ones only, which transformers' models take for no mask at all.
        """
        lengths, width = self.lengths[rows], self._width(rows)
        columns = np.arange(width)
        is_right = self.padding.side == "right"
        mask = columns < lengths[:, None] if is_right else columns >= width - lengths[:, None]  # (B, T)
        positions = self.positions(rows)

        def padded(values: NDArray[np.int32], fill: int) -> Tensor:
            batch = np.full(mask.shape, fill, np.int64)
            batch[mask] = values[positions]
            return torch.from_numpy(batch)

        features: Features = {
            "input_ids": padded(self.ids, self.padding.token_id),
            "attention_mask": torch.from_numpy(mask.astype(np.int64)),
        }
        if self.type_ids is not None:
            features["token_type_ids"] = padded(self.type_ids, self.padding.type_id)
        return features | self._prompt()

    def packed(self, rows: NDArray[np.int64]) -> Features:
        """Return the features of ``rows``, of at least one token each: ids (L,) and their `Packing`, without padding.

        Rows of one length should be next to each other.
        """
        positions = self.positions(rows)
        features: Features = {
            "input_ids": torch.from_numpy(self.ids[positions].astype(np.int64)),
            "packing": Packing.of(self.lengths[rows]),
        }
        if self.type_ids is not None:
            features["token_type_ids"] = torch.from_numpy(self.type_ids[positions].astype(np.int64))
        return features | self._prompt()

    def _prompt(self) -> Features:
        return {} if self.prompt_length is None else {"prompt_length": torch.tensor([self.prompt_length])}

    def positions(self, rows: NDArray[np.int64]) -> NDArray[np.int64]:
        """Return where in ``ids`` the tokens of ``rows`` are, row after row."""
        return flat_positions(self.offsets[rows], self.lengths[rows])


def flat_positions(starts: NDArray[np.int64], lengths: NDArray[np.int64]) -> NDArray[np.int64]:
    """Return the positions of slices that begin at ``starts`` (B,) and are ``lengths`` (B,) long, slice after slice."""
    ends = np.cumsum(lengths)
    return np.repeat(starts - (ends - lengths), lengths) + np.arange(lengths.sum())
