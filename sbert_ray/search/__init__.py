"""Retrieval over embeddings that are there already: pure functions of arrays and tensors, without models and files."""

from sbert_ray.search.exact import quantized_search
from sbert_ray.search.faiss_index import semantic_search_faiss
from sbert_ray.search.hits import Hit
from sbert_ray.search.neighbors import Neighbors, best, merge, nearest
from sbert_ray.search.semantic import information_retrieval, semantic_search
from sbert_ray.search.usearch_index import semantic_search_usearch

__all__ = [
    "Hit",
    "Neighbors",
    "best",
    "information_retrieval",
    "merge",
    "nearest",
    "quantized_search",
    "semantic_search",
    "semantic_search_faiss",
    "semantic_search_usearch",
]
