"""Evaluation: callables from a model, or anything that embeds or scores, to metrics by name.

Also the public import path of dense evaluators before sentence-transformers 5.4. Imported on first use, torch with
them.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from sbert_ray.evaluation.evaluator import BaseEvaluator, Encoder, Evaluator, SentenceEvaluator, SequentialEvaluator
    from sbert_ray.evaluation.information_retrieval import InformationRetrievalEvaluator
    from sbert_ray.evaluation.precomputed import PrecomputedEmbeddings
    from sbert_ray.evaluation.similarity import EmbeddingSimilarityEvaluator
    from sbert_ray.similarity import SimilarityFunction

__all__ = [
    "BaseEvaluator",
    "EmbeddingSimilarityEvaluator",
    "Encoder",
    "Evaluator",
    "InformationRetrievalEvaluator",
    "PrecomputedEmbeddings",
    "SentenceEvaluator",
    "SequentialEvaluator",
    "SimilarityFunction",
]

_HOMES = {
    "BaseEvaluator": "sbert_ray.evaluation.evaluator",
    "EmbeddingSimilarityEvaluator": "sbert_ray.evaluation.similarity",
    "Encoder": "sbert_ray.evaluation.evaluator",
    "Evaluator": "sbert_ray.evaluation.evaluator",
    "InformationRetrievalEvaluator": "sbert_ray.evaluation.information_retrieval",
    "PrecomputedEmbeddings": "sbert_ray.evaluation.precomputed",
    "SentenceEvaluator": "sbert_ray.evaluation.evaluator",
    "SequentialEvaluator": "sbert_ray.evaluation.evaluator",
    "SimilarityFunction": "sbert_ray.similarity",
}


def __getattr__(name: str) -> Any:
    if name in _HOMES:
        return getattr(import_module(_HOMES[name]), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
