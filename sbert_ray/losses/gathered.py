"""Embeddings of all workers put together, so that every worker's rows are negatives for all others.

Shapes: B rows of a worker, W workers, D dimensions.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor


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
    _check_sizes(embeddings[0])
    widths = [column.shape[1] for column in embeddings]
    joined = _Gather.apply(torch.cat(list(embeddings), dim=1))  # one message for all columns
    if labels is not None:
        labels = _all_gather(labels.to(joined.device))
    first = rank() * size
    return JointBatch(joined.split(widths, dim=1), labels, slice(first, first + size), world_size())


def _check_sizes(column: Tensor) -> None:
    sizes = _all_gather(torch.tensor([len(column)], device=column.device)).tolist()
    if len(set(sizes)) > 1:
        raise ValueError(f"gathering needs batches of one size on all workers, got {sizes}; drop the last, shorter one")
