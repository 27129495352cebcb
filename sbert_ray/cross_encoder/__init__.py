"""Face: cross-encoders at the import path that `sentence_transformers` has for them. No code lives here."""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from sbert_ray.models.cross_encoder import CrossEncoder

__all__ = ["CrossEncoder"]


def __getattr__(name: str) -> Any:
    if name == "CrossEncoder":
        import sbert_ray

        return sbert_ray.CrossEncoder
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
