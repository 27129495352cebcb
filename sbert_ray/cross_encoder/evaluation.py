"""Face: evaluators of cross-encoders, where `sentence_transformers` has them. No code lives here."""

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
