"""Face: helpers at the import path that `sentence_transformers` has for them. No code lives here."""

from typing import TYPE_CHECKING, Any

from sbert_ray.full_name import fullname
from sbert_ray.util.file_io import is_sentence_transformer_model
from sbert_ray.util.logging import LoggingHandler
from sbert_ray.util.quantization import quantize_embeddings
from sbert_ray.util.retrieval import (
    information_retrieval,
    paraphrase_mining,
    paraphrase_mining_embeddings,
    semantic_search,
)
from sbert_ray.util.similarity import (
    SimilarityFunction,
    cos_sim,
    dot_score,
    euclidean_sim,
    manhattan_sim,
    pairwise_angle_sim,
    pairwise_cos_sim,
    pairwise_dot_score,
    pairwise_euclidean_sim,
    pairwise_manhattan_sim,
    pytorch_cos_sim,
)
from sbert_ray.util.tensor import (
    batch_to_device,
    compute_count_vector,
    normalize_embeddings,
    select_max_active_dims,
    to_scipy_coo,
    truncate_embeddings,
)

if TYPE_CHECKING:
    from sbert_ray.util.environment import get_device_name

__all__ = [
    "LoggingHandler",
    "SimilarityFunction",
    "batch_to_device",
    "compute_count_vector",
    "cos_sim",
    "dot_score",
    "euclidean_sim",
    "fullname",
    "get_device_name",
    "information_retrieval",
    "is_sentence_transformer_model",
    "manhattan_sim",
    "normalize_embeddings",
    "pairwise_angle_sim",
    "pairwise_cos_sim",
    "pairwise_dot_score",
    "pairwise_euclidean_sim",
    "pairwise_manhattan_sim",
    "paraphrase_mining",
    "paraphrase_mining_embeddings",
    "pytorch_cos_sim",
    "quantize_embeddings",
    "select_max_active_dims",
    "semantic_search",
    "to_scipy_coo",
    "truncate_embeddings",
]


def __getattr__(name: str) -> Any:
    if name == "get_device_name":  # whose home imports transformers
        from sbert_ray.util.environment import get_device_name

        return get_device_name
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
