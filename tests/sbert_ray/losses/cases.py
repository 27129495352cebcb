"""A batch for every loss over embeddings, for the laws that hold for all of them."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from sbert_ray import losses
from sbert_ray.losses import Loss

D = 8
"""Dimensions of what `Toy` embeds to."""
F = 6
"""Numbers that an input of `Toy` has."""


class Toy(nn.Module):
    """Embeds numbers: features ``x`` (B, F) to ``sentence_embedding`` (B, D)."""

    def __init__(self, dropout: float = 0.0) -> None:
        super().__init__()
        torch.manual_seed(3)
        self.layers = nn.Sequential(nn.Linear(F, 16), nn.Tanh(), nn.Dropout(dropout), nn.Linear(16, D))
        self.double()

    def forward(self, features: dict[str, Tensor]) -> dict[str, Tensor]:
        return features | {"sentence_embedding": self.layers(features["x"])}

    def get_embedding_dimension(self) -> int:
        return D


class Routed(nn.Module):
    """Embeds queries and documents by weights of their own, as a Router does; features have a ``task``."""

    def __init__(self, frozen: str = "") -> None:
        super().__init__()
        self.query, self.document = Toy(), Guide()
        for weight in getattr(self, frozen).parameters() if frozen else ():
            weight.requires_grad_(False)

    def forward(self, features: dict[str, Any]) -> dict[str, Any]:
        return getattr(self, features["task"])(features)


class Guide(Toy):
    """Another one, with other weights."""

    def __init__(self) -> None:
        super().__init__()
        with torch.no_grad():
            for weight in self.parameters():
                weight.mul_(-1.3).add_(0.1)


Labels = Callable[[int], Tensor | None]


def _generator() -> torch.Generator:
    return torch.Generator().manual_seed(11)


def no_labels(_: int) -> None:
    return None


def scores(size: int) -> Tensor:
    return torch.rand(size, generator=_generator(), dtype=torch.float64)


def zeros_and_ones(size: int) -> Tensor:
    return (torch.arange(size) % 3 == 0).long()


def classes(size: int) -> Tensor:
    return torch.arange(size) // 2 % 3


def embeddings(size: int) -> Tensor:
    return torch.randn(size, D, generator=_generator(), dtype=torch.float64)


def pair_scores(size: int) -> Tensor:
    return torch.randn(size, 2, generator=_generator(), dtype=torch.float64)


@dataclass(frozen=True)
class Case:
    """How a loss is made, and what batch it takes."""

    name: str
    num_columns: int
    labels: Labels = no_labels
    options: dict[str, Any] = field(default_factory=dict)
    make: Callable[[nn.Module | None], Loss] | None = None

    def __str__(self) -> str:
        return self.name

    def loss(self, model: nn.Module | None) -> Loss:
        if self.make is not None:
            return self.make(model).double()
        torch.manual_seed(5)  # for those with weights of their own
        options = {name: value() if name == "guide" else value for name, value in self.options.items()}
        return getattr(losses, self.name)(model, **options).double()

    def features(self, size: int, first: int = 0, last: int | None = None) -> list[dict[str, Tensor]]:
        """Columns of the rows from ``first`` to ``last`` of a batch of ``size``."""
        generator = _generator()
        columns = [torch.randn(size, F, generator=generator, dtype=torch.float64) for _ in range(self.num_columns)]
        return [{"x": column[first:last]} for column in columns]

    def targets(self, size: int, first: int = 0, last: int | None = None) -> Tensor | None:
        labels = self.labels(size)
        return None if labels is None else labels[first:last]


def _splade(model: nn.Module | None) -> Loss:
    return losses.SpladeLoss(model, losses.SparseMultipleNegativesRankingLoss(model), 0.3, 0.2)


ALL_WAYS = {"directions": losses.contrastive.DIRECTIONS, "hardness_mode": "all_negatives", "hardness_strength": 2.0}
CASES: Sequence[Case] = [
    Case("AnglELoss", 2, scores),
    Case("BatchAllTripletLoss", 1, classes),
    Case("BatchHardSoftMarginTripletLoss", 1, classes),
    Case("BatchHardTripletLoss", 1, classes),
    Case("BatchSemiHardTripletLoss", 1, classes),
    Case("CoSENTLoss", 2, scores),
    Case("ContrastiveLoss", 2, zeros_and_ones),
    Case("CosineSimilarityLoss", 2, scores),
    Case("DistillKLDivLoss", 3, pair_scores),
    Case("EmbedDistillLoss", 2, embeddings),
    Case("GISTEmbedLoss", 3, options={"guide": Guide, "margin": 0.1}),
    Case("GlobalOrthogonalRegularizationLoss", 2),
    Case("MSELoss", 2, embeddings),
    Case("MarginMSELoss", 3, scores),
    Case("MegaBatchMarginLoss", 2, options={"use_mini_batched_version": False}),
    Case("MultipleNegativesRankingLoss", 3, options=ALL_WAYS),
    Case("MultipleNegativesSymmetricRankingLoss", 3),
    Case("OnlineContrastiveLoss", 2, zeros_and_ones),
    Case("SoftmaxLoss", 2, classes, options={"embedding_dimension": D, "num_labels": 3}),
    Case("TripletLoss", 3),
    Case("SpladeLoss", 3, make=_splade),
]
"""One for each loss that is computed from embeddings; cached ones and twins are the same loss."""
