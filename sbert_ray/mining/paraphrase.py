"""The most similar pairs of a set of embeddings, by blocks of rows.

Shapes: N embeddings of dimension D, P pairs.
"""

import inspect
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from sbert_ray.embeddings import csr_rows, is_sparse, to_csr
from sbert_ray.search import Neighbors, nearest
from sbert_ray.similarity import Embeddings, Similarity, cos_sim, to_tensor

_QUERIES = 256  # whose scores with a chunk of rows are in memory at once


class _Pairs(NamedTuple):
    scores: NDArray[np.floating[Any]]  # (P,)
    keys: NDArray[np.int64]  # (P,), N i + j of rows i < j


def paraphrase_mining(  # noqa: PLR0913, PLR0917 (the public signature)
    model: Any,
    sentences: Sequence[str],
    show_progress_bar: bool = False,
    batch_size: int = 32,
    query_chunk_size: int = 5000,
    corpus_chunk_size: int = 100_000,
    max_pairs: int = 500_000,
    top_k: int = 100,
    score_function: Similarity = cos_sim,
    truncate_dim: int | None = None,
    prompt_name: str | None = None,
    prompt: str | None = None,
) -> list[list[float | int]]:
    """Return the most similar pairs of texts, as `paraphrase_mining_embeddings` does.

    Args:
        model: Has ``encode``, which embeds all texts first.
        sentences: N texts.
        show_progress_bar: Passed on to the model if it takes it.
        batch_size: Passed on to the model if it takes it.
        query_chunk_size: Passed on.
        corpus_chunk_size: Passed on.
        max_pairs: Passed on.
        top_k: Passed on.
        score_function: Passed on.
        truncate_dim: Passed on to the model if given, as are the prompts.
        prompt_name: The name of one of the model's prompts.
        prompt: A prompt.
    """
    options = {"truncate_dim": truncate_dim, "prompt_name": prompt_name, "prompt": prompt}
    hints = {"show_progress_bar": show_progress_bar, "batch_size": batch_size, "convert_to_tensor": True}
    embeddings = model.encode(
        sentences,
        **{name: value for name, value in hints.items() if _takes(model.encode, name)},
        **{name: value for name, value in options.items() if value is not None},
    )
    return paraphrase_mining_embeddings(
        embeddings, query_chunk_size, corpus_chunk_size, max_pairs, top_k, score_function
    )


def _takes(function: Callable[..., Any], name: str) -> bool:
    """Return whether a function takes a keyword argument; what is not written in Python may not tell, and may."""
    try:
        parameters = inspect.signature(function).parameters.values()
    except (TypeError, ValueError):
        return True
    kinds = (inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY)
    return any(p.kind is p.VAR_KEYWORD or (p.name == name and p.kind in kinds) for p in parameters)


def paraphrase_mining_embeddings(
    embeddings: Embeddings,
    query_chunk_size: int = 5000,
    corpus_chunk_size: int = 100_000,
    max_pairs: int = 500_000,
    top_k: int = 100,
    score_function: Similarity = cos_sim,
) -> list[list[float | int]]:
    """Return the most similar pairs of rows as ``[score, i, j]`` with i < j, the greatest score first.

    A pair is found if either row is among the ``top_k`` of greatest scores for the other, itself aside. Equal scores go
    by lesser rows. Beside the embeddings, memory is bounded by ``max_pairs``, ``query_chunk_size`` times ``top_k``,
    and a block of scores.

    Args:
        embeddings: (N, D), dense, or sparse COO or CSR.
        query_chunk_size: Rows at a time whose neighbours are looked for.
        corpus_chunk_size: Rows at a time among which they are.
        max_pairs: How many pairs to return at the most.
        top_k: How many neighbours of each row to look at.
        score_function: Scores (n, m) of rows (n, D) and rows (m, D), the same both ways, the greater the nearer.

    Raises:
        ValueError: A number is not positive.
    """
    for name, value in (("query_chunk_size", query_chunk_size), ("max_pairs", max_pairs), ("top_k", top_k)):
        if value < 1:
            raise ValueError(f"{name} must be positive, got {value}")
    rows = to_tensor(embeddings)
    rows = to_csr(rows) if is_sparse(rows) else rows
    found = _Pairs(np.empty(0, np.float32), np.empty(0, np.int64))
    for start in range(0, len(rows), query_chunk_size):
        stop = min(start + query_chunk_size, len(rows))
        queries = csr_rows(rows, start, stop) if is_sparse(rows) else rows[start:stop]
        neighbors = nearest(queries, rows, top_k + 1, score_function, _QUERIES, corpus_chunk_size)
        found = _best(found, _pairs(neighbors, start, len(rows), top_k), max_pairs)
    first, second = np.divmod(found.keys, max(1, len(rows)))
    pairs = zip(found.scores.tolist(), first.tolist(), second.tolist(), strict=True)
    return [list(pair) for pair in pairs]


def _pairs(neighbors: Neighbors, start: int, size: int, top_k: int) -> _Pairs:
    """Return the pairs of rows from ``start`` on and their neighbours, which may be themselves."""
    scores, ids = neighbors.scores.cpu(), neighbors.ids.cpu()
    queries = torch.arange(start, start + len(ids))[:, None].expand_as(ids)
    others = ids != queries
    if ids.shape[1] > top_k:
        others[:, -1] &= ~others[:, :-1].all(1)  # where the row itself is not among them, one is too many
    i, j = queries[others], ids[others]
    keys: Tensor = torch.minimum(i, j) * size + torch.maximum(i, j)
    return _Pairs(scores[others].numpy(), keys.numpy())


def _best(found: _Pairs, more: _Pairs, max_pairs: int) -> _Pairs:
    """Return the best of both, each pair once, the greatest score first and the lesser rows among equal ones."""
    scores, keys = np.concatenate([found.scores, more.scores]), np.concatenate([found.keys, more.keys])
    order = np.lexsort((-scores, keys))  # the two scores of a pair may differ by rounding
    scores, keys = scores[order], keys[order]
    is_first = np.append(True, keys[1:] != keys[:-1])[: len(keys)]
    scores, keys = scores[is_first], keys[is_first]
    order = np.argsort(-scores, kind="stable")[:max_pairs]
    return _Pairs(scores[order], keys[order])
