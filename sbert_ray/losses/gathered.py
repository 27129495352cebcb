"""Embeddings of all workers put together, so that every worker's rows are negatives for all others.

Shapes: B rows of a worker, W workers, D dimensions.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

MOST_DIMENSIONS = 6
"""Of labels."""


def world_size() -> int:
    """Return W, 1 where there are no others."""
    return dist.get_world_size() if dist.is_available() and dist.is_initialized() else 1


def rank() -> int:
    """Return which of the workers this one is, from 0."""
    return dist.get_rank() if dist.is_available() and dist.is_initialized() else 0


class _Gather(torch.autograd.Function):
    """From (B, ...) of each worker to (W * B, ...) on all of them; gradients of all workers are summed up."""

    @staticmethod
    def forward(ctx: Any, values: Tensor) -> Tensor:
        ctx.size = len(values)
        return _all_gather(values)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Tensor:
        gradient = gradients[0].contiguous()
        dist.all_reduce(gradient)
        first = dist.get_rank() * ctx.size
        return gradient[first : first + ctx.size]


def _all_gather(values: Tensor) -> Tensor:
    parts = [torch.empty_like(values) for _ in range(dist.get_world_size())]
    dist.all_gather(parts, values.contiguous())
    return torch.cat(parts)


@dataclass(frozen=True)
class JointBatch:
    """What a loss is computed from on one worker: its own batch, or the batches of all workers."""

    embeddings: Sequence[Tensor]
    """One (B, D) tensor per column, or (W * B, D)."""
    labels: Tensor | None
    """Of as many rows."""
    rows: slice
    """The anchors of this worker."""
    num_workers: int = 1
    """W, or 1 if they are not put together."""

    @property
    def is_whole(self) -> bool:
        """Whether this worker has all anchors."""
        return self.num_workers == 1

    def detached(self) -> "JointBatch":
        """Return the same with embeddings of which gradients are asked for, and do not go further."""
        embeddings = [column.detach().requires_grad_() for column in self.embeddings]
        return JointBatch(embeddings, self.labels, self.rows, self.num_workers)

    def own_gradient(self, gradient: Tensor) -> Tensor:
        """Return the gradients of all workers' values in this worker's rows (B, ...), of that in all rows."""
        if self.is_whole:
            return gradient
        gradient = gradient.contiguous()
        dist.all_reduce(gradient)
        return gradient[self.rows]


def join_batches(embeddings: Sequence[Tensor], labels: Tensor | None, *, gather: bool) -> JointBatch:
    """Return what a loss is computed from.

    Args:
        embeddings: One (B, D) tensor per column, of this worker.
        labels: Of shape (B, ...), or None.
        gather: Whether to put the batches of all workers together, the first worker's first; gradients reach them all.

    Raises:
        ValueError: Workers have other numbers of rows than each other.
    """
    size = len(embeddings[0])
    if not gather or world_size() == 1:
        return JointBatch(embeddings, labels, slice(0, size))
    _check_shapes(embeddings[0], labels)
    widths = [column.shape[1] for column in embeddings]
    joined = _Gather.apply(torch.cat(list(embeddings), dim=1))  # one message for all columns
    if labels is not None:
        labels = _all_gather(labels.to(joined.device))
    first = rank() * size
    return JointBatch(joined.split(widths, dim=1), labels, slice(first, first + size), world_size())


def shared_draw(drawn: Sequence[int], *, gather: bool) -> list[int]:
    """Return what the first worker has drawn, so that all compute the same of the joint batch.

    Args:
        drawn: Numbers that this worker has drawn, as many as all others.
        gather: Whether batches are put together; else each worker has its own.
    """
    if not gather or world_size() == 1:
        return list(drawn)
    found: list[Any] = [list(drawn)]
    dist.broadcast_object_list(found, src=0)
    drawn_first: list[int] = found[0]
    return drawn_first


def _check_shapes(column: Tensor, labels: Tensor | None) -> None:
    """Make sure that all workers have as many rows, and labels of one shape, before they wait for each other's."""
    shape = [] if labels is None else list(labels.shape[1:])
    mine = torch.full((2 + MOST_DIMENSIONS,), -1, device=column.device)
    mine[: 2 + len(shape)] = torch.tensor([len(column), -1 if labels is None else len(shape), *shape])
    found = _all_gather(mine[None])
    if len(set(sizes := found[:, 0].tolist())) > 1:
        raise ValueError(f"gathering needs batches of one size on all workers, got {sizes}; drop the last, shorter one")
    if len({tuple(row) for row in found[:, 1:].tolist()}) > 1:
        shapes = [None if row[0] < 0 else tuple(row[1 : 1 + row[0]]) for row in found[:, 1:].tolist()]
        raise ValueError(f"gathering needs labels of one shape per row on all workers, got {shapes}")
