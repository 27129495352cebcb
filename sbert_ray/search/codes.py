"""Search among quantized embeddings: find candidates by their codes, then score them by the queries' floats.

Shapes: N queries, M rows of a corpus, of dimension D and of codes of W values each; k candidates.
"""

import logging
import time
from typing import Any, NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from sbert_ray.quantization import (
    BINARY_PRECISIONS,
    SCALAR_PRECISIONS,
    code_weights,
    dequantize_embeddings,
    quantize_embeddings,
    ranges_for,
    to_array,
)
from sbert_ray.search.hits import Hit, hits

logger = logging.getLogger(__name__)

_DEQUANTIZED_VALUES = 2**22  # as many values of candidates at a time are floats


class Candidates(NamedTuple):
    """What an index found: scores and ids (N, k) in the index's own order, and id -1 where it found fewer than k."""

    scores: NDArray[Any]
    ids: NDArray[np.int64]


class Queries(NamedTuple):
    """What an index is asked for.

    Attributes:
        codes: The queries' codes (N, W), or floats (N, D) if the corpus is float32.
        weighted: For int8 and uint8, weights (N, D) and offsets (N,) by which the floats of the queries are compared
            with codes: see `code_weights`. None where the queries came as codes.
    """

    codes: NDArray[Any]
    weighted: tuple[NDArray[np.float32], NDArray[np.float64]] | None


class CodeIndex(Protocol):
    """The codes of a corpus, ready to be searched.

    Attributes:
        size: The number of rows.
        width: The values of a row's code, W.
    """

    @property
    def size(self) -> int:
        """The number of rows."""

    @property
    def width(self) -> int:
        """The values W of a row's code."""

    def search(self, queries: Queries, k: int) -> Candidates:
        """Find ``k`` candidates for each query."""

    def codes(self, ids: NDArray[np.int64]) -> NDArray[Any]:
        """Return the codes of rows, (len(ids), W)."""


class Request(NamedTuple):
    """How to search; the fields are the public parameters of the same names."""

    precision: str
    top_k: int
    ranges: NDArray[np.floating[Any]] | None
    calibration_embeddings: Any
    rescore: bool
    rescore_multiplier: int


def check(request: Request, precisions: tuple[str, ...]) -> None:
    """Fail on what no index can do.

    Raises:
        ValueError: The precision is not one of ``precisions``, or a number is not positive.
    """
    if request.precision not in precisions:
        raise ValueError(f"corpus_precision must be one of {list(precisions)}, got {request.precision!r}")
    if request.top_k < 1:
        raise ValueError(f"top_k must be positive, got {request.top_k}")
    if request.rescore_multiplier < 1:
        raise ValueError(f"rescore_multiplier must be positive, got {request.rescore_multiplier}")


def check_corpus(corpus_embeddings: Any, precision: str) -> NDArray[Any]:
    """Return the corpus as an array of codes (M, W), or of floats (M, D) if ``precision`` is float32.

    Raises:
        ValueError: It is no matrix, or its dtype is another.
    """
    codes = to_array(corpus_embeddings)
    expected = {"binary": "int8", "ubinary": "uint8"}.get(precision, precision)
    if codes.ndim != 2:
        raise ValueError(f"corpus_embeddings must be a matrix, got shape {codes.shape}")
    if precision == "float32":
        return codes.astype(np.float32, copy=False)
    if codes.dtype != expected:
        raise ValueError(
            f"corpus_embeddings of precision {precision!r} must be {expected}, got {codes.dtype}; quantize_embeddings "
            "makes them"
        )
    return codes


def search_codes(query_embeddings: Any, index: CodeIndex, request: Request) -> tuple[list[list[Hit]], float]:
    """Return the hits of each query, and the seconds that search and rescoring took.

    Queries that are floats become codes. If ``request.rescore``, and the corpus is quantized,
    ``top_k * rescore_multiplier`` candidates are found by codes, and the ``top_k`` of them are returned whose codes,
    as floats, have the greatest dot products with the queries as they came.

    Raises:
        ValueError: The queries are no matrix, queries and index differ in their dimension, or the ranges do not fit.
    """
    queries = np.atleast_2d(to_array(query_embeddings))
    if not queries.size:
        return [], 0.0
    if queries.ndim != 2:
        raise ValueError(f"query_embeddings must be (N, D) or (D,), got shape {queries.shape}")
    precision, k = request.precision, request.top_k
    is_quantized = queries.dtype in (np.int8, np.uint8)
    rescore = request.rescore and not is_quantized and precision != "float32"
    if request.rescore and is_quantized:
        logger.warning("nothing is rescored, since the queries are %s; pass them as floats", queries.dtype)
    if not index.size:
        return [[] for _ in queries], 0.0
    width = queries.shape[1]
    width = -(-width // 8) if precision in BINARY_PRECISIONS and not is_quantized else width
    if width != index.width:
        raise ValueError(
            f"queries and corpus must have the same dimension, got {width} values of {precision} a query and "
            f"{index.width} a row of the corpus"
        )
    ranges, weighted = request.ranges, None
    if precision in SCALAR_PRECISIONS and not is_quantized:
        ranges = ranges_for(queries, precision, request.calibration_embeddings) if ranges is None else ranges
        weighted = code_weights(queries, precision, ranges)
    codes = queries if is_quantized else quantize_embeddings(queries, precision, ranges)
    start = time.perf_counter()
    found = index.search(Queries(codes, weighted), k * request.rescore_multiplier if rescore else k)
    if rescore:
        found = _rescored(found, index, queries, precision, ranges)
    seconds = time.perf_counter() - start
    found = Candidates(
        np.where(found.ids < 0, 0, found.scores).astype(np.float64), found.ids
    )  # NaN where none is found
    rows = zip(found.scores[:, :k], found.ids[:, :k], strict=True)
    return [hits(scores[ids >= 0].tolist(), ids[ids >= 0].tolist()) for scores, ids in rows], seconds


def _rescored(
    found: Candidates, index: CodeIndex, queries: NDArray[Any], precision: str, ranges: NDArray[Any] | None
) -> Candidates:
    """Return candidates by descending dot product of the query and the candidate's code as floats, ties by id."""
    scores = np.full(found.ids.shape, -np.inf)
    size = max(1, _DEQUANTIZED_VALUES // max(1, found.ids.shape[1] * queries.shape[1]))
    for start in range(0, len(queries), size):
        ids = found.ids[start : start + size]
        query_rows, _ = np.nonzero(ids >= 0)
        values = dequantize_embeddings(index.codes(ids[ids >= 0]), precision, ranges, queries.shape[1])
        products = np.einsum("ij,ij->i", queries[start : start + size][query_rows], values)
        scores[start : start + size][ids >= 0] = products
    order = np.lexsort((found.ids, -scores), axis=-1)
    return Candidates(np.take_along_axis(scores, order, 1), np.take_along_axis(found.ids, order, 1))
