"""The loss of an anchor, a positive and a negative.

Shapes: B rows, D dimensions.
"""

from collections.abc import Sequence
from typing import Any

import torch.nn.functional as F
from torch import Tensor, nn

from sbert_ray.losses import distances
from sbert_ray.losses.distances import Distance, distance_name
from sbert_ray.losses.loss import Loss


class TripletDistanceMetric:
    """Distances of row i with row i."""

    COSINE = staticmethod(distances.cosine)
    EUCLIDEAN = staticmethod(distances.euclidean)
    MANHATTAN = staticmethod(distances.manhattan)


class TripletLoss(Loss):
    """Let each anchor be closer to its positive than to its negative, by the margin.

    With d the distance and m the margin::

        loss = 1/B sum_i max(0, d(a_i, p_i) - d(a_i, n_i) + m)

    Cosine distances are 2 at most, and Euclidean ones of normalized embeddings too, so they need a smaller margin.

    Columns: (anchor, positive, negative). Labels: none.

    Args:
        model: Embeds the columns.
        distance_metric: Distance of row i with row i, such as one of `TripletDistanceMetric`.
        triplet_margin: How much farther away the negative shall be.

    References:
        Schroff et al. 2015, FaceNet, arXiv:1503.03832.
        Hermans et al. 2017, In Defense of the Triplet Loss, arXiv:1703.07737.
    """

    num_columns = (3, 3)

    def __init__(
        self,
        model: nn.Module | None,
        distance_metric: Distance = TripletDistanceMetric.EUCLIDEAN,
        triplet_margin: float = 5,
    ) -> None:
        super().__init__(model)
        self.distance_metric = distance_metric
        self.triplet_margin = triplet_margin

    def compute(self, embeddings: Sequence[Tensor], labels: Tensor | None) -> Tensor:  # noqa: ARG002
        """Return the mean over the triplets."""
        anchors, positives, negatives = embeddings
        difference = self.distance_metric(anchors, positives) - self.distance_metric(anchors, negatives)  # (B,)
        return F.relu(difference + self.triplet_margin).mean()

    def get_config_dict(self) -> dict[str, Any]:
        """Return the constructor's arguments, the distance by its name."""
        return super().get_config_dict() | {
            "distance_metric": distance_name(TripletDistanceMetric, self.distance_metric)
        }
