"""Texts of a batch one after the other, without padding, those of one length together.

Shapes: B texts, L tokens of all of them, n texts of one length T.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor


@dataclass(frozen=True, eq=False)
class Packing:
    """Where each text of a batch is among its tokens."""

    groups: tuple[tuple[int, int], ...]
    """(n, T) of each length, in the order of the texts: n texts of T tokens each."""
    _made: dict[Any, Tensor] = field(default_factory=dict, repr=False)

    @classmethod
    def of(cls, lengths: NDArray[np.int64]) -> "Packing":
        """Return that of texts of ``lengths`` (B,), at least 1 each, those of one length next to each other."""
        starts = np.flatnonzero(np.diff(lengths, prepend=0))
        counts = np.diff(starts, append=len(lengths))
        return cls(tuple(zip(counts.tolist(), lengths[starts].tolist(), strict=True)))

    @property
    def num_texts(self) -> int:
        """B."""
        return sum(n for n, _ in self.groups)

    @property
    def num_tokens(self) -> int:
        """L."""
        return sum(n * length for n, length in self.groups)

    @property
    def longest(self) -> int:
        """The most tokens of a text."""
        return max((length for _, length in self.groups), default=0)

    def firsts(self) -> "Packing":
        """Return the packing of the first tokens of all texts."""
        return Packing(((self.num_texts, 1),))

    def by_length(self, *tokens: Tensor) -> Iterator[tuple[Tensor, ...]]:
        """Yield views (n, T, ...) of tensors (L, ...), length by length."""
        # One split: the gradient of a slice is as large as the whole, and would be made for every length.
        sizes = [n * length for n, length in self.groups]
        parts = [part.split(sizes) for part in tokens]
        for place, group in enumerate(self.groups):
            yield tuple(part[place].unflatten(0, group) for part in parts)

    def positions(self, device: torch.device) -> Tensor:
        """Return the position of each token in its text (L,), from 0."""
        return self._on(device, "positions", lambda: np.concatenate([np.tile(np.arange(t), n) for n, t in self.groups]))

    def counted(self, ids: Tensor, first: int = 0, ignored_id: int | None = None) -> Tensor:
        """Return what a model calls the position of each token (L,).

        Args:
            ids: Of the tokens (L,).
            first: What it calls the first one of a text.
            ignored_id: The id of tokens that do not count, and are all called ``first - 1``; none if None.
        """
        if ignored_id is None or not bool((ignored := ids == ignored_id).any()):
            return self.positions(ids.device) + first
        places = [(view.cumsum(1) * view).flatten() for (view,) in self.by_length(~ignored)]
        return torch.cat(places) + (first - 1)

    def starts(self, device: torch.device) -> Tensor:
        """Return the place of each text's first token (B,)."""
        return self._on(device, "starts", lambda: self._bounds[:-1])

    def bounds(self, device: torch.device) -> Tensor:
        """Return where each text begins, and L (B + 1,), as int32, which kernels for texts of several lengths take."""
        return self._on(device, "bounds", lambda: self._bounds.astype(np.int32))

    @property
    def _bounds(self) -> NDArray[np.int64]:
        lengths = np.concatenate([np.full(n, length, np.int64) for n, length in self.groups])
        return np.concatenate([np.zeros(1, np.int64), np.cumsum(lengths)])

    def _on(self, device: torch.device, name: str, make: Callable[[], NDArray[Any]]) -> Tensor:
        # Every layer asks for the same ones.
        key = (name, device)
        if key not in self._made:
            self._made[key] = torch.from_numpy(make()).to(device)
        return self._made[key]
