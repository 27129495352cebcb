"""Dense, sparse and cross-encoder models in the public Sentence Transformers format. Knows nothing of Ray.

Models are imported on first use, so that `sbert_ray.data` and whatever plans work with it start without torch.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from sbert_ray.inference.progress import LoggingHandler
    from sbert_ray.models.cross_encoder import CrossEncoder
    from sbert_ray.models.sentence_transformer import SentenceTransformer
    from sbert_ray.models.sparse_encoder import SparseEncoder
    from sbert_ray.quantization import quantize_embeddings
    from sbert_ray.similarity import SimilarityFunction

__version__ = "0.1.0"

__all__ = [
    "CrossEncoder",
    "LoggingHandler",
    "SentenceTransformer",
    "SimilarityFunction",
    "SparseEncoder",
    "__version__",
    "quantize_embeddings",
]

_HOMES = {
    "CrossEncoder": "sbert_ray.models.cross_encoder",
    "LoggingHandler": "sbert_ray.inference.progress",
    "SentenceTransformer": "sbert_ray.models.sentence_transformer",
    "SimilarityFunction": "sbert_ray.similarity",
    "SparseEncoder": "sbert_ray.models.sparse_encoder",
    "quantize_embeddings": "sbert_ray.quantization",
}


def __getattr__(name: str) -> Any:
    if name in _HOMES:
        return getattr(import_module(_HOMES[name]), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
