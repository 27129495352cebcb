"""A loss that spreads embeddings, to be added to others.

Shapes: B rows, D dimensions.
"""

from collections.abc import Sequence
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from sbert_ray.losses.loss import Loss
from sbert_ray.similarity import Similarity, cos_sim


class GlobalOrthogonalRegularizationLoss(Loss):
    """Let texts that have nothing to do with each other be orthogonal, as random points on a sphere are.

    With s_ij the similarity of texts i and j of a column, and means over all i != j::

        gor_mean = mean_weight (mean s_ij)^2
        gor_second_moment = second_moment_weight max(0, mean s_ij^2 - 1/D)

    They are 0 for points that are spread evenly. It tells nothing about what belongs together, so it is for use beside
    a loss that does, such as `MultipleNegativesRankingLoss`.

    Columns: any number of texts. Labels: none.

    Args:
        model: Embeds the columns.
        similarity_fct: Similarity of all pairs of rows, such as ``cos_sim``.
        mean_weight: Of the first component; None or 0 leaves it out.
        second_moment_weight: Of the second component; None or 0 leaves it out.
        aggregation: Whether components are the ``mean`` or the ``sum`` of those of all columns.

    Raises:
        ValueError: Both components are left out, or the aggregation is unknown.

    References:
        Zhang et al. 2017, Learning Spread-out Local Feature Descriptors, arXiv:1708.06320.
    """

    num_columns = (1, None)
    label_use = "optional"

    def __init__(
        self,
        model: nn.Module | None,
        similarity_fct: Similarity = cos_sim,
        mean_weight: float | None = 1.0,
        second_moment_weight: float | None = 1.0,
        aggregation: Literal["mean", "sum"] = "mean",
    ) -> None:
        super().__init__(model)
        if not mean_weight and not second_moment_weight:
            raise ValueError(
                f"mean_weight or second_moment_weight must not be 0, got {mean_weight} and {second_moment_weight}"
            )
        if aggregation not in ("mean", "sum"):
            raise ValueError(f"aggregation must be 'mean' or 'sum', got {aggregation!r}")
        self.similarity_fct = similarity_fct
        self.mean_weight = mean_weight
        self.second_moment_weight = second_moment_weight
        self.aggregation = aggregation

    def compute(self, embeddings: Sequence[Tensor], labels: Tensor | None) -> dict[str, Tensor]:  # noqa: ARG002
        """Return the components."""
        means, second_moments = map(torch.stack, zip(*map(self._moments, embeddings), strict=True))  # (C,), (C,)
        excess = F.relu(second_moments - 1 / embeddings[0].shape[1])
        num_columns = len(embeddings) if self.aggregation == "mean" else 1
        found = {
            "gor_mean": (self.mean_weight, means.square()),
            "gor_second_moment": (self.second_moment_weight, excess),
        }
        return {name: weight * parts.sum() / num_columns for name, (weight, parts) in found.items() if weight}

    def _moments(self, column: Tensor) -> tuple[Tensor, Tensor]:
        similarities = self.similarity_fct(column, column)
        similarities = similarities.to(
            torch.promote_types(similarities.dtype, torch.float32)
        )  # sums of halves are coarse
        others = similarities.masked_fill(torch.eye(len(column), dtype=torch.bool, device=similarities.device), 0)
        num_others = max(len(column) * (len(column) - 1), 1)  # a lone text has no others, and both moments are 0
        return others.sum() / num_others, others.square().sum() / num_others
