"""Face: dense models at the import path that `sentence_transformers` has for them. No code lives here."""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from sbert_ray.models.sentence_transformer import SentenceTransformer

__all__ = ["SentenceTransformer"]


def __getattr__(name: str) -> Any:
    if name == "SentenceTransformer":
        import sbert_ray

        return sbert_ray.SentenceTransformer
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
