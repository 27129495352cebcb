"""The exact nearest rows, by blocks of rows.

Shapes: N queries and M rows of a corpus, of dimension D; k neighbours, or M of them where M < k.
"""

from collections.abc import Callable, Iterable, Iterator
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from sbert_ray.embeddings import csr_rows, is_sparse, normalize_embeddings, to_coo, to_csr
from sbert_ray.similarity import Embeddings, Similarity, cos_sim, dot_score, to_tensor


class Neighbors(NamedTuple):
    """The best rows for each query: the greatest score first, the lesser id first among equal scores.

    Attributes:
        scores: (N, k), of the dtype that they were computed in.
        ids: Row numbers in the corpus (N, k), int64.
    """

    scores: Tensor
    ids: Tensor


@torch.no_grad()
def nearest(
    queries: Embeddings,
    corpus: Embeddings,
    k: int,
    score_function: Similarity = cos_sim,
    query_chunk_size: int = 100,
    corpus_chunk_size: int = 500_000,
) -> Neighbors:
    """Return the ``k`` rows of ``corpus`` with the greatest scores for each query, on the corpus's device.

    At most ``query_chunk_size`` times ``corpus_chunk_size`` scores are in memory at once, or a few times so many where
    there are ties. A corpus that is an array,
    memory-mapped too, is read and converted chunk by chunk.

    Args:
        queries: (N, D), or one of (D,); dense, or sparse COO or CSR.
        corpus: (M, D), likewise.
        k: How many rows; all of them where the corpus has fewer.
        score_function: Scores (n, m) of queries (n, D) and rows (m, D), the greater the nearer; both come as float
            tensors, sparse ones as COO.
        query_chunk_size: Queries at a time.
        corpus_chunk_size: Rows of the corpus at a time.

    Raises:
        ValueError: ``k`` or a chunk size is not positive, the dimensions differ, or ``score_function`` returns another
            shape.
    """
    for name, value in (("k", k), ("query_chunk_size", query_chunk_size), ("corpus_chunk_size", corpus_chunk_size)):
        if value < 1:
            raise ValueError(f"{name} must be positive, got {value}")
    queries, corpus = _rows(queries), _rows(corpus)
    if not (len(queries) and len(corpus)):
        return Neighbors(torch.empty(len(queries), 0), torch.empty(len(queries), 0, dtype=torch.int64))
    if queries.shape[1] != corpus.shape[1]:
        raise ValueError(
            f"queries and corpus must have the same dimension, got {queries.shape[1]} of the queries and "
            f"{corpus.shape[1]} of the corpus"
        )
    device = corpus.device if isinstance(corpus, Tensor) else torch.device("cpu")
    return merge(
        (
            _in_chunk(_chunks(queries, query_chunk_size, device), rows, start, k, score_function)
            for start, rows in _chunks(corpus, corpus_chunk_size, device)
        ),
        k,
    )


def best(scores: Tensor, k: int) -> Neighbors:
    """Return the ``k`` best of scores (N, M) for each row; among equal ones, at the cut too, those of lesser ids.

    NaN counts as the greatest score, so that it is seen.
    """
    values, ids = scores.topk(min(k + 1, scores.shape[1]), dim=1)
    if values.shape[1] > k:
        # topk takes any of equal scores. Its choice matters where the best that is left out equals the last taken.
        tied = values[:, k - 1] == values[:, k]
        ids = ids[:, :k]
        if tied.any():
            ids[tied] = _least_ids(scores[tied], values[tied, k, None], k)
    ids = ids.sort(dim=1).values
    return _ordered(scores.gather(1, ids), ids)


def merge(parts: Iterable[Neighbors], k: int) -> Neighbors:
    """Return the ``k`` best of neighbours of the same queries, found in parts of a corpus; grouping changes nothing.

    Args:
        parts: In ascending order of their ids, at least one; they are merged as they come, so two are kept at a time.
        k: How many.
    """
    parts = iter(parts)
    merged = next(parts)
    for part in parts:
        together = _ordered(torch.cat([merged.scores, part.scores], dim=1), torch.cat([merged.ids, part.ids], dim=1))
        merged = Neighbors(together.scores[:, :k], together.ids[:, :k])
    return merged


def _in_chunk(
    query_chunks: Iterator[tuple[int, Tensor]], rows: Tensor, start: int, k: int, score_function: Similarity
) -> Neighbors:
    prepare: Callable[[Tensor], Tensor] = _in_known_layout
    if score_function is cos_sim:
        prepare, score_function = normalize_embeddings, dot_score
    elif score_function is dot_score:
        prepare = Tensor.detach  # CSR as it is
    rows = prepare(rows)  # once for all queries
    found = []
    for _, queries in query_chunks:
        scores = score_function(prepare(queries), rows)
        if scores.shape != (len(queries), len(rows)):
            expected, got = (len(queries), len(rows)), tuple(scores.shape)
            raise ValueError(f"score_function must return scores of shape {expected}, got {got}")
        found.append(best(scores, k))
    return Neighbors(torch.cat([part.scores for part in found]), torch.cat([part.ids for part in found]) + start)


def _least_ids(scores: Tensor, cut: Tensor, k: int) -> Tensor:
    """Return the ids (N, k) of all scores (N, M) above ``cut`` (N, 1), and of the first ones that equal it."""
    size = scores.shape[1]
    ranks = torch.arange(size - 1, -1, -1, dtype=torch.int32, device=scores.device)
    ranks = torch.where(scores == cut, ranks, -1)
    return torch.where(scores <= cut, ranks, size).topk(k, dim=1).indices  # NaN is above too


def _ordered(scores: Tensor, ids: Tensor) -> Neighbors:
    """Sort by descending score; a stable sort leaves equal scores in the order they have, by id."""
    scores, order = scores.sort(dim=1, descending=True, stable=True)
    return Neighbors(scores, ids.gather(1, order))


def _in_known_layout(rows: Tensor) -> Tensor:
    """Return sparse rows as COO, which users' own functions know better than CSR."""
    return to_coo(rows) if is_sparse(rows) else rows


def _rows(embeddings: Embeddings) -> Tensor | NDArray[np.generic]:
    """Return a matrix: an array as it is, a sparse tensor as CSR, and whatever is empty with no rows."""
    matrix = embeddings if isinstance(embeddings, (np.ndarray, Tensor)) else to_tensor(embeddings)
    if matrix.ndim == 1:
        matrix = matrix[None] if len(matrix) else matrix.reshape(0, 0)
    if matrix.ndim != 2:
        raise ValueError(f"embeddings must be (N, D) or (D,), got shape {tuple(matrix.shape)}")
    return to_csr(matrix) if isinstance(matrix, Tensor) and is_sparse(matrix) else matrix


def _chunks(matrix: Tensor | NDArray[np.generic], size: int, device: torch.device) -> Iterator[tuple[int, Tensor]]:
    """Yield the number of the first row, and the rows as floats."""
    for start in range(0, len(matrix), size):
        if isinstance(matrix, Tensor) and is_sparse(matrix):
            yield start, to_tensor(csr_rows(matrix, start, start + size)).to(device)
        else:
            yield start, to_tensor(matrix[start : start + size]).to(device)
