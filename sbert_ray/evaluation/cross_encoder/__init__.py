"""Evaluators of cross-encoders, or of anything else with a ``predict`` that scores pairs of texts."""

from sbert_ray.evaluation.cross_encoder.classification import (
    CEBinaryAccuracyEvaluator,
    CEBinaryClassificationEvaluator,
    CEF1Evaluator,
    CESoftmaxAccuracyEvaluator,
    CrossEncoderClassificationEvaluator,
)
from sbert_ray.evaluation.cross_encoder.correlation import CECorrelationEvaluator, CrossEncoderCorrelationEvaluator
from sbert_ray.evaluation.cross_encoder.nano_beir import CrossEncoderNanoBEIREvaluator
from sbert_ray.evaluation.cross_encoder.reranking import CERerankingEvaluator, CrossEncoderRerankingEvaluator

__all__ = [
    "CEBinaryAccuracyEvaluator",
    "CEBinaryClassificationEvaluator",
    "CECorrelationEvaluator",
    "CEF1Evaluator",
    "CERerankingEvaluator",
    "CESoftmaxAccuracyEvaluator",
    "CrossEncoderClassificationEvaluator",
    "CrossEncoderCorrelationEvaluator",
    "CrossEncoderNanoBEIREvaluator",
    "CrossEncoderRerankingEvaluator",
]
