"""Losses of sparse embeddings: the dense ones with the defaults that suit them."""

from collections.abc import Sequence

from torch import nn

from sbert_ray.losses.contrastive import Direction, HardnessMode, MultipleNegativesRankingLoss, PartitionMode
from sbert_ray.similarity import Similarity, dot_score

IN_SPARSE = "SpladeLoss or CSRLoss"


class SparseMultipleNegativesRankingLoss(MultipleNegativesRankingLoss):
    """`MultipleNegativesRankingLoss` by dot products.

    Columns: (anchor, positive) or (anchor, positive, negative_1, ..., negative_n). Labels: none.

    Args:
        model: Embeds the columns.
        scale: Inverse temperature.
        similarity_fct: Similarity of all pairs of rows.
        gather_across_devices: Whether documents of all workers are candidates.
        directions: As in `MultipleNegativesRankingLoss`, like all that follow.
        partition_mode: ``joint`` or ``per_direction``.
        hardness_mode: Whose logits are raised.
        hardness_strength: By how much.

    References:
        Formal et al. 2022, From Distillation to Hard Negative Sampling, arXiv:2205.04733.
    """

    needs_wrapper = IN_SPARSE

    def __init__(
        self,
        model: nn.Module | None,
        scale: float = 1.0,
        similarity_fct: Similarity = dot_score,
        gather_across_devices: bool = False,
        directions: Sequence[Direction] = ("query_to_doc",),
        partition_mode: PartitionMode = "joint",
        hardness_mode: HardnessMode | None = None,
        hardness_strength: float = 0.0,
    ) -> None:
        super().__init__(
            model,
            scale,
            similarity_fct,
            gather_across_devices,
            directions,
            partition_mode,
            hardness_mode,
            hardness_strength,
        )
