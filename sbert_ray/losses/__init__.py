"""Training losses: functions of embeddings, and of labels where a loss needs them."""

from sbert_ray.losses.adaptive_layer import AdaptiveLayerLoss, Matryoshka2dLoss
from sbert_ray.losses.batch_triplet import (
    BatchAllTripletLoss,
    BatchHardSoftMarginTripletLoss,
    BatchHardTripletLoss,
    BatchHardTripletLossDistanceFunction,
    BatchSemiHardTripletLoss,
)
from sbert_ray.losses.classification import SoftmaxLoss
from sbert_ray.losses.contrastive import (
    CachedMultipleNegativesRankingLoss,
    CachedMultipleNegativesSymmetricRankingLoss,
    MultipleNegativesRankingLoss,
    MultipleNegativesSymmetricRankingLoss,
)
from sbert_ray.losses.contrastive_tension import (
    ContrastiveTensionDataLoader,
    ContrastiveTensionLoss,
    ContrastiveTensionLossInBatchNegatives,
)
from sbert_ray.losses.csr import CSRLoss, CSRReconstructionLoss
from sbert_ray.losses.denoising import DenoisingAutoEncoderLoss
from sbert_ray.losses.distillation import DistillKLDivLoss, EmbedDistillLoss, MarginMSELoss, MSELoss
from sbert_ray.losses.gist import CachedGISTEmbedLoss, GISTEmbedLoss
from sbert_ray.losses.loss import Loss
from sbert_ray.losses.matryoshka import MatryoshkaLoss
from sbert_ray.losses.mega_batch_margin import MegaBatchMarginLoss
from sbert_ray.losses.pairs import ContrastiveLoss, CosineSimilarityLoss, OnlineContrastiveLoss, SiameseDistanceMetric
from sbert_ray.losses.regularization import GlobalOrthogonalRegularizationLoss
from sbert_ray.losses.similarity import AnglELoss, CoSENTLoss
from sbert_ray.losses.sparse import (
    SparseAnglELoss,
    SparseCoSENTLoss,
    SparseCosineSimilarityLoss,
    SparseDistillKLDivLoss,
    SparseMarginMSELoss,
    SparseMSELoss,
    SparseMultipleNegativesRankingLoss,
    SparseTripletLoss,
)
from sbert_ray.losses.splade import CachedSpladeLoss, FlopsLoss, SpladeLoss
from sbert_ray.losses.triplet import TripletDistanceMetric, TripletLoss
from sbert_ray.losses.wrapper import CachedLoss, GatheredLoss

LOSSES: dict[str, type[Loss]] = {
    name: value
    for name, value in sorted(globals().items())
    if isinstance(value, type) and issubclass(value, Loss) and value is not Loss
}
"""All losses over embeddings, by name."""

__all__ = [
    "LOSSES",
    "AdaptiveLayerLoss",
    "AnglELoss",
    "BatchAllTripletLoss",
    "BatchHardSoftMarginTripletLoss",
    "BatchHardTripletLoss",
    "BatchHardTripletLossDistanceFunction",
    "BatchSemiHardTripletLoss",
    "CSRLoss",
    "CSRReconstructionLoss",
    "CachedGISTEmbedLoss",
    "CachedLoss",
    "CachedMultipleNegativesRankingLoss",
    "CachedMultipleNegativesSymmetricRankingLoss",
    "CachedSpladeLoss",
    "CoSENTLoss",
    "ContrastiveLoss",
    "ContrastiveTensionDataLoader",
    "ContrastiveTensionLoss",
    "ContrastiveTensionLossInBatchNegatives",
    "CosineSimilarityLoss",
    "DenoisingAutoEncoderLoss",
    "DistillKLDivLoss",
    "EmbedDistillLoss",
    "FlopsLoss",
    "GISTEmbedLoss",
    "GatheredLoss",
    "GlobalOrthogonalRegularizationLoss",
    "Loss",
    "MSELoss",
    "MarginMSELoss",
    "Matryoshka2dLoss",
    "MatryoshkaLoss",
    "MegaBatchMarginLoss",
    "MultipleNegativesRankingLoss",
    "MultipleNegativesSymmetricRankingLoss",
    "OnlineContrastiveLoss",
    "SiameseDistanceMetric",
    "SoftmaxLoss",
    "SparseAnglELoss",
    "SparseCoSENTLoss",
    "SparseCosineSimilarityLoss",
    "SparseDistillKLDivLoss",
    "SparseMSELoss",
    "SparseMarginMSELoss",
    "SparseMultipleNegativesRankingLoss",
    "SparseTripletLoss",
    "SpladeLoss",
    "TripletDistanceMetric",
    "TripletLoss",
]
