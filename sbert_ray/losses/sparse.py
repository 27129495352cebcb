"""Losses of sparse embeddings: the dense ones with the defaults that suit them."""

from collections.abc import Sequence

from torch import nn

from sbert_ray.losses.contrastive import Direction, HardnessMode, MultipleNegativesRankingLoss, PartitionMode
from sbert_ray.losses.distillation import DistillKLDivLoss, MarginMSELoss, MSELoss
from sbert_ray.losses.pairs import CosineSimilarityLoss
from sbert_ray.losses.similarity import AnglELoss, CoSENTLoss
from sbert_ray.losses.triplet import TripletLoss
from sbert_ray.similarity import Similarity, dot_score, pairwise_cos_sim, pairwise_dot_score

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
            scale=scale,
            similarity_fct=similarity_fct,
            gather_across_devices=gather_across_devices,
            directions=directions,
            partition_mode=partition_mode,
            hardness_mode=hardness_mode,
            hardness_strength=hardness_strength,
        )


class SparseCoSENTLoss(CoSENTLoss):
    """`CoSENTLoss`, after which the model compares by cosines.

    Columns: (sentence_A, sentence_B). Labels: similarity score.

    Args:
        model: Embeds the columns.
        scale: Inverse temperature.
        similarity_fct: Similarity of row i with row i.

    References:
        Huang et al. 2024, CoSENT: Consistent Sentence Embedding via Similarity Ranking, doi:10.1109/TASLP.2024.3402087.
    """

    needs_wrapper = IN_SPARSE

    def __init__(
        self, model: nn.Module | None, scale: float = 20.0, similarity_fct: Similarity = pairwise_cos_sim
    ) -> None:
        _compare_by_cosines(model)
        super().__init__(model, scale, similarity_fct)


class SparseAnglELoss(AnglELoss):
    """`AnglELoss`, after which the model compares by cosines.

    Columns: those of `AnglELoss`. Labels: those of `AnglELoss`.

    Args:
        model: Embeds the columns.
        scale: Inverse temperature.

    References:
        Li and Li 2023, AnglE-optimized Text Embeddings, arXiv:2309.12871.
    """

    needs_wrapper = IN_SPARSE

    def __init__(self, model: nn.Module | None, scale: float = 20.0) -> None:
        _compare_by_cosines(model)
        super().__init__(model, scale)


class SparseCosineSimilarityLoss(CosineSimilarityLoss):
    """`CosineSimilarityLoss`, after which the model compares by cosines.

    Columns: (sentence_A, sentence_B). Labels: similarity score.

    Args:
        model: Embeds the columns.
        loss_fct: From similarities (B,) and labels (B,) to the loss.
        cos_score_transformation: Applied to the cosines.
    """

    needs_wrapper = IN_SPARSE

    def __init__(
        self,
        model: nn.Module | None,
        loss_fct: nn.Module = nn.MSELoss(),  # noqa: B008 (as in the peer, and without state)
        cos_score_transformation: nn.Module = nn.Identity(),  # noqa: B008
    ) -> None:
        _compare_by_cosines(model)
        super().__init__(model, loss_fct, cos_score_transformation)


class SparseTripletLoss(TripletLoss):
    """`TripletLoss` of sparse embeddings.

    Columns: (anchor, positive, negative). Labels: none.

    Args:
        model: Embeds the columns.
        distance_metric: Distance of row i of one and of another, as in `TripletDistanceMetric`.
        triplet_margin: How much farther than the positive the negative must be.

    References:
        Hermans et al. 2017, In Defense of the Triplet Loss, arXiv:1703.07737.
    """

    needs_wrapper = IN_SPARSE


class SparseMarginMSELoss(MarginMSELoss):
    """`MarginMSELoss` of sparse embeddings.

    Columns: those of `MarginMSELoss`. Labels: those of `MarginMSELoss`.

    Args:
        model: Embeds the columns.
        similarity_fct: Similarity of row i with row i.

    References:
        Hofstaetter et al. 2020, Cross-Architecture Knowledge Distillation, arXiv:2010.02666.
    """

    needs_wrapper = IN_SPARSE


class SparseDistillKLDivLoss(DistillKLDivLoss):
    """`DistillKLDivLoss` at twice the temperature.

    Columns: those of `DistillKLDivLoss`. Labels: those of `DistillKLDivLoss`.

    Args:
        model: Embeds the columns.
        similarity_fct: Similarity of row i with row i.
        temperature: Of student and teacher.
        student_temperature: Of the student, instead.
        teacher_temperature: Of the teacher, instead.

    References:
        Lin et al. 2020, Distilling Dense Representations for Ranking, arXiv:2010.11386.
    """

    needs_wrapper = IN_SPARSE

    def __init__(
        self,
        model: nn.Module | None,
        similarity_fct: Similarity = pairwise_dot_score,
        temperature: float = 2.0,
        student_temperature: float | None = None,
        teacher_temperature: float | None = None,
    ) -> None:
        super().__init__(
            model,
            similarity_fct=similarity_fct,
            temperature=temperature,
            student_temperature=student_temperature,
            teacher_temperature=teacher_temperature,
        )


class SparseMSELoss(MSELoss):
    """`MSELoss` against a teacher's sparse embeddings; it may be used by itself.

    Columns: those of `MSELoss`. Labels: those of `MSELoss`.

    Args:
        model: Embeds the columns.

    References:
        Reimers and Gurevych 2020, Making Monolingual Sentence Embeddings Multilingual, arXiv:2004.09813.
    """

    def __init__(self, model: nn.Module | None) -> None:
        super().__init__(model)


def _compare_by_cosines(model: nn.Module | None) -> None:
    if model is not None:
        model.similarity_fn_name = "cosine"  # type: ignore[assignment] # a protocol, where nn.Module knows tensors alone
