"""Losses of pairs of texts, each by itself.

Shapes: B rows, D dimensions.
"""

from collections.abc import Sequence
from typing import Any

import torch.nn.functional as F
from torch import Tensor, nn

from sbert_ray.full_name import fullname
from sbert_ray.losses import distances
from sbert_ray.losses.distances import Distance, distance_name
from sbert_ray.losses.labels import matches_per_row, scores_per_row
from sbert_ray.losses.loss import Loss
from sbert_ray.similarity import pairwise_cos_sim


class SiameseDistanceMetric:
    """Distances of row i with row i."""

    EUCLIDEAN = staticmethod(distances.euclidean)
    MANHATTAN = staticmethod(distances.manhattan)
    COSINE_DISTANCE = staticmethod(distances.cosine)


class CosineSimilarityLoss(Loss):
    """Let the cosines of pairs be their gold scores.

    With f the transformation, and cos_i the cosine of pair i and y_i its gold score, by default::

        loss = 1/B sum_i (f(cos_i) - y_i)^2

    As scores are not always cosines, `CoSENTLoss`, which asks for their order alone, is often better.

    Columns: (sentence_A, sentence_B). Labels: similarity score.

    Args:
        model: Embeds the columns.
        loss_fct: Compares the transformed cosines with the scores.
        cos_score_transformation: What is done to cosines, such as a sigmoid.

    References:
        Reimers and Gurevych 2019, Sentence-BERT, arXiv:1908.10084.
    """

    num_columns = (2, 2)
    label_use = "required"
    label_hint = "one score per pair"

    def __init__(
        self,
        model: nn.Module | None,
        loss_fct: nn.Module = nn.MSELoss(),  # noqa: B008 (it has no state)
        cos_score_transformation: nn.Module = nn.Identity(),  # noqa: B008
    ) -> None:
        super().__init__(model)
        self.loss_fct = loss_fct
        self.cos_score_transformation = cos_score_transformation

    def compute(self, embeddings: Sequence[Tensor], labels: Tensor | None) -> Tensor:
        """Return what ``loss_fct`` makes of the cosines and the scores."""
        assert labels is not None
        a, b = embeddings
        labels = scores_per_row(labels, len(a), "CosineSimilarityLoss")
        cosines = self.cos_score_transformation(pairwise_cos_sim(a, b))  # (B,)
        value: Tensor = self.loss_fct(cosines, labels.to(cosines))
        return value

    def get_config_dict(self) -> dict[str, Any]:
        """Return the names of the functions."""
        return {name: fullname(getattr(self, name)) for name in ("loss_fct", "cos_score_transformation")}


class ContrastiveLoss(Loss):
    """Draw pairs that match together, and push others apart until their distance is the margin.

    With d_i the distance of pair i, y_i = 1 if it matches and 0 if not, and m the margin::

        loss = 1/B sum_i 1/2 ( y_i d_i^2 + (1 - y_i) max(0, m - d_i)^2 )

    Labels between 0 and 1 are how much a pair matches.

    Columns: (sentence_A, sentence_B). Labels: 1 if they match, 0 if not.

    Args:
        model: Embeds the columns.
        distance_metric: Distance of row i with row i, such as one of `SiameseDistanceMetric`.
        margin: How far apart is enough.
        size_average: Whether to take the mean over pairs, rather than the sum.

    References:
        Hadsell et al. 2006, Dimensionality Reduction by Learning an Invariant Mapping, doi:10.1109/CVPR.2006.100.
    """

    num_columns = (2, 2)
    label_use = "required"
    label_hint = "0 or 1 per pair"

    def __init__(
        self,
        model: nn.Module | None,
        distance_metric: Distance = SiameseDistanceMetric.COSINE_DISTANCE,
        margin: float = 0.5,
        size_average: bool = True,
    ) -> None:
        super().__init__(model)
        self.distance_metric = distance_metric
        self.margin = margin
        self.size_average = size_average

    def compute(self, embeddings: Sequence[Tensor], labels: Tensor | None) -> Tensor:
        """Return the mean over the pairs, or their sum."""
        assert labels is not None
        a, b = embeddings
        labels = scores_per_row(labels, len(a), "ContrastiveLoss")
        if bool(((labels < 0) | (labels > 1)).any()):
            raise ValueError(f"ContrastiveLoss needs labels from 0 to 1, got {labels.min()} to {labels.max()}")
        distances = self.distance_metric(a, b)  # (B,)
        y = labels.to(distances)
        losses = (y * distances.square() + (1 - y) * F.relu(self.margin - distances).square()) / 2
        return losses.mean() if self.size_average else losses.sum()

    def get_config_dict(self) -> dict[str, Any]:
        """Return the constructor's arguments, the distance by its name."""
        return super().get_config_dict() | {
            "distance_metric": distance_name(SiameseDistanceMetric, self.distance_metric)
        }


class OnlineContrastiveLoss(Loss):
    """`ContrastiveLoss` of the hard pairs of a batch alone: those that match and are far, or do not and are close.

    With d_i the distance of pair i and m the margin::

        loss = sum_{i in P} d_i^2 + sum_{i in N} max(0, m - d_i)^2

    N are pairs that do not match, but are closer than the farthest one that does; P are pairs that match, but are
    farther apart than the closest one that does not. Where a batch has pairs of one kind only, the hard ones are those
    closer, or farther apart, than the mean. The loss is a sum, so it grows with B.

    Columns: (sentence_A, sentence_B). Labels: 1 if they match, 0 if not.

    Args:
        model: Embeds the columns.
        distance_metric: Distance of row i with row i, such as one of `SiameseDistanceMetric`.
        margin: How far apart is enough.
    """

    num_columns = (2, 2)
    label_use = "required"
    label_hint = "0 or 1 per pair"

    def __init__(
        self,
        model: nn.Module | None,
        distance_metric: Distance = SiameseDistanceMetric.COSINE_DISTANCE,
        margin: float = 0.5,
    ) -> None:
        super().__init__(model)
        self.distance_metric = distance_metric
        self.margin = margin

    def compute(self, embeddings: Sequence[Tensor], labels: Tensor | None) -> Tensor:
        """Return the sum over the hard pairs."""
        assert labels is not None
        a, b = embeddings
        is_match = matches_per_row(labels, len(a), "OnlineContrastiveLoss")
        distances = self.distance_metric(a, b)  # (B,)
        is_match = is_match.to(distances.device)
        matches, others = distances[is_match], distances[~is_match]
        if len(matches) and len(others):
            far, close = matches > others.min(), others < matches.max()
        else:
            far, close = matches > matches.mean(), others < others.mean()  # one of them is empty, and so is its mean
        return matches[far].square().sum() + F.relu(self.margin - others[close]).square().sum()

    def get_config_dict(self) -> dict[str, Any]:
        """Return the constructor's arguments, the distance by its name."""
        return super().get_config_dict() | {
            "distance_metric": distance_name(SiameseDistanceMetric, self.distance_metric)
        }
