"""Similarity of embeddings, dense or sparse (COO, CSR); scores are dense.

Shapes: N and M embeddings of dimension D; a single one (D,) counts as (1, D).
"""

from collections.abc import Callable, Sequence
from enum import Enum

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from sbert_ray.embeddings import csr_rows, is_sparse, normalize_embeddings, to_coo, to_csr, without_csr_warning

Embeddings = Tensor | NDArray[np.generic] | Sequence[Tensor] | Sequence[NDArray[np.generic]] | Sequence[Sequence[float]]
Similarity = Callable[[Embeddings, Embeddings], Tensor]

_DENSE_VALUES = 2**24  # of sparse embeddings, as many at a time are made dense
_MANHATTAN_ROWS = (16, 4096)  # of the one and of the other, at a time


def cos_sim(a: Embeddings, b: Embeddings) -> Tensor:
    """Cosine of every row of ``a`` (N, D) with every row of ``b`` (M, D), as (N, M)."""
    a, b = _matrices(a, b)
    return _products(normalize_embeddings(a), normalize_embeddings(b))


pytorch_cos_sim = cos_sim  # its older public name


def dot_score(a: Embeddings, b: Embeddings) -> Tensor:
    """Dot product of every row of ``a`` (N, D) with every row of ``b`` (M, D), as (N, M)."""
    return _products(*_matrices(a, b))


def euclidean_sim(a: Embeddings, b: Embeddings) -> Tensor:
    """Negative Euclidean distance of every row of ``a`` (N, D) to every row of ``b`` (M, D), as (N, M)."""
    a, b = _matrices(a, b)
    if not (is_sparse(a) or is_sparse(b)):
        return -torch.cdist(a, b, p=2.0)
    # |x - y|^2 = |x|^2 - 2 x y + |y|^2 needs no difference of rows, which would be dense
    squares = _row_sums(_squared(a))[:, None] - 2 * _products(a, b) + _row_sums(_squared(b))
    return -squares.clamp(min=0).sqrt()


def manhattan_sim(a: Embeddings, b: Embeddings) -> Tensor:
    """Negative Manhattan distance of every row of ``a`` (N, D) to every row of ``b`` (M, D), as (N, M)."""
    a, b = _matrices(a, b)
    if not (is_sparse(a) or is_sparse(b)):
        return -torch.cdist(a, b, p=1.0)
    return -_sparse_manhattan(to_csr(a), to_csr(b))


def pairwise_cos_sim(a: Embeddings, b: Embeddings) -> Tensor:
    """Cosine of row i of ``a`` (N, D) with row i of ``b`` (N, D), as (N,)."""
    a, b = _pairs(a, b)
    return _row_sums(normalize_embeddings(a) * normalize_embeddings(b))


def pairwise_dot_score(a: Embeddings, b: Embeddings) -> Tensor:
    """Dot product of row i of ``a`` (N, D) with row i of ``b`` (N, D), as (N,)."""
    a, b = _pairs(a, b)
    return _row_sums(a * b)


def pairwise_euclidean_sim(a: Embeddings, b: Embeddings) -> Tensor:
    """Negative Euclidean distance of row i of ``a`` (N, D) to row i of ``b`` (N, D), as (N,)."""
    a, b = _pairs(a, b)
    if is_sparse(a):
        return -_row_sums(_squared(a - b)).sqrt()
    distances: Tensor = torch.linalg.vector_norm(a - b, dim=-1)
    return -distances


def pairwise_manhattan_sim(a: Embeddings, b: Embeddings) -> Tensor:
    """Negative Manhattan distance of row i of ``a`` (N, D) to row i of ``b`` (N, D), as (N,)."""
    a, b = _pairs(a, b)
    difference = a - b
    return -_row_sums((difference.coalesce() if is_sparse(difference) else difference).abs())


