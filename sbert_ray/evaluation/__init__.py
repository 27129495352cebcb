"""Evaluation: callables from a model, or anything that embeds or scores, to metrics by name.

Also the public import path of dense evaluators before sentence-transformers 5.4. Imported on first use, torch with
them.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from sbert_ray.evaluation.classification import BinaryClassificationEvaluator
    from sbert_ray.evaluation.encoding import EmbeddingEvaluator
    from sbert_ray.evaluation.evaluator import BaseEvaluator, Encoder, Evaluator, SentenceEvaluator, SequentialEvaluator
    from sbert_ray.evaluation.fusion import ReciprocalRankFusionEvaluator
    from sbert_ray.evaluation.information_retrieval import InformationRetrievalEvaluator
    from sbert_ray.evaluation.label_accuracy import LabelAccuracyEvaluator
    from sbert_ray.evaluation.mse import MSEEvaluator, MSEEvaluatorFromDataFrame
    from sbert_ray.evaluation.nano_beir import NanoBEIREvaluator, SparseNanoBEIREvaluator
    from sbert_ray.evaluation.paraphrase import ParaphraseMiningEvaluator
    from sbert_ray.evaluation.precomputed import PrecomputedEmbeddings
    from sbert_ray.evaluation.reranking import RerankingEvaluator
    from sbert_ray.evaluation.similarity import EmbeddingSimilarityEvaluator
    from sbert_ray.evaluation.sparse import (
        SparseBinaryClassificationEvaluator,
        SparseEmbeddingSimilarityEvaluator,
        SparseInformationRetrievalEvaluator,
        SparseMSEEvaluator,
        SparseRerankingEvaluator,
        SparseTranslationEvaluator,
        SparseTripletEvaluator,
    )
    from sbert_ray.evaluation.translation import TranslationEvaluator
    from sbert_ray.evaluation.triplet import TripletEvaluator
    from sbert_ray.similarity import SimilarityFunction

__all__ = [
    "BaseEvaluator",
    "BinaryClassificationEvaluator",
    "EmbeddingEvaluator",
    "EmbeddingSimilarityEvaluator",
    "Encoder",
    "Evaluator",
    "InformationRetrievalEvaluator",
    "LabelAccuracyEvaluator",
    "MSEEvaluator",
    "MSEEvaluatorFromDataFrame",
    "NanoBEIREvaluator",
    "ParaphraseMiningEvaluator",
    "PrecomputedEmbeddings",
    "ReciprocalRankFusionEvaluator",
    "RerankingEvaluator",
    "SentenceEvaluator",
    "SequentialEvaluator",
    "SimilarityFunction",
    "SparseBinaryClassificationEvaluator",
    "SparseEmbeddingSimilarityEvaluator",
    "SparseInformationRetrievalEvaluator",
    "SparseMSEEvaluator",
    "SparseNanoBEIREvaluator",
    "SparseRerankingEvaluator",
    "SparseTranslationEvaluator",
    "SparseTripletEvaluator",
    "TranslationEvaluator",
    "TripletEvaluator",
]

_HOMES = {
    "BaseEvaluator": "sbert_ray.evaluation.evaluator",
    "BinaryClassificationEvaluator": "sbert_ray.evaluation.classification",
    "EmbeddingEvaluator": "sbert_ray.evaluation.encoding",
    "EmbeddingSimilarityEvaluator": "sbert_ray.evaluation.similarity",
    "Encoder": "sbert_ray.evaluation.evaluator",
    "Evaluator": "sbert_ray.evaluation.evaluator",
    "InformationRetrievalEvaluator": "sbert_ray.evaluation.information_retrieval",
    "LabelAccuracyEvaluator": "sbert_ray.evaluation.label_accuracy",
    "MSEEvaluator": "sbert_ray.evaluation.mse",
    "MSEEvaluatorFromDataFrame": "sbert_ray.evaluation.mse",
    "NanoBEIREvaluator": "sbert_ray.evaluation.nano_beir",
    "ParaphraseMiningEvaluator": "sbert_ray.evaluation.paraphrase",
    "PrecomputedEmbeddings": "sbert_ray.evaluation.precomputed",
    "ReciprocalRankFusionEvaluator": "sbert_ray.evaluation.fusion",
    "RerankingEvaluator": "sbert_ray.evaluation.reranking",
    "SentenceEvaluator": "sbert_ray.evaluation.evaluator",
    "SequentialEvaluator": "sbert_ray.evaluation.evaluator",
    "SimilarityFunction": "sbert_ray.similarity",
    "SparseBinaryClassificationEvaluator": "sbert_ray.evaluation.sparse",
    "SparseEmbeddingSimilarityEvaluator": "sbert_ray.evaluation.sparse",
    "SparseInformationRetrievalEvaluator": "sbert_ray.evaluation.sparse",
    "SparseMSEEvaluator": "sbert_ray.evaluation.sparse",
    "SparseNanoBEIREvaluator": "sbert_ray.evaluation.nano_beir",
    "SparseRerankingEvaluator": "sbert_ray.evaluation.sparse",
    "SparseTranslationEvaluator": "sbert_ray.evaluation.sparse",
    "SparseTripletEvaluator": "sbert_ray.evaluation.sparse",
    "TranslationEvaluator": "sbert_ray.evaluation.translation",
    "TripletEvaluator": "sbert_ray.evaluation.triplet",
}


def __getattr__(name: str) -> Any:
    if name in _HOMES:
        return getattr(import_module(_HOMES[name]), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
