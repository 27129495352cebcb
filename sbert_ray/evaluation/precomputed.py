"""Embeddings that are there already, in the place of a model.

Shapes: N texts, embeddings of dimension D.
"""

import hashlib
from collections.abc import Iterable, Sequence
from typing import Any, Self

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from sbert_ray.embeddings import is_sparse, to_csr
from sbert_ray.evaluation.encoding import as_matrix
from sbert_ray.evaluation.written import Written
from sbert_ray.inference.sparse import SparseRows
from sbert_ray.similarity import SimilarityFunction

_DIGEST = 16  # bytes, of which no two texts have the same
_DTYPE = f"S{_DIGEST}"


class PrecomputedEmbeddings:
    """An encoder that looks texts up, so that an evaluator can be run on what an embed job wrote.

    Queries and documents are looked up among the same texts. Of the texts, 24 bytes each are kept; of an array that
    is a memory map, the rows that are asked for are read.

    Args:
        texts: N texts; of equal ones the first counts.
        embeddings: Theirs, (N, D): an array, memory-mapped too, a tensor, a list of either by rows, or a matrix of
            SciPy; dense or sparse.
        similarity_fn_name: How evaluators compare them.

    Raises:
        ValueError: There are not as many embeddings as texts, or the similarity is unknown.
        TypeError: The embeddings are something else.
    """

    def __init__(
        self,
        texts: Iterable[str],
        embeddings: Any,
        similarity_fn_name: str | SimilarityFunction = SimilarityFunction.COSINE,
    ) -> None:
        self.similarity_fn_name = SimilarityFunction.name_of(similarity_fn_name)
        if not isinstance(embeddings, (np.ndarray, Tensor)):
            embeddings = as_matrix(embeddings)
        digests = _digests(texts)
        if embeddings.ndim != 2 or len(digests) != len(embeddings):
            raise ValueError(f"embeddings must be ({len(digests)}, D), as the texts, got {tuple(embeddings.shape)}")
        is_csr = isinstance(embeddings, Tensor) and is_sparse(embeddings)
        self._embeddings = _sparse_rows(embeddings) if is_csr else embeddings
        self._digests, self._rows = np.unique(digests, return_index=True)

    @classmethod
    def from_dataset(
        cls,
        url: str,
        text_column: str = "text",
        embedding_column: str = "embedding",
        similarity_fn_name: str | SimilarityFunction | None = None,
    ) -> Self:
        """Read the output of an embed job that kept its text column into memory.

        Embeddings of precision int8, uint8, binary and ubinary are the numbers that their codes stand for.

        Args:
            url: A folder, file or glob of Parquet files, on any file system that fsspec knows.
            text_column: The column of the texts as they were embedded, less the prompt.
            embedding_column: The column of the embeddings, where they are not sparse, in ``indices`` and ``values``.
            similarity_fn_name: How evaluators compare them; if None, as the job says that the model does, or else by
                cosine.

        Raises:
            ValueError: There is nothing to read, a column is missing, the files were not embedded alike, a text or an
                embedding is null, or the embeddings are not lists of numbers of one length.
        """
        written = Written(url, text_column, embedding_column)
        similarity_fn_name = similarity_fn_name or written.facts.get("similarity") or SimilarityFunction.COSINE
        self = cls([], np.empty((0, 0), np.float32), similarity_fn_name)
        digests = _Digests()
        self._embeddings = written.read(digests)
        self._digests, self._rows = np.unique(np.array(digests.found, _DTYPE), return_index=True)
        return self

    def encode(self, texts: Sequence[str], batch_size: int = 32) -> Any:  # noqa: ARG002 (as encoders have it)
        """Return the embeddings of texts in their order, of the kind and dtype that were given; sparse ones as COO.

        Raises:
            KeyError: A text has no embedding.
        """
        wanted = _digests(texts)
        places = np.searchsorted(self._digests, wanted)
        places[places == len(self._digests)] = 0
        found = self._digests[places] == wanted if len(self._digests) else np.zeros(len(wanted), bool)
        if not found.all():
            missing = texts[int(np.flatnonzero(~found)[0])]
            raise KeyError(
                f"{np.count_nonzero(~found)} of {len(texts)} texts have no embedding, the first is {missing!r}"
            )
        rows = self._rows[places]
        if isinstance(self._embeddings, np.ndarray):
            return np.asarray(self._embeddings[rows])
        if isinstance(self._embeddings, SparseRows):
            return self._embeddings.take(rows).to_coo()
        return self._embeddings[torch.from_numpy(rows)]

    encode_query = encode
    encode_document = encode


def _sparse_rows(embeddings: Tensor) -> SparseRows:
    """Return a sparse tensor (N, D), of whatever dtype and with the zeros that it names, as rows to take from."""
    csr = to_csr(embeddings).cpu()
    return SparseRows(csr.crow_indices().numpy(), csr.col_indices().numpy(), csr.values().numpy(), csr.shape[1])


class _Digests:
    """Takes texts and keeps their digests."""

    def __init__(self) -> None:
        self.found: list[bytes] = []

    def append(self, text: str) -> None:
        self.found.append(_digest(text))


def _digest(text: str) -> bytes:
    return hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=_DIGEST).digest()


def _digests(texts: Iterable[str]) -> NDArray[np.bytes_]:
    return np.array([_digest(text) for text in texts], _DTYPE)