def pairwise_angle_sim(x: Embeddings, y: Embeddings) -> Tensor:
    """Angle similarity of row i of ``x`` (N, D) with row i of ``y`` (N, D), as (N,).

        similarity = |cosine + sine|,   sine = sum_j x[j + H] y[j] - x[j] y[j + H]   with rows of length 1

    The halves of a row, of H dimensions each, are the real and the imaginary parts of H complex numbers; to an odd D a
    dimension of zeros is added. Sparse rows are made dense.

    References:
        Li and Li 2023, AnglE-optimized Text Embeddings, arXiv:2309.12871.
    """
    x, y = (e.to_dense() if is_sparse(e) else e for e in _pairs(x, y))
    x, y = (F.normalize(F.pad(e, (0, e.shape[-1] % 2)), dim=-1) for e in (x, y))
    (real_x, imaginary_x), (real_y, imaginary_y) = x.chunk(2, dim=-1), y.chunk(2, dim=-1)
    return ((x * y).sum(-1) + (imaginary_x * real_y - real_x * imaginary_y).sum(-1)).abs()


class SimilarityFunction(Enum):
    """The similarities that a model's config can name."""

    COSINE = "cosine"
    DOT_PRODUCT = "dot"
    DOT = "dot"  # noqa: PIE796 (the same member under its second public name)
    EUCLIDEAN = "euclidean"
    MANHATTAN = "manhattan"

    @staticmethod
    def to_similarity_fn(similarity_function: "str | SimilarityFunction") -> Similarity:
        """Return the function of all pairs of rows.

        Raises:
            ValueError: The name is unknown.
        """
        return _FUNCTIONS[_by_name(similarity_function)][0]

    @staticmethod
    def to_similarity_pairwise_fn(similarity_function: "str | SimilarityFunction") -> Similarity:
        """Return the function of row i with row i.

        Raises:
            ValueError: The name is unknown.
        """
        return _FUNCTIONS[_by_name(similarity_function)][1]

    @staticmethod
    def name_of(similarity_function: "str | SimilarityFunction") -> str:
        """Return the name that configs use.

        Raises:
            ValueError: The name is unknown.
        """
        return str(_by_name(similarity_function).value)

    @staticmethod
    def possible_values() -> list[str]:
        """Return the names."""
        return [function.value for function in SimilarityFunction]


_FUNCTIONS: dict[SimilarityFunction, tuple[Similarity, Similarity]] = {
    SimilarityFunction.COSINE: (cos_sim, pairwise_cos_sim),
    SimilarityFunction.DOT_PRODUCT: (dot_score, pairwise_dot_score),
    SimilarityFunction.EUCLIDEAN: (euclidean_sim, pairwise_euclidean_sim),
    SimilarityFunction.MANHATTAN: (manhattan_sim, pairwise_manhattan_sim),
}


def _by_name(name: str | SimilarityFunction) -> SimilarityFunction:
    names = SimilarityFunction.possible_values()
    if not isinstance(name, SimilarityFunction) and name not in names:
        raise ValueError(f"unknown similarity function {name!r}; known functions are {names}")
    return SimilarityFunction(name)


def to_tensor(embeddings: Embeddings) -> Tensor:
    """Return embeddings of any kind as a tensor: float64 stays so, all else becomes float32; sparse stays sparse."""
    if isinstance(embeddings, (list, tuple)) and embeddings and isinstance(embeddings[0], Tensor):
        tensor = torch.stack(list(embeddings))
    elif isinstance(embeddings, (list, tuple)) and embeddings and isinstance(embeddings[0], np.ndarray):
        tensor = torch.from_numpy(np.stack(embeddings))
    elif isinstance(embeddings, (list, tuple)):
        tensor = torch.tensor(embeddings)  # float32, as arrays of embeddings are
    elif isinstance(embeddings, np.ndarray):
        # A read-only array, such as a memory map or an Arrow column, cannot back a tensor.
        tensor = torch.from_numpy(embeddings if embeddings.flags.writeable else embeddings.copy())
    else:
        assert isinstance(embeddings, Tensor)
        tensor = embeddings
    # In half precision many similar scores would round to ties.
    return tensor if tensor.dtype == torch.float64 else tensor.float()


