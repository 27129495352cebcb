"""Losses of embeddings that are cut to fewer dimensions.

Shapes: B rows of a column, D dimensions, k of them that are kept.
"""

import random
from collections.abc import Callable, Sequence

import torch.nn.functional as F
from torch import Tensor, nn

from sbert_ray.losses.gathered import shared_draw
from sbert_ray.losses.loss import Loss
from sbert_ray.losses.values import Value, scaled, summed
from sbert_ray.losses.wrapper import WrapperLoss


class MatryoshkaLoss(WrapperLoss):
    """Any loss, of embeddings cut to several numbers of dimensions, so that all of them are of use.

        loss = sum_k w_k loss(first k dimensions of each embedding, scaled to length 1)

    A teacher's embeddings as labels are cut too.

    Columns: those of the wrapped loss. Labels: those of the wrapped loss.

    Args:
        model: Embeds the columns.
        loss: Any loss over embeddings; a cached one stays cached.
        matryoshka_dims: The numbers of dimensions k.
        matryoshka_weights: w_k of each; 1 if None.
        n_dims_per_step: How many of them to draw for each batch; -1 takes all.

    Raises:
        ValueError: An argument is out of its range, or embeddings have fewer dimensions.

    References:
        Kusupati et al. 2022, Matryoshka Representation Learning, arXiv:2205.13147.
    """

    def __init__(
        self,
        model: nn.Module | None,
        loss: Loss,
        matryoshka_dims: Sequence[int],
        matryoshka_weights: Sequence[float] | None = None,
        n_dims_per_step: int = -1,
    ) -> None:
        super().__init__(model, loss)
        weights = [1] * len(matryoshka_dims) if matryoshka_weights is None else list(matryoshka_weights)
        if not matryoshka_dims or min(matryoshka_dims) < 1:
            raise ValueError(f"matryoshka_dims must be positive, and at least one, got {list(matryoshka_dims)}")
        if len(weights) != len(matryoshka_dims):
            raise ValueError(
                f"matryoshka_weights must be as many as matryoshka_dims, {len(matryoshka_dims)}, got {len(weights)}"
            )
        if n_dims_per_step != -1 and n_dims_per_step < 1:
            raise ValueError(f"n_dims_per_step must be positive, or -1 for all, got {n_dims_per_step}")
        if fixed := [name for name, layer in loss.named_children() if isinstance(layer, nn.Linear)]:
            raise ValueError(
                f"MatryoshkaLoss cuts embeddings, and {type(loss).__name__} has a layer {fixed} for whole ones"
            )
        dimension = getattr(model, "get_embedding_dimension", lambda: None)()
        _check_dims(matryoshka_dims, dimension)
        pairs = sorted(zip(matryoshka_dims, weights, strict=True), key=lambda pair: -pair[0])
        self.matryoshka_dims = tuple(dims for dims, _ in pairs)
        self.matryoshka_weights = tuple(weight for _, weight in pairs)
        self.n_dims_per_step = n_dims_per_step
        self._drawn: Sequence[int] = range(len(pairs))

    def draw(self) -> None:
        """Draw the numbers of dimensions of this batch."""
        super().draw()
        every = range(len(self.matryoshka_dims))
        is_all = not 0 < self.n_dims_per_step < len(every)
        drawn = every if is_all else sorted(random.sample(every, self.n_dims_per_step))
        self._drawn = every if is_all else shared_draw(drawn, gather=self.gather_across_devices)

    def compute(self, embeddings: Sequence[Tensor], labels: Tensor | None) -> Value:
        """Return the weighted sum over the numbers of dimensions that are drawn."""
        return self._sum(embeddings, labels, self.loss.compute)

    def compute_rows(self, embeddings: Sequence[Tensor], labels: Tensor | None, rows: slice) -> Value:
        """Return the share of some anchors in it."""
        return self._sum(embeddings, labels, lambda cut, targets: self.loss.compute_rows(cut, targets, rows))

    def _sum(self, embeddings: Sequence[Tensor], labels: Tensor | None, compute: Callable[..., Value]) -> Value:
        size = min(column.shape[-1] for column in embeddings)
        _check_dims(self.matryoshka_dims, size)
        values = []
        for drawn in self._drawn:
            dims, weight = self.matryoshka_dims[drawn], self.matryoshka_weights[drawn]
            targets = labels
            if labels is not None and self.labels_are_embeddings and labels.shape[-1] == size:
                targets = labels[..., :dims]
            cut = [F.normalize(column[..., :dims], p=2, dim=-1) for column in embeddings]
            values.append(scaled(compute(cut, targets), weight))
        return summed(values)


def _check_dims(dims: Sequence[int], dimension: int | None) -> None:
    if dimension is not None and max(dims) > dimension:
        raise ValueError(f"matryoshka_dims must not exceed the embeddings' {dimension} dimensions, got {list(dims)}")
