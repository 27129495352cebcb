"""Triplet losses that find the positives and negatives of each text among the others of its batch, by their classes.

Shapes: B rows, D dimensions; a, p and n are an anchor, a text of its class, and one of another class.
"""

from abc import abstractmethod
from collections.abc import Callable, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from sbert_ray.losses.labels import classes_per_row
from sbert_ray.losses.loss import Loss
from sbert_ray.similarity import cos_sim

Distances = Callable[[Tensor], Tensor]
"""From embeddings (B, D) to the distances of each row to each (B, B)."""


class BatchHardTripletLossDistanceFunction:
    """Distances of each row to each."""

    @staticmethod
    def cosine_distance(embeddings: Tensor) -> Tensor:
        """Return 1 minus the cosines of rows (B, D), as (B, B)."""
        return 1 - cos_sim(embeddings, embeddings)

    @staticmethod
    def euclidean_distance(embeddings: Tensor, squared: bool = False) -> Tensor:
        """Return the Euclidean distances of rows (B, D), or their squares, as (B, B)."""
        centered = embeddings - embeddings.mean(0)  # distances stay, and lose less by rounding
        distances = torch.cdist(centered, centered)
        return distances.square() if squared else distances

    eucledian_distance = euclidean_distance  # its older public name


class _BatchTripletLoss(Loss):
    num_columns = (1, 1)
    label_use = "required"
    label_hint = "one class per text"

    def __init__(self, model: nn.Module | None, distance_metric: Distances) -> None:
        super().__init__(model)
        self.distance_metric = distance_metric

    def compute(self, embeddings: Sequence[Tensor], labels: Tensor | None) -> Tensor:
        """Return the loss of the batch's triplets."""
        assert labels is not None
        [texts] = embeddings
        distances = self.distance_metric(texts)
        classes = classes_per_row(labels, len(texts), type(self).__name__).to(distances.device)
        return self.of_distances(distances, classes[:, None] == classes)

    @abstractmethod
    def of_distances(self, distances: Tensor, is_same: Tensor) -> Tensor:
        """Return the loss, given the distances (B, B) and which rows are of one class (B, B)."""


class BatchAllTripletLoss(_BatchTripletLoss):
    """The triplet loss of all triplets of a batch that break the margin.

    With T all triplets (a, p, n) of the batch, d the distance and m the margin::

        loss = sum_T h / |{T: h > 0}|,   h = max(0, d(a, p) - d(a, n) + m)

    It takes O(B^2) memory, although there are O(B^3) triplets. Each class needs at least two texts in the batch.

    Columns: (text). Labels: class.

    Args:
        model: Embeds the column.
        distance_metric: Distance of each row to each, such as one of `BatchHardTripletLossDistanceFunction`.
        margin: How much farther away negatives shall be.

    References:
        Hermans et al. 2017, In Defense of the Triplet Loss, arXiv:1703.07737.
    """

    def __init__(
        self,
        model: nn.Module | None,
        distance_metric: Distances = BatchHardTripletLossDistanceFunction.euclidean_distance,
        margin: float = 5,
    ) -> None:
        super().__init__(model, distance_metric)
        self.margin = margin

    def of_distances(self, distances: Tensor, is_same: Tensor) -> Tensor:
        """Return the mean over the triplets that break the margin."""
        negatives, reach = _negatives(distances, is_same), distances + self.margin
        # Of the sorted negatives those within reach break the margin; cumulated they give the sum of their hinges.
        num_within = torch.searchsorted(negatives.detach(), reach.detach().contiguous())  # (B, B), of each a and p
        cumulated = F.pad(negatives.cumsum(1), (1, 0)).gather(1, num_within)
        hinges = num_within * reach - cumulated
        is_positive = is_same.clone().fill_diagonal_(False)
        return hinges[is_positive].sum() / num_within[is_positive].sum().clamp(min=1)


