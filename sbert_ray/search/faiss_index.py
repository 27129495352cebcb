"""Search among quantized embeddings with FAISS.

Shapes: N queries, M rows of a corpus, of dimension D and of codes of W values each; k rows found.
"""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from sbert_ray.search.codes import Candidates, Queries, Request, check, check_corpus, search_codes
from sbert_ray.search.hits import Hit

_PRECISIONS = ("float32", "uint8", "ubinary")
_NEIGHBOURS = 16  # of each row in an HNSW graph


def semantic_search_faiss(  # noqa: PLR0913, PLR0917 (the public signature)
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

    Scores are dot products for float32, and of the query with the codes as floats where they are rescored. Without
    rescoring they are dot products of codes for uint8, and Hamming distances for ubinary, the least first.

    Candidates of uint8 are found by the dot products of unsigned codes, whose order is another than that of what they
    stand for: of random rows it misses most of the best ones. It is sentence_transformers' rule, kept since indexes
    are exchanged; `quantized_search` finds those that floats find.

    Args:
        query_embeddings: Floats (N, D) or (D,), or codes (N, W), which cannot be rescored.
        corpus_embeddings: Codes (M, W), as `quantize_embeddings` makes them, or floats (M, D).
        corpus_index: In place of ``corpus_embeddings``, the index that an earlier call returned, or any FAISS index.
        corpus_precision: What the codes are: float32, uint8 or ubinary.
        top_k: How many rows for each query, or as many as are found.
        ranges: Least and greatest value by dimension (2, D) that made the codes, for uint8.
        calibration_embeddings: Embeddings that made the codes, to take the ranges from; the queries if both are None.
        rescore: Whether to find more candidates by their codes and to choose from them by the queries' floats.
        rescore_multiplier: Candidates are so many times ``top_k``.
        exact: Whether to look at all rows, and not to follow an HNSW graph, in an index made here.
        output_index: Whether to return the FAISS index too.

    Raises:
        ImportError: FAISS is not installed.
        ValueError: Not one of corpus and index is given, the precision is none of FAISS's or not the corpus's, a number
            is not positive, the dimensions differ, or ranges would come from one query or
            are not (2, D), the least and the greatest number.
    """
    faiss = _faiss()
    if (corpus_embeddings is None) == (corpus_index is None):
        came = "neither" if corpus_index is None else "both"
        raise ValueError(f"either corpus_embeddings or corpus_index must be given, got {came}")
    request = Request(corpus_precision, top_k, ranges, calibration_embeddings, rescore, rescore_multiplier)
    check(request, _PRECISIONS)
    codes = None
    if corpus_index is None:
        codes = check_corpus(corpus_embeddings, corpus_precision)
        corpus_index = _new_index(faiss, codes.shape[1], corpus_precision, exact)
        corpus_index.add(codes)
    results, seconds = search_codes(query_embeddings, FaissIndex(corpus_index, corpus_precision, codes), request)
    return (results, seconds, corpus_index) if output_index else (results, seconds)


class FaissIndex:
    """A FAISS index.

    Args:
        index: The index itself.
        precision: What the codes in it are.
        codes: The codes (M, W), if at hand; else they are read from the index.
    """

    def __init__(self, index: Any, precision: str, codes: NDArray[Any] | None) -> None:
        self._index = index
        self._is_binary = precision == "ubinary"
        self._codes = codes

    @property
    def size(self) -> int:
        """The number of rows."""
        return int(self._index.ntotal)

    @property
    def width(self) -> int:
        """The values W of a row's code."""
        return int(self._index.d) // (8 if self._is_binary else 1)

    def search(self, queries: Queries, k: int) -> Candidates:
        """Return what FAISS finds by the codes of the queries."""
        return Candidates(*self._index.search(np.ascontiguousarray(queries.codes), k))

    def codes(self, ids: NDArray[np.int64]) -> NDArray[Any]:
        """Return the codes of rows, (len(ids), W)."""
        if self._codes is not None:
            return self._codes[ids]
        if not self._is_binary:
            vectors: NDArray[Any] = self._index.reconstruct_batch(ids)
            return vectors
        flat = _flat(self._index)
        if flat is not None:
            return _rows_of(flat)[ids]
        unique, places = np.unique(ids, return_inverse=True)
        return np.stack([self._index.reconstruct(int(row)) for row in unique])[places]


def _new_index(faiss: Any, width: int, precision: str, exact: bool) -> Any:
    if precision == "ubinary":
        return faiss.IndexBinaryFlat(width * 8) if exact else faiss.IndexBinaryHNSW(width * 8, _NEIGHBOURS)
    if exact:
        return faiss.IndexFlatIP(width)
    return faiss.IndexHNSWFlat(width, _NEIGHBOURS, faiss.METRIC_INNER_PRODUCT)


def _flat(index: Any) -> Any:
    """Return the flat binary index that an index is, or keeps its codes in, or None."""
    faiss = _faiss()
    if isinstance(index, faiss.IndexBinaryHNSW):
        index = faiss.downcast_IndexBinary(index.storage)
    return index if isinstance(index, faiss.IndexBinaryFlat) else None


def _rows_of(flat: Any) -> NDArray[np.uint8]:
    """Return a flat binary index's memory as an array (M, W); no copy, and binary indexes reconstruct no batches."""
    rows: NDArray[np.uint8] = _faiss().rev_swig_ptr(flat.xb.data(), flat.ntotal * flat.code_size)
    return rows.reshape(flat.ntotal, flat.code_size)


def _faiss() -> Any:
    try:
        import faiss
    except ImportError as error:
        raise ImportError("this search needs FAISS: pip install 'sbert-ray[faiss]'") from error
    return faiss
