"""Face: the cross-encoder at the import path that `sentence_transformers` has for it. No code lives here."""

from sbert_ray.models.cross_encoder import CrossEncoder

__all__ = ["CrossEncoder"]
