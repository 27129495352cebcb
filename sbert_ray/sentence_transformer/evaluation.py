"""Face: evaluators of dense models at the import path that `sentence_transformers` has for them. No code lives here."""

from sbert_ray.evaluation.evaluator import BaseEvaluator, SentenceEvaluator, SequentialEvaluator
from sbert_ray.evaluation.information_retrieval import InformationRetrievalEvaluator
from sbert_ray.evaluation.similarity import EmbeddingSimilarityEvaluator
from sbert_ray.similarity import SimilarityFunction

__all__ = [
    "BaseEvaluator",
    "EmbeddingSimilarityEvaluator",
    "InformationRetrievalEvaluator",
    "SentenceEvaluator",
    "SequentialEvaluator",
    "SimilarityFunction",
]
