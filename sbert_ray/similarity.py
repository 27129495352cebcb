"""Similarity of embeddings. Shapes: N and M embeddings of dimension D; a single one (D,) counts as (1, D)."""

from collections.abc import Callable, Sequence
from enum import Enum

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

Embeddings = Tensor | NDArray[np.generic] | Sequence[Tensor] | Sequence[NDArray[np.generic]] | Sequence[Sequence[float]]
Similarity = Callable[[Embeddings, Embeddings], Tensor]


def cos_sim(a: Embeddings, b: Embeddings) -> Tensor:
    """Cosine of every row of ``a`` (N, D) with every row of ``b`` (M, D), as (N, M)."""
    a, b = _matrices(a, b)
    return F.normalize(a, dim=-1) @ F.normalize(b, dim=-1).T


def dot_score(a: Embeddings, b: Embeddings) -> Tensor:
    """Dot product of every row of ``a`` (N, D) with every row of ``b`` (M, D), as (N, M)."""
    a, b = _matrices(a, b)
    return a @ b.T


def euclidean_sim(a: Embeddings, b: Embeddings) -> Tensor:
    """Negative Euclidean distance of every row of ``a`` (N, D) to every row of ``b`` (M, D), as (N, M)."""
    return -torch.cdist(*_matrices(a, b), p=2.0)


def manhattan_sim(a: Embeddings, b: Embeddings) -> Tensor:
    """Negative Manhattan distance of every row of ``a`` (N, D) to every row of ``b`` (M, D), as (N, M)."""
    return -torch.cdist(*_matrices(a, b), p=1.0)


def pairwise_cos_sim(a: Embeddings, b: Embeddings) -> Tensor:
    """Cosine of row i of ``a`` (N, D) with row i of ``b`` (N, D), as (N,)."""
    return (F.normalize(_tensor(a), dim=-1) * F.normalize(_tensor(b), dim=-1)).sum(-1)


def pairwise_dot_score(a: Embeddings, b: Embeddings) -> Tensor:
    """Dot product of row i of ``a`` (N, D) with row i of ``b`` (N, D), as (N,)."""
    return (_tensor(a) * _tensor(b)).sum(-1)


def pairwise_euclidean_sim(a: Embeddings, b: Embeddings) -> Tensor:
    """Negative Euclidean distance of row i of ``a`` (N, D) to row i of ``b`` (N, D), as (N,)."""
    distances: Tensor = torch.linalg.vector_norm(_tensor(a) - _tensor(b), dim=-1)
    return -distances


def pairwise_manhattan_sim(a: Embeddings, b: Embeddings) -> Tensor:
    """Negative Manhattan distance of row i of ``a`` (N, D) to row i of ``b`` (N, D), as (N,)."""
    return -(_tensor(a) - _tensor(b)).abs().sum(-1)


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


def _tensor(embeddings: Embeddings) -> Tensor:
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
    first, second = (torch.atleast_2d(_tensor(embeddings)) for embeddings in (a, b))
    dtype = torch.promote_types(first.dtype, second.dtype)
    return first.to(dtype), second.to(dtype)
