"""Training losses: functions of embeddings, and of labels where a loss needs them."""

from sbert_ray.losses.adaptive_layer import AdaptiveLayerLoss, Matryoshka2dLoss
from sbert_ray.losses.contrastive import (
    CachedMultipleNegativesRankingLoss,
    CachedMultipleNegativesSymmetricRankingLoss,
    MultipleNegativesRankingLoss,
    MultipleNegativesSymmetricRankingLoss,
)
from sbert_ray.losses.csr import CSRLoss, CSRReconstructionLoss
from sbert_ray.losses.gist import CachedGISTEmbedLoss, GISTEmbedLoss
from sbert_ray.losses.loss import Loss
from sbert_ray.losses.matryoshka import MatryoshkaLoss
from sbert_ray.losses.mega_batch_margin import MegaBatchMarginLoss
from sbert_ray.losses.sparse import SparseMultipleNegativesRankingLoss
from sbert_ray.losses.splade import CachedSpladeLoss, FlopsLoss, SpladeLoss
from sbert_ray.losses.wrapper import CachedLoss, GatheredLoss

__all__ = [
    "AdaptiveLayerLoss",
    "CSRLoss",
    "CSRReconstructionLoss",
    "CachedGISTEmbedLoss",
    "CachedLoss",
    "CachedMultipleNegativesRankingLoss",
    "CachedMultipleNegativesSymmetricRankingLoss",
    "CachedSpladeLoss",
    "FlopsLoss",
    "GISTEmbedLoss",
    "GatheredLoss",
    "Loss",
    "Matryoshka2dLoss",
    "MatryoshkaLoss",
    "MegaBatchMarginLoss",
    "MultipleNegativesRankingLoss",
    "MultipleNegativesSymmetricRankingLoss",
    "SparseMultipleNegativesRankingLoss",
    "SpladeLoss",
]
