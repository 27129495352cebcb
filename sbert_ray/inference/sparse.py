"""Sparse embeddings: computed batch by batch, kept as the values that are not zero, never as a dense matrix.

Shapes: N inputs, B rows of a batch, D dimensions, nnz values other than zero.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Self, cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from sbert_ray.embeddings import select_max_active_dims, to_coo
from sbert_ray.inference.engine import Encoder, run_batches
from sbert_ray.inference.prepared import Features, Prepared
from sbert_ray.inference.tokenized import flat_positions


@dataclass(frozen=True)
class SparseRows:
    """Sparse embeddings as a CSR matrix (N, D)."""

    offsets: NDArray[np.int64]
    """(N + 1,), where each row begins in the other two, and nnz"""
    indices: NDArray[np.int32]
    """(nnz,), dimensions, ascending within a row"""
    values: NDArray[np.float32]
    """(nnz,)"""
    dimension: int
    """D"""

    def __len__(self) -> int:
        return len(self.offsets) - 1

    @property
    def lengths(self) -> NDArray[np.int64]:
        """Values of each row (N,)."""
        return np.diff(self.offsets)

    @classmethod
    def of(cls, embeddings: Tensor) -> Self:
        """Return the values of a dense matrix (N, D) on any device that are not zero."""
        num_rows, dimension = embeddings.shape
        places = embeddings.reshape(-1).nonzero().squeeze(1)  # row after row
        bounds = torch.arange(num_rows + 1, device=places.device) * dimension
        return cls(
            torch.searchsorted(places, bounds).cpu().numpy(),
            (places % dimension if dimension else places).int().cpu().numpy(),
            embeddings.reshape(-1)[places].float().cpu().numpy(),
            dimension,
        )

    @classmethod
    def from_tensor(cls, embeddings: Tensor) -> Self:
        """Return the values of a tensor (N, D) or (D,) in any layout that are not zero, without making it dense."""
        embeddings = embeddings.detach()
        if embeddings.layout == torch.strided:
            return cls.of(torch.atleast_2d(embeddings))
        coo = to_coo(embeddings)
        if coo.dense_dim():  # sparse in rows alone
            return cls.of(torch.atleast_2d(coo.to_dense()))
        *rows, columns = coo.indices()
        active = coo.values() != 0
        owners = rows[0][active] if rows else torch.zeros_like(columns[active])
        num_rows = coo.shape[0] if rows else 1
        return cls(
            _offsets(torch.bincount(owners, minlength=num_rows).cpu().numpy()),
            columns[active].int().cpu().numpy(),
            coo.values()[active].float().cpu().numpy(),
            coo.shape[-1],
        )

    @classmethod
    def joined(cls, parts: Sequence["SparseRows"], dimension: int | None = None) -> Self:
        """Return the rows of several, one after the other.

        Args:
            parts: All of one dimension.
            dimension: Theirs; needed where there are none.
        """
        return cls(
            _offsets(np.concatenate([np.empty(0, np.int64), *(part.lengths for part in parts)])),
            np.concatenate([np.empty(0, np.int32), *(part.indices for part in parts)]),
            np.concatenate([np.empty(0, np.float32), *(part.values for part in parts)]),
            parts[0].dimension if parts else dimension or 0,
        )

    def scattered(self, rows: NDArray[np.int64]) -> Self:
        """Return them in another order.

        Args:
            rows: The place of each row (N,).
        """
        lengths = np.empty_like(self.lengths)
        lengths[rows] = self.lengths
        offsets = _offsets(lengths)
        positions = flat_positions(offsets[rows], self.lengths)
        indices, values = np.empty_like(self.indices), np.empty_like(self.values)
        indices[positions], values[positions] = self.indices, self.values
        return type(self)(offsets, indices, values, self.dimension)

    def take(self, rows: NDArray[np.int64]) -> Self:
        """Return the given rows, in their order, some of them several times perhaps."""
        lengths = self.lengths[rows]
        positions = flat_positions(self.offsets[rows], lengths)
        return type(self)(_offsets(lengths), self.indices[positions], self.values[positions], self.dimension)

    def to_coo(self, device: torch.device | str = "cpu") -> Tensor:
        """Return them as a coalesced COO tensor (N, D)."""
        rows = np.repeat(np.arange(len(self)), self.lengths)
        indices = torch.from_numpy(np.stack([rows, self.indices]))
        values = torch.from_numpy(self.values)
        shape = (len(self), self.dimension)
        return torch.sparse_coo_tensor(indices, values, shape, device=device, is_coalesced=True, check_invariants=False)

    def to_dense(self, device: torch.device | str = "cpu") -> Tensor:
        """Return them as a dense tensor (N, D)."""
        return self.to_coo(device).to_dense()

    def to_list(self, device: torch.device | str = "cpu") -> list[Tensor]:
        """Return each row as a coalesced COO tensor (D,)."""
        indices = torch.from_numpy(self.indices.astype(np.int64)).to(device)
        values = torch.from_numpy(self.values).to(device)
        bounds = zip(self.offsets[:-1].tolist(), self.offsets[1:].tolist(), strict=True)
        return [
            torch.sparse_coo_tensor(
                indices[None, start:end],
                values[start:end],
                (self.dimension,),
                is_coalesced=True,
                check_invariants=False,
            )
            for start, end in bounds
        ]


@dataclass(frozen=True)
class SparseRun:
    """Sparse embeddings, and the work they took."""

    rows: SparseRows
    """N rows, in input order"""
    num_tokens: int
    """Real tokens of all texts."""
    num_padded_tokens: int
    """Positions computed, padding included."""
    num_halvings: int = 0
    """How often a batch did not fit into the device's memory."""


def embed_sparse(
    encoder: Encoder,
    inputs: Prepared,
    max_tokens: int,
    max_active_dims: int | None = None,
    on_batch: Callable[[int], None] | None = None,
    max_rows: int | None = None,
) -> SparseRun:
    """Compute a sparse embedding for each input.

    Args:
        encoder: The model, which gives a ``sentence_embedding`` (B, D).
        inputs: N inputs, at least one.
        max_tokens: The most positions of a batch.
        max_active_dims: How many values of largest magnitude to keep of each; all if None.
        on_batch: Called with the number of rows after each batch.
        max_rows: The most rows of a batch.
    """

    def forward(features: Features) -> Features:
        computed = encoder.forward(features)
        if "sentence_embedding" not in computed:
            raise ValueError(f"a SparseEncoder's modules must write 'sentence_embedding', got {sorted(computed)}")
        embeddings = computed["sentence_embedding"]
        return {"rows": SparseRows.of(cast(Tensor, select_max_active_dims(embeddings, max_active_dims)))}

    order: list[NDArray[np.int64]] = []
    parts: list[SparseRows] = []
    num_padded_tokens, num_halvings = 0, encoder.budget.num_halvings
    for batch in run_batches(replace(encoder, forward=forward), inputs, max_tokens, max_rows):
        parts.append(batch.features["rows"])
        order.append(batch.rows)
        num_padded_tokens += batch.num_positions
        if on_batch:
            on_batch(len(batch.rows))
    if not parts:
        raise ValueError("there must be at least one input")
    embeddings = SparseRows.joined(parts).scattered(np.concatenate(order))
    num_halvings = encoder.budget.num_halvings - num_halvings
    return SparseRun(embeddings, int(inputs.lengths.sum()), num_padded_tokens, num_halvings)


def _offsets(lengths: NDArray[np.int64]) -> NDArray[np.int64]:
    return np.concatenate([[0], np.cumsum(lengths, dtype=np.int64)])
