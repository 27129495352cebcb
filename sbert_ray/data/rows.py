"""Rows on their way through a job."""

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Self

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from sbert_ray.data.kinds import comparable

EXCERPT = 200
"""Characters of a bad row's text that are kept for the person who looks into it."""


@dataclass(frozen=True, slots=True)
class BadRow:
    """A row that can't be processed, and why."""

    file: str
    position: int
    """Row number in a Parquet file, byte offset in a JSONL file."""
    reason: str
    id: Any = None
    text: str | None = None

    def __str__(self) -> str:
        where = f"{self.file}, position {self.position}"
        return f"{where}{'' if self.id is None else f', id {self.id!r}'}: {self.reason}"


@dataclass(frozen=True)
class Rows:
    """Consecutive rows of one input file.

    Args:
        file: name of the input file, relative to the dataset.
        table: the columns that were asked for, N rows.
        positions: N row numbers (Parquet) or byte offsets of lines (JSONL), ascending.
        bad: rows that could not even be read; they are not in ``table``.
        lacking: positions of the JSONL lines that do not have a column at all, by column; it is null there.
    """

    file: str
    table: pa.Table
    positions: NDArray[np.int64]
    bad: list[BadRow] = field(default_factory=list)
    lacking: Mapping[str, Collection[int]] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.positions)

    def take(self, part: range) -> Self:
        """Return the rows at consecutive indices."""
        start, stop = part.start, part.stop
        return replace(self, table=self.table.slice(start, len(part)), positions=self.positions[start:stop], bad=[])

    def without(self, reasons: Mapping[int, str], id_column: str | None, text: Mapping[int, str]) -> Self:
        """Return the rows less those at the indices in ``reasons`` and those that lack an id, which become bad rows.

        Args:
            reasons: why each row is bad, by its index.
            id_column: where their ids are, if they have any; one may be null, but no line may be without it.
            text: text of the rows that have one, by index.
        """
        if id_column and (lacking := self.lacking.get(id_column)):
            without_id = (index for index, position in enumerate(self.positions.tolist()) if position in lacking)
            reasons = {**dict.fromkeys(without_id, f"the line lacks column {id_column!r}"), **reasons}
        if not reasons:
            return self
        bad = [
            BadRow(
                file=self.file,
                position=int(self.positions[index]),
                reason=reason,
                id=readable(self.table[id_column][index]) if id_column else None,
                text=text[index][:EXCERPT] if index in text else None,
            )
            for index, reason in sorted(reasons.items())
        ]
        keep = np.ones(len(self), dtype=bool)
        keep[list(reasons)] = False
        return replace(
            self, table=self.table.filter(pa.array(keep)), positions=self.positions[keep], bad=self.bad + bad
        )


def readable(value: pa.Scalar) -> Any:
    """Return an id as JSON can hold it."""
    try:
        plain = None if _has_nanoseconds(value) else value.as_py()
    except (ValueError, OverflowError):  # no valid UTF-8, or a time that Python does not know
        plain = None
    if plain is None and value.is_valid:
        plain = comparable(pa.chunked_array([pa.array([value])]))[0].as_py()
    return plain if isinstance(plain, str | int | float | bool | None) else str(plain)


def _has_nanoseconds(value: pa.Scalar) -> bool:
    """Return whether a time is finer than Python's, for which pyarrow would take pandas' where that is installed."""
    is_fine = pa.types.is_temporal(value.type) and getattr(value.type, "unit", "") == "ns"
    return is_fine and value.is_valid and bool(value.value % 1000)


def strings(column: pa.ChunkedArray) -> tuple[list[str | None], dict[int, str]]:
    """Return a text column as Python strings, and the reason for each index that holds no valid UTF-8."""
    try:
        return column.to_pylist(), {}
    except UnicodeDecodeError:
        texts: list[str | None] = []
        reasons: dict[int, str] = {}
        for index, value in enumerate(column.cast(pa.large_binary()).to_pylist()):
            try:
                texts.append(None if value is None else value.decode())
            except UnicodeDecodeError as error:
                texts.append(None)
                reasons[index] = f"invalid UTF-8 at byte {error.start} of the text"
        return texts, reasons
