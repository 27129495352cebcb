"""Training losses of cross-encoders: functions of the logits of pairs of texts, and of labels."""

from sbert_ray.losses.cross_encoder.contrastive import CachedMultipleNegativesRankingLoss, MultipleNegativesRankingLoss
from sbert_ray.losses.cross_encoder.lambda_loss import (
    LambdaLoss,
    LambdaRankScheme,
    NDCGLoss1Scheme,
    NDCGLoss2PPScheme,
    NDCGLoss2Scheme,
    NoWeightingScheme,
    RankNetLoss,
)
from sbert_ray.losses.cross_encoder.listwise import (
    ADRMSELoss,
    ListMLELoss,
    ListNetLoss,
    PListMLELambdaWeight,
    PListMLELoss,
)
from sbert_ray.losses.cross_encoder.loss import CrossEncoderLoss
from sbert_ray.losses.cross_encoder.pairwise import MarginMSELoss
from sbert_ray.losses.cross_encoder.pointwise import BinaryCrossEntropyLoss, CrossEntropyLoss, MSELoss

LOSSES: dict[str, type[CrossEncoderLoss]] = {
    loss.__name__: loss
    for loss in (
        ADRMSELoss,
        BinaryCrossEntropyLoss,
        CachedMultipleNegativesRankingLoss,
        CrossEntropyLoss,
        LambdaLoss,
        ListMLELoss,
        ListNetLoss,
        MSELoss,
        MarginMSELoss,
        MultipleNegativesRankingLoss,
        PListMLELoss,
        RankNetLoss,
    )
}
"""All losses of cross-encoders by name."""

__all__ = [
    "LOSSES",
    "ADRMSELoss",
    "BinaryCrossEntropyLoss",
    "CachedMultipleNegativesRankingLoss",
    "CrossEncoderLoss",
    "CrossEntropyLoss",
    "LambdaLoss",
    "LambdaRankScheme",
    "ListMLELoss",
    "ListNetLoss",
    "MSELoss",
    "MarginMSELoss",
    "MultipleNegativesRankingLoss",
    "NDCGLoss1Scheme",
    "NDCGLoss2PPScheme",
    "NDCGLoss2Scheme",
    "NoWeightingScheme",
    "PListMLELambdaWeight",
    "PListMLELoss",
    "RankNetLoss",
]
