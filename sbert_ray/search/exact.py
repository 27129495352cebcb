"""Exact search among quantized embeddings, with NumPy and torch alone.

Shapes: N queries, M rows of a corpus, of dimension D and of codes of W values each; k rows found.
"""

from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from sbert_ray.quantization import BINARY_PRECISIONS, PRECISIONS, unsigned_bits
from sbert_ray.search.codes import Candidates, Queries, Request, check, check_corpus, search_codes
from sbert_ray.search.hits import Hit
from sbert_ray.search.neighbors import Neighbors, best, merge, nearest
from sbert_ray.similarity import Embeddings, dot_score

_QUERIES, _ROWS = 100, 2**16  # at a time
_CACHED_ROWS = 2**13  # of which so many stay in a core's cache while their bits are counted
_EXACT_IN_FLOAT32 = 2**24  # integers up to here
_GREATEST_PRODUCT = {"int8": 128**2, "uint8": 255**2}  # of two codes' values


def quantized_search(
    query_embeddings: Any,
    corpus_embeddings: Any,
    corpus_precision: str = "float32",
    top_k: int = 10,
    ranges: NDArray[np.floating[Any]] | None = None,
    calibration_embeddings: Any = None,
    rescore: bool = True,
    rescore_multiplier: int = 2,
) -> tuple[list[list[Hit]], float]:
    """Return for each query its best rows of a quantized corpus, and the seconds that it took; needs no FAISS.

    Scores are dot products for float32. For int8 and uint8 they are those of the query's floats with what the codes
    stand for, rescored or not, and of codes where the queries are codes. For binary and ubinary they are Hamming
    distances, the least first, or rescored the dot products of the query's floats with the bits. Of rows with equal
    scores, those of lesser ids are returned, and first.

    Args:
        query_embeddings: Floats (N, D) or (D,), or codes (N, W), which cannot be rescored.
        corpus_embeddings: Codes (M, W), as `quantize_embeddings` makes them, or floats (M, D).
        corpus_precision: What the codes are, one of `sbert_ray.quantization.PRECISIONS`.
        top_k: How many rows for each query; all of them where the corpus has fewer.
        ranges: Least and greatest value by dimension (2, D) that made the codes, for int8 and uint8.
        calibration_embeddings: Embeddings that made the codes, to take the ranges from; the queries if both are None.
        rescore: Whether to find more candidates and to choose from them by the queries' floats; for int8 and uint8,
            whose candidates are found by these floats too, in float64.
        rescore_multiplier: Candidates are so many times ``top_k``.

    Raises:
        ValueError: The precision is unknown or not the corpus's, a number is not positive, the dimensions differ, or
            ranges would come from one query or are not (2, D), the least and the greatest number.
    """
    request = Request(corpus_precision, top_k, ranges, calibration_embeddings, rescore, rescore_multiplier)
    check(request, PRECISIONS)
    index = ExactIndex(check_corpus(corpus_embeddings, corpus_precision), corpus_precision)
    return search_codes(query_embeddings, index, request)


class ExactIndex:
    """The codes of a corpus, each of which is looked at in a search.

    Args:
        codes: (M, W).
        precision: What they are.
    """

    def __init__(self, codes: NDArray[Any], precision: str) -> None:
        self._codes = codes
        self._precision = precision

    @property
    def size(self) -> int:
        """The number of rows."""
        return len(self._codes)

    @property
    def width(self) -> int:
        """The values W of a row's code."""
        return int(self._codes.shape[1])

    def search(self, queries: Queries, k: int) -> Candidates:
        """Return the rows of greatest dot products, or of least Hamming distances, ties by id."""
        codes = queries.codes
        if self._precision in BINARY_PRECISIONS:
            found = _nearest_bits(codes, self._codes, self._precision, k)
            return Candidates(-found.scores.numpy(), found.ids.numpy())
        if queries.weighted is not None:
            weights, offsets = queries.weighted
            found = nearest(weights, self._codes, k, dot_score, corpus_chunk_size=_ROWS)
            return Candidates(found.scores.numpy() + offsets[:, None], found.ids.numpy())
        is_exact = _GREATEST_PRODUCT.get(self._precision, 0) * self.width <= _EXACT_IN_FLOAT32
        found = nearest(codes, self._codes, k, dot_score if is_exact else _double_dot_score, corpus_chunk_size=_ROWS)
        return Candidates(found.scores.numpy(), found.ids.numpy())

    def codes(self, ids: NDArray[np.int64]) -> NDArray[Any]:
        """Return the codes of rows, (len(ids), W)."""
        return self._codes[ids]


def hamming_distances(a: NDArray[np.uint8], b: NDArray[np.uint8]) -> NDArray[np.int32]:
    """Return how many bits of every row of ``a`` (N, W) and every row of ``b`` (M, W) differ, as (N, M)."""
    distances = np.zeros((len(a), len(b)), np.int32)
    words = _words(a)
    for start in range(0, len(b), _CACHED_ROWS):
        others = _words(b[start : start + _CACHED_ROWS])
        for word, other in zip(words, others, strict=True):
            distances[:, start : start + _CACHED_ROWS] += _bit_counts(word[:, None] ^ other)
    return distances


def _nearest_bits(codes: NDArray[Any], corpus: NDArray[Any], precision: str, k: int) -> Neighbors:
    """Return the rows of least Hamming distance, which their scores are the negatives of."""

    def by_rows() -> Iterator[Neighbors]:
        for start in range(0, len(corpus), _ROWS):
            rows = unsigned_bits(corpus[start : start + _ROWS], precision)
            found = []
            for first in range(0, len(codes), _QUERIES):
                queries = unsigned_bits(codes[first : first + _QUERIES], precision)
                found.append(best(torch.from_numpy(-hamming_distances(queries, rows)), k))
            yield Neighbors(torch.cat([part.scores for part in found]), torch.cat([part.ids for part in found]) + start)

    return merge(by_rows(), k)


def _words(rows: NDArray[np.uint8]) -> NDArray[np.uint64]:
    """Return rows (N, W) as words of 64 bits, zeros added, word by word (ceil(W / 8), N)."""
    padded = np.zeros((len(rows), -(-rows.shape[1] // 8) * 8), np.uint8)
    padded[:, : rows.shape[1]] = rows
    return np.ascontiguousarray(padded.view(np.uint64).T)


def _bit_counts(words: NDArray[np.uint64]) -> NDArray[np.uint8]:
    if hasattr(np, "bitwise_count"):  # NumPy 2
        counts: NDArray[np.uint8] = np.bitwise_count(words)
        return counts
    bits: NDArray[np.uint8] = np.unpackbits(words[..., None].view(np.uint8), axis=-1).sum(-1, dtype=np.uint8)
    return bits


def _double_dot_score(a: Embeddings, b: Embeddings) -> Tensor:
    assert isinstance(a, Tensor)
    assert isinstance(b, Tensor)
    return dot_score(a.double(), b.double())
