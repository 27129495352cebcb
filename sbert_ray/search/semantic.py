"""Semantic search: the rows of a corpus that are nearest to each query."""

from sbert_ray.search.hits import Hit, hits
from sbert_ray.search.neighbors import nearest
from sbert_ray.similarity import Embeddings, Similarity, cos_sim


def semantic_search(
    query_embeddings: Embeddings,
    corpus_embeddings: Embeddings,
    query_chunk_size: int = 100,
    corpus_chunk_size: int = 500_000,
    top_k: int = 10,
    score_function: Similarity = cos_sim,
) -> list[list[Hit]]:
    """Return for each query its best rows of the corpus, by descending score.

    Among rows of equal score those of lesser ids are returned, and first. In sentence_transformers any of them may be.

    Args:
        query_embeddings: (N, D), or one of (D,); dense, or sparse COO or CSR.
        corpus_embeddings: (M, D), likewise. Scores are computed on its device.
        query_chunk_size: Queries at a time.
        corpus_chunk_size: Rows of the corpus at a time.
        top_k: How many rows for each query; all of them where the corpus has fewer.
        score_function: Scores (n, m) of queries (n, D) and rows (m, D), the greater the nearer.

    Raises:
        ValueError: ``top_k`` or a chunk size is not positive, the dimensions of queries and corpus differ, or
            ``score_function`` returns another shape.
    """
    if top_k < 1:
        raise ValueError(f"top_k must be positive, got {top_k}")
    scores, ids = nearest(
        query_embeddings, corpus_embeddings, top_k, score_function, query_chunk_size, corpus_chunk_size
    )
    return [hits(*row) for row in zip(scores.tolist(), ids.tolist(), strict=True)]


information_retrieval = semantic_search  # its older public name
