"""Face: retrieval at the import path that `sentence_transformers` has for it. No code lives here."""

from sbert_ray.mining import paraphrase_mining, paraphrase_mining_embeddings
from sbert_ray.search import information_retrieval, semantic_search

__all__ = ["information_retrieval", "paraphrase_mining", "paraphrase_mining_embeddings", "semantic_search"]
