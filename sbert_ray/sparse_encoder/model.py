"""Face: the sparse model at the import path that `sentence_transformers` has for it. No code lives here."""

from sbert_ray.models.sparse_encoder import SparseEncoder

__all__ = ["SparseEncoder"]
