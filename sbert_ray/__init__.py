"""Dense, sparse and cross-encoder models in the public Sentence Transformers format. Knows nothing of Ray.

Models are imported on first use, so that `sbert_ray.data` and whatever plans work with it start without torch.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from sbert_ray.models.sentence_transformer import SentenceTransformer

__version__ = "0.1.0"

__all__ = ["SentenceTransformer", "__version__"]

_MODELS = {"SentenceTransformer": "sbert_ray.models.sentence_transformer"}


def __getattr__(name: str) -> Any:
    if name in _MODELS:
        return getattr(import_module(_MODELS[name]), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
