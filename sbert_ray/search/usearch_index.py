"""Search among quantized embeddings with usearch.

Shapes: N queries, M rows of a corpus, of dimension D and of codes of W values each; k rows found.
"""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from sbert_ray.quantization import BINARY_PRECISIONS, unsigned_bits
from sbert_ray.search.codes import Candidates, Queries, Request, check, check_corpus, search_codes
from sbert_ray.search.hits import Hit

_PRECISIONS = ("float32", "int8", "ubinary", "binary")


def semantic_search_usearch(  # noqa: PLR0913, PLR0917 (the public signature)
    query_embeddings: Any,
    corpus_embeddings: Any = None,
    corpus_index: Any = None,
    corpus_precision: str = "float32",
    top_k: int = 10,
    ranges: NDArray[np.floating[Any]] | None = None,
    calibration_embeddings: Any = None,
    rescore: bool = True,
    rescore_multiplier: int = 2,
    exact: bool = True,
    output_index: bool = False,
) -> tuple[list[list[Hit]], float] | tuple[list[list[Hit]], float, Any]:
    """Return for each query its best rows of a quantized corpus, the seconds that it took, and the index if asked for.

    Scores are dot products of the query with the codes as floats where they are rescored, the greatest first. Else they
    are usearch's distances, the least first: 1 - cosine for float32, 1 - dot product of the codes for int8, and Hamming
    distances for binary and ubinary. Candidates are found by these distances, those of int8 by dot products of codes as
    in sentence_transformers; `quantized_search` finds them by the queries' floats.

    Args:
        query_embeddings: Floats (N, D) or (D,), or codes (N, W), which cannot be rescored.
        corpus_embeddings: Codes (M, W), as `quantize_embeddings` makes them, or floats (M, D).
        corpus_index: In place of ``corpus_embeddings``, the index that an earlier call returned, or any usearch index.
        corpus_precision: What the codes are: float32, int8, binary or ubinary.
        top_k: How many rows for each query, or as many as are found.
        ranges: Least and greatest value by dimension (2, D) that made the codes, for int8.
        calibration_embeddings: Embeddings that made the codes, to take the ranges from; the queries if both are None.
        rescore: Whether to find more candidates by their codes and to choose from them by the queries' floats.
        rescore_multiplier: Candidates are so many times ``top_k``.
        exact: Whether to look at all rows, and not to follow the index's graph.
        output_index: Whether to return the usearch index too.

    Raises:
        ImportError: usearch is not installed.
        ValueError: Not one of corpus and index is given, the precision is none of usearch's or not the corpus's, a
            number is not positive, the dimensions differ, or ranges would come from one query or are not (2, D), the
            least and the greatest number.
    """
    new_index = _index_class()
    if (corpus_embeddings is None) == (corpus_index is None):
        came = "neither" if corpus_index is None else "both"
        raise ValueError(f"either corpus_embeddings or corpus_index must be given, got {came}")
    request = Request(corpus_precision, top_k, ranges, calibration_embeddings, rescore, rescore_multiplier)
    check(request, _PRECISIONS)
    codes = None
    if corpus_index is None:
        codes = check_corpus(corpus_embeddings, corpus_precision)
        corpus_index = new_index(**_options(codes.shape[1], corpus_precision))
        corpus_index.add(np.arange(len(codes)), _stored(codes, corpus_precision))
    index = UsearchIndex(corpus_index, corpus_precision, codes, exact)
    results, seconds = search_codes(query_embeddings, index, request)
    return (results, seconds, corpus_index) if output_index else (results, seconds)


class UsearchIndex:
    """A usearch index.

    Args:
        index: The index itself.
        precision: What the codes in it are.
        codes: The codes (M, W) of the keys 0 to M - 1, if at hand; else they are read from the index.
        exact: Whether to look at all rows.
    """

    def __init__(self, index: Any, precision: str, codes: NDArray[Any] | None, exact: bool) -> None:
        self._index = index
        self._precision = precision
        self._codes = codes
        self._exact = exact

    @property
    def size(self) -> int:
        """The number of rows."""
        return len(self._index)

    @property
    def width(self) -> int:
        """The values W of a row's code."""
        return int(self._index.ndim) // (8 if self._precision in BINARY_PRECISIONS else 1)

    def search(self, queries: Queries, k: int) -> Candidates:
        """Return what usearch finds by the codes of the queries."""
        matches = self._index.search(_stored(queries.codes, self._precision), count=k, exact=self._exact)
        scores, ids = np.atleast_2d(matches.distances), np.atleast_2d(matches.keys).astype(np.int64)
        counts = getattr(matches, "counts", None)  # the matches of a single query have none, and no padding
        if counts is not None:
            ids[np.arange(ids.shape[1]) >= np.asarray(counts)[:, None]] = -1
        return Candidates(scores, ids)

    def codes(self, ids: NDArray[np.int64]) -> NDArray[Any]:
        """Return the codes of rows, (len(ids), W)."""
        if self._codes is not None:
            return self._codes[ids]
        unique, places = np.unique(ids, return_inverse=True)
        codes = np.stack(self._index.get(unique))
        return _stored(codes, self._precision).view(np.int8 if self._precision == "binary" else codes.dtype)[places]


def _options(width: int, precision: str) -> dict[str, Any]:
    if precision in BINARY_PRECISIONS:
        return {"ndim": width * 8, "metric": "hamming", "dtype": "b1"}
    if precision == "int8":
        return {"ndim": width, "metric": "ip", "dtype": "i8"}
    return {"ndim": width, "metric": "cos", "dtype": "f32"}


def _stored(codes: NDArray[Any], precision: str) -> NDArray[Any]:
    """Return codes as they are in the index: its bits are unsigned. To do it twice is to undo it."""
    return unsigned_bits(codes, precision) if precision == "binary" else codes


def _index_class() -> Any:
    try:
        from usearch.index import Index
    except ImportError as error:
        raise ImportError("this search needs usearch: pip install 'sbert-ray[usearch]'") from error
    return Index
