"""Distances of embeddings, with gradients that are finite where embeddings are equal.

Shapes: B rows, D dimensions.
"""

from collections.abc import Callable
from typing import Any

from torch import Tensor

from sbert_ray.similarity import pairwise_cos_sim, pairwise_euclidean_sim, pairwise_manhattan_sim

Distance = Callable[[Tensor, Tensor], Tensor]
"""From row i of one (B, D) and of another one (B, D) to (B,)."""


def cosine(a: Tensor, b: Tensor) -> Tensor:
    """Return 1 minus the cosine of row i of ``a`` and of ``b``."""
    return 1 - pairwise_cos_sim(a, b)


def euclidean(a: Tensor, b: Tensor) -> Tensor:
    """Return the Euclidean distance of row i of ``a`` and of ``b``."""
    return -pairwise_euclidean_sim(a, b)


def manhattan(a: Tensor, b: Tensor) -> Tensor:
    """Return the Manhattan distance of row i of ``a`` and of ``b``."""
    return -pairwise_manhattan_sim(a, b)


def distance_name(metrics: type, distance: Callable[..., Any]) -> str:
    """Return how a distance is called among a class of some; its own name if it is not among them."""
    for name, value in vars(metrics).items():
        if isinstance(value, staticmethod) and value.__func__ is distance:
            return f"{metrics.__name__}.{name}"
    return str(getattr(distance, "__name__", type(distance).__name__))
