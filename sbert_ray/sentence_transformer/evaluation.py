"""Face: evaluators of dense models, where `sentence_transformers` has them. No code lives here."""

from sbert_ray.evaluation.classification import BinaryClassificationEvaluator
from sbert_ray.evaluation.evaluator import BaseEvaluator, SentenceEvaluator, SequentialEvaluator
from sbert_ray.evaluation.information_retrieval import InformationRetrievalEvaluator
from sbert_ray.evaluation.label_accuracy import LabelAccuracyEvaluator
from sbert_ray.evaluation.mse import MSEEvaluator, MSEEvaluatorFromDataFrame
from sbert_ray.evaluation.nano_beir import NanoBEIREvaluator
from sbert_ray.evaluation.paraphrase import ParaphraseMiningEvaluator
from sbert_ray.evaluation.reranking import RerankingEvaluator
from sbert_ray.evaluation.similarity import EmbeddingSimilarityEvaluator
from sbert_ray.evaluation.translation import TranslationEvaluator
from sbert_ray.evaluation.triplet import TripletEvaluator
from sbert_ray.similarity import SimilarityFunction

__all__ = [
    "BaseEvaluator",
    "BinaryClassificationEvaluator",
    "EmbeddingSimilarityEvaluator",
    "InformationRetrievalEvaluator",
    "LabelAccuracyEvaluator",
    "MSEEvaluator",
    "MSEEvaluatorFromDataFrame",
    "NanoBEIREvaluator",
    "ParaphraseMiningEvaluator",
    "RerankingEvaluator",
    "SentenceEvaluator",
    "SequentialEvaluator",
    "SimilarityFunction",
    "TranslationEvaluator",
    "TripletEvaluator",
]
