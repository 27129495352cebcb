"""Face: sparse models at the import path that `sentence_transformers` has for them. No code lives here."""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from sbert_ray.models.sparse_encoder import SparseEncoder

__all__ = ["SparseEncoder"]


def __getattr__(name: str) -> Any:
    if name == "SparseEncoder":
        import sbert_ray

        return sbert_ray.SparseEncoder
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