def _matrices(a: Embeddings, b: Embeddings) -> tuple[Tensor, Tensor]:
    first, second = (e if e.ndim > 1 else e.unsqueeze(0) for e in map(to_tensor, (a, b)))
    dtype = torch.promote_types(first.dtype, second.dtype)
    return first.to(dtype), second.to(dtype)


def _pairs(a: Embeddings, b: Embeddings) -> tuple[Tensor, Tensor]:
    """Return the two as tensors of one dtype, both strided or both coalesced COO."""
    first, second = to_tensor(a), to_tensor(b)
    dtype = torch.promote_types(first.dtype, second.dtype)
    if is_sparse(first) or is_sparse(second):
        first, second = to_coo(first), to_coo(second)
    return first.to(dtype), second.to(dtype)


def _squared(x: Tensor) -> Tensor:
    x = to_coo(x) if is_sparse(x) else x
    squares: Tensor = x * x
    return squares


def _row_sums(x: Tensor) -> Tensor:
    if not is_sparse(x):
        return x.sum(-1)
    x = x.coalesce()
    sums: Tensor = torch.sparse.sum(x, dim=1).to_dense() if x.ndim == 2 else x.values().sum()
    return sums


def _products(a: Tensor, b: Tensor) -> Tensor:
    """Return ``a`` (N, D) times the transpose of ``b`` (M, D) as a dense (N, M), whatever their layouts."""
    if not (is_sparse(a) or is_sparse(b)):
        return a @ b.T
    if is_sparse(a) and is_sparse(b) and (a.requires_grad or b.requires_grad):
        with without_csr_warning():
            products: Tensor = torch.sparse.mm(to_coo(a), to_coo(b).T)  # the only one with gradients for both
        return products.to_dense()
    if not is_sparse(b) or (is_sparse(a) and len(a) > len(b)):
        return _products(b, a).T
    # CSR times dense is some 20 times as fast as COO times COO, so the shorter one is made dense, rows by rows.
    b = to_csr(b)
    if not is_sparse(a):
        return _dense_products(a, b)
    a = to_csr(a)
    size = max(1, _DENSE_VALUES // max(1, a.shape[1]))
    starts = range(0, len(a) or 1, size)
    return torch.cat([_dense_products(csr_rows(a, start, start + size).to_dense(), b) for start in starts])


def _dense_products(a: Tensor, b: Tensor) -> Tensor:
    products: Tensor = torch.sparse.mm(b, a.T.contiguous())  # the other way round torch has no kernel
    return products.T


def _sparse_manhattan(a: Tensor, b: Tensor) -> Tensor:
    """Return the Manhattan distances of the rows of two CSR tensors (N, D) and (M, D), as (N, M).

    A few rows of ``a`` have few active columns. The distance is theirs in these columns, and the length of the row of
    ``b`` in all others.
    """
    distances = torch.empty(len(a), len(b), dtype=a.dtype, device=a.device)
    for b_start in range(0, len(b), _MANHATTAN_ROWS[1]):
        columns_first = to_coo(csr_rows(b, b_start, b_start + _MANHATTAN_ROWS[1]).to_sparse_coo().T)  # (D, m)
        lengths = torch.sparse.sum(columns_first.abs(), dim=0).to_dense()
        for a_start in range(0, len(a), _MANHATTAN_ROWS[0]):
            rows = csr_rows(a, a_start, a_start + _MANHATTAN_ROWS[0]).to_dense()
            active = (rows != 0).any(0).nonzero()[:, 0]
            others = columns_first.index_select(0, active).to_dense().T  # (m, active columns)
            elsewhere = (lengths - others.abs().sum(-1)).clamp(min=0)
            block = torch.cdist(rows[:, active], others, p=1.0) + elsewhere
            distances[a_start : a_start + len(rows), b_start : b_start + len(others)] = block
    return distances
