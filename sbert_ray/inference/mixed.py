"""Inputs of several kinds in one list: each kind has batches of its own.

Shapes: N inputs.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sbert_ray.inference.inputs import BadInputError, kind_and_value
from sbert_ray.inference.prepared import Features, Prepared
from sbert_ray.inference.tokenized import TokenizedTexts


@dataclass(frozen=True)
class Labeled:
    """Inputs whose batches carry further features, the same for all."""

    inputs: Prepared
    labels: Features

    def __len__(self) -> int:
        return len(self.inputs)

    @property
    def lengths(self) -> NDArray[np.int64]:
        """Positions of each input (N,)."""
        return self.inputs.lengths

    @property
    def max_rows(self) -> int | None:
        """The most rows of a batch."""
        return self.inputs.max_rows

    def num_positions(self, rows: NDArray[np.int64]) -> int:
        """Return the positions of a batch of ``rows``, padding included."""
        return self.inputs.num_positions(rows)

    def batch(self, rows: NDArray[np.int64]) -> Features:
        """Return the features of ``rows``."""
        return self.inputs.batch(rows) | self.labels


@dataclass(frozen=True)
class MixedInputs:
    """N inputs in groups whose rows cannot share a batch, such as texts and images."""

    groups: Sequence[tuple[NDArray[np.int64], Prepared]]
    """The rows of each group, which together are all of them, and what is prepared of them."""

    def __len__(self) -> int:
        return sum(len(rows) for rows, _ in self.groups)

    @cached_property
    def lengths(self) -> NDArray[np.int64]:
        """Positions of each input (N,)."""
        lengths = np.empty(len(self), np.int64)
        for rows, inputs in self.groups:
            lengths[rows] = inputs.lengths
        return lengths

    @property
    def max_rows(self) -> int | None:
        """The most rows of a batch of whichever group; the engine heeds that of each group."""
        return fewest(inputs.max_rows for _, inputs in self.groups)

    def num_positions(self, rows: NDArray[np.int64]) -> int:
        """Return the positions of a batch of ``rows``, padding included."""
        _, inputs, inner = self._locate(rows)
        return inputs.num_positions(inner)

    def batch(self, rows: NDArray[np.int64]) -> Features:
        """Return the features of ``rows``.

        Raises:
            ValueError: They are not of one group.
        """
        group, inputs, inner = self._locate(rows)
        try:
            return inputs.batch(inner)
        except BadInputError as error:
            raise BadInputError(int(group[error.row]), error.reason) from error.__cause__

    def _locate(self, rows: NDArray[np.int64]) -> tuple[NDArray[np.int64], Prepared, NDArray[np.int64]]:
        for group, inputs in self.groups:
            if np.isin(rows, group).all():
                return group, inputs, np.searchsorted(group, rows)
        raise ValueError("inputs of several kinds or routes cannot share a batch; use encode, or one call for each")


def groups_of(inputs: Prepared) -> list[tuple[NDArray[np.int64], Prepared]]:
    """Return the rows that may share batches, group by group, and what is prepared of them."""
    if isinstance(inputs, MixedInputs):
        return list(inputs.groups)
    return [(np.arange(len(inputs)), inputs)]


def unlabeled(inputs: Prepared) -> Prepared:
    """Return inputs of one kind without their labels."""
    return inputs.inputs if isinstance(inputs, Labeled) else inputs


def texts_of(inputs: Prepared) -> TokenizedTexts | None:
    """Return the tokenized texts that inputs of one kind are; None if they are something else."""
    inner = unlabeled(inputs)
    return inner if isinstance(inner, TokenizedTexts) else None


def packed_texts(inputs: Prepared, rows: NDArray[np.int64]) -> Features:
    """Return the features of ``rows`` of tokenized texts, packed.

    Raises:
        TypeError: They are something else.
    """
    texts = texts_of(inputs)
    if texts is None:
        raise TypeError(f"only tokenized texts can be packed, got {type(unlabeled(inputs)).__name__}")
    return texts.packed(rows) | (inputs.labels if isinstance(inputs, Labeled) else {})


def fewest(limits: Iterable[int | None]) -> int | None:
    """Return the least of some limits, where None is none."""
    return min((limit for limit in limits if limit is not None), default=None)


def by_kind(inputs: Sequence[Any], kinds: Sequence[str], prepare: Callable[[str, Sequence[Any]], Prepared]) -> Prepared:
    """Prepare the inputs of each kind together.

    Args:
        inputs: N inputs.
        kinds: Kinds that the model takes.
        prepare: Takes a kind and inputs of it, taken out of ``{kind: input}``.

    Raises:
        TypeError: A row is of no such kind.
    """
    if tuple(kinds) == ("text",) and not any(isinstance(given, (dict, list)) for given in inputs):
        return prepare("text", inputs)  # the rule, where looking at each one would cost time
    rows_of: dict[str, list[int]] = {}
    values = []
    for row, given in enumerate(inputs):
        kind, value = kind_and_value(given, kinds, row)
        rows_of.setdefault(kind, []).append(row)
        values.append(value)
    if len(rows_of) <= 1:
        return prepare(next(iter(rows_of), kinds[0]), values)
    return MixedInputs(
        [(np.array(rows), prepare(kind, [values[row] for row in rows])) for kind, rows in rows_of.items()]
    )
