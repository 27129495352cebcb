"""Face: the dense model at the import path that `sentence_transformers` has for it. No code lives here."""

from sbert_ray.models.sentence_transformer import SentenceTransformer

__all__ = ["SentenceTransformer"]
