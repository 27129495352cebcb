"""Face: quantization at the import path that `sentence_transformers` has for it. No code lives here."""

from sbert_ray.quantization import quantize_embeddings
from sbert_ray.search import semantic_search_faiss, semantic_search_usearch

__all__ = ["quantize_embeddings", "semantic_search_faiss", "semantic_search_usearch"]