class BatchHardTripletLoss(_BatchTripletLoss):
    """The triplet loss of each text with the farthest positive and the nearest negative of its batch.

    With d the distance and m the margin::

        loss = 1/B sum_a max(0, max_p d(a, p) - min_n d(a, n) + m)

    Each class needs at least two texts in the batch: for a text without a positive its own distance, 0, takes its
    place, and for one without a negative that of the farthest text.

    Columns: (text). Labels: class.

    Args:
        model: Embeds the column.
        distance_metric: Distance of each row to each, such as one of `BatchHardTripletLossDistanceFunction`.
        margin: How much farther away negatives shall be.

    References:
        Hermans et al. 2017, In Defense of the Triplet Loss, arXiv:1703.07737.
    """

    def __init__(
        self,
        model: nn.Module | None,
        distance_metric: Distances = BatchHardTripletLossDistanceFunction.euclidean_distance,
        margin: float = 5,
    ) -> None:
        super().__init__(model, distance_metric)
        self.margin = margin

    def of_distances(self, distances: Tensor, is_same: Tensor) -> Tensor:
        """Return the mean over the anchors."""
        return F.relu(_hardest_differences(distances, is_same) + self.margin).mean()


class BatchHardSoftMarginTripletLoss(_BatchTripletLoss):
    """`BatchHardTripletLoss` with a soft margin, which needs no tuning and never stops to push.

    With d the distance::

        loss = 1/B sum_a log( 1 + exp( max_p d(a, p) - min_n d(a, n) ) )

    Columns: (text). Labels: class.

    Args:
        model: Embeds the column.
        distance_metric: Distance of each row to each, such as one of `BatchHardTripletLossDistanceFunction`.

    References:
        Hermans et al. 2017, In Defense of the Triplet Loss, arXiv:1703.07737.
    """

    def __init__(
        self,
        model: nn.Module | None,
        distance_metric: Distances = BatchHardTripletLossDistanceFunction.euclidean_distance,
    ) -> None:
        super().__init__(model, distance_metric)

    def of_distances(self, distances: Tensor, is_same: Tensor) -> Tensor:
        """Return the mean over the anchors."""
        return F.softplus(_hardest_differences(distances, is_same)).mean()


class BatchSemiHardTripletLoss(_BatchTripletLoss):
    """The triplet loss of each pair of a class with the nearest negative that is farther away than the positive.

    With P all (a, p) of the batch, d the distance and m the margin::

        loss = 1/|P| sum_P max(0, d(a, p) - d(a, n) + m),   d(a, n) = min_n { d(a, n): d(a, n) > d(a, p) }

    Where all negatives are nearer than p, n is the farthest one. Each class needs at least two texts in the batch, and
    there must be two classes; where all texts are of one class, d(a, n) is 0.

    Columns: (text). Labels: class.

    Args:
        model: Embeds the column.
        distance_metric: Distance of each row to each, such as one of `BatchHardTripletLossDistanceFunction`.
        margin: How much farther away negatives shall be.

    References:
        Schroff et al. 2015, FaceNet, arXiv:1503.03832.
    """

    def __init__(
        self,
        model: nn.Module | None,
        distance_metric: Distances = BatchHardTripletLossDistanceFunction.euclidean_distance,
        margin: float = 5,
    ) -> None:
        super().__init__(model, distance_metric)
        self.margin = margin

    def of_distances(self, distances: Tensor, is_same: Tensor) -> Tensor:
        """Return the mean over the pairs of one class."""
        negatives = _negatives(distances, is_same)
        num_nearer = torch.searchsorted(negatives.detach(), distances.detach().contiguous(), right=True)  # (B, B)
        num_negatives = (~is_same).sum(1, keepdim=True)
        chosen = torch.minimum(num_nearer, num_negatives - 1).clamp(min=0)
        negative = negatives.gather(1, chosen).masked_fill(num_negatives == 0, 0)
        is_positive = is_same.clone().fill_diagonal_(False)
        hinges = F.relu(distances - negative + self.margin)[is_positive]
        return hinges.sum() / max(len(hinges), 1)


def _negatives(distances: Tensor, is_same: Tensor) -> Tensor:
    """Return the distances of each anchor to its negatives (B, B), the nearest ones first, and then infinity."""
    return distances.masked_fill(is_same, float("inf")).sort(1).values


def _hardest_differences(distances: Tensor, is_same: Tensor) -> Tensor:
    """Return how much farther away the farthest positive of each anchor is than the nearest negative (B,)."""
    farthest = distances.amax(1, keepdim=True)
    positive = distances.masked_fill(~is_same | torch.eye(len(distances), dtype=torch.bool, device=is_same.device), 0)
    negative = torch.where(is_same, distances + farthest, distances)
    return positive.amax(1) - negative.amin(1)
