"""Inputs that occur more than once, so that each is computed once.

Shapes: N inputs, U distinct ones.
"""

from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

import numpy as np
from numpy.typing import NDArray

T = TypeVar("T", bound=Hashable)


@dataclass(frozen=True)
class Distinct(Generic[T]):
    """Inputs, each once, and where they occur."""

    values: Sequence[T]
    """U inputs, in the order in which each first occurs."""
    rows: NDArray[np.int64]
    """(N,), the place in ``values`` of each input: ``results[rows]`` are the results of all inputs."""


def distinct(inputs: Sequence[T]) -> Distinct[T]:
    """Find the distinct ones among texts, or pairs of texts, or anything else that can be a key.

    Args:
        inputs: N inputs, which are not changed.
    """
    values = dict.fromkeys(inputs)
    if len(values) == len(inputs):
        return Distinct(inputs, np.arange(len(inputs)))
    places = dict(zip(values, range(len(values)), strict=True))
    return Distinct(list(values), np.fromiter(map(places.__getitem__, inputs), np.int64, len(inputs)))


def distinct_texts(inputs: Sequence[Any]) -> Distinct[Any] | None:
    """Return the distinct ones of texts and pairs of texts; None if there are none that are equal, or other inputs."""
    if not all(isinstance(given, (str, tuple)) for given in inputs):
        return None
    found = distinct(inputs)
    return None if len(found.values) == len(inputs) else found
