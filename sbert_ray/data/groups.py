"""Units of rows of which consecutive ones with an equal key belong together, such as the candidates of a query."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pyarrow as pa

from sbert_ray.data.dataset import RowReader
from sbert_ray.data.errors import InputError
from sbert_ray.data.kinds import comparable
from sbert_ray.data.rows import Rows
from sbert_ray.data.storage import redacted
from sbert_ray.data.units import Unit

TAIL_ROWS = 256
"""Rows that are read at a time after a unit's end, until its last group ends."""
HEAD_BYTES = 2**16

_NOTHING: Any = object()


@dataclass(frozen=True)
class GroupReader:
    """Reads units so that no group is cut: a unit has the groups that begin in it, whole ones.

    So each group is in exactly one unit, wherever units are cut. A group may not go on in another file.

    Args:
        reader: gives the rows of a unit.
        key: column whose value is equal in all rows of a group.
    """

    reader: RowReader
    key: str

    def read(self, unit: Unit, columns: Sequence[str]) -> Iterator[Rows]:
        """Yield the rows of the groups that begin in ``unit``, whole groups at a time, and at least one piece.

        Raises:
            InputError: if a group begins a second time, or the file is damaged.
        """
        needed = list(dict.fromkeys([*columns, self.key]))
        last = self._key_before(unit, needed)
        is_own = unit.start == 0
        seen: set[Any] = set()
        held: list[Rows] = []  # the group that has not ended yet
        for piece in self.reader.read(unit, needed):
            rows = piece
            keys, starts = self._groups(rows, last)
            last = keys[starts[-1]] if starts else last
            if not is_own:
                held = [_part(rows, 0, 0)]  # for the schema, if there is nothing else
                if not starts:
                    continue  # all of it belongs to a group that began before
                rows = _from(rows, starts[0])
                keys, starts = keys[starts[0] :], [start - starts[0] for start in starts]
                is_own = True
            self._check_new(rows, [(keys[start], start) for start in starts], seen)
            if starts and (held or starts[-1]):
                yield _joined([*held, _until(rows, starts[-1])])
                rows = _from(rows, starts[-1])
                held = []
            held.append(rows)
        yield _joined([*held, *(self._tail(unit, needed, last) if is_own else ())])

    def _groups(self, rows: Rows, last: Any) -> tuple[list[Any], list[int]]:
        """Return the key of each row, and where groups begin; a row without a key goes with those before it."""
        keys = [_hashable(key) for key in comparable(rows.table[self.key]).to_pylist()]
        starts = []
        for index, key in enumerate(keys):
            if key is not None and key != last:
                starts.append(index)
                last = key
        return keys, starts

    def _check_new(self, rows: Rows, begun: Sequence[tuple[Any, int]], seen: set[Any]) -> None:
        for key, index in begun:
            if key in seen:
                where = redacted(self.reader.url)
                shown = key.decode(errors="replace") if isinstance(key, bytes) else key
                raise InputError(
                    f"{where}, {rows.file}: rows with equal {self.key!r} must be consecutive, but {shown!r} begins"
                    f" again at position {rows.positions[index]}; sort the input by that column"
                )
            seen.add(key)

    def _key_before(self, unit: Unit, columns: Sequence[str]) -> Any:
        """Return the key of the last row before a unit that has one.

        It is read with the columns of the unit, since it must be the same rows that cannot be read.
        """
        size = 1 if self.reader.is_parquet(unit) else HEAD_BYTES
        start = unit.start
        while start > 0:
            start = max(unit.start - size, 0)
            last = _NOTHING
            for rows in self.reader.read(replace(unit, start=start, stop=unit.start), columns):
                keys, starts = self._groups(rows, last)
                last = keys[starts[-1]] if starts else last
            if last is not _NOTHING:
                return last
            size *= 4
        return _NOTHING

    def _tail(self, unit: Unit, columns: Sequence[str], last: Any) -> Iterator[Rows]:
        """Yield the rows after a unit that belong to its last group."""
        for rows in self._after(unit, columns):
            _, starts = self._groups(rows, last)
            if starts:
                yield _until(rows, starts[0])
                return
            yield rows

    def _after(self, unit: Unit, columns: Sequence[str]) -> Iterator[Rows]:
        if unit.stop is None:
            return
        if not self.reader.is_parquet(unit):
            lines = replace(self.reader, max_rows=TAIL_ROWS)
            yield from lines.read(replace(unit, start=unit.stop, stop=None), columns)
            return
        end = self.reader.num_rows(unit)
        for start in range(unit.stop, end, TAIL_ROWS):
            yield from self.reader.read(replace(unit, start=start, stop=min(start + TAIL_ROWS, end)), columns)


def _hashable(key: Any) -> Any:
    return repr(key) if isinstance(key, (list, dict)) else key


def _part(rows: Rows, start: int, stop: int) -> Rows:
    """Return rows at consecutive indices, without bad ones."""
    return rows.take(range(start, stop))


def _from(rows: Rows, index: int) -> Rows:
    position = rows.positions[index]
    return replace(_part(rows, index, len(rows)), bad=[row for row in rows.bad if row.position >= position])


def _until(rows: Rows, index: int) -> Rows:
    position = rows.positions[index]
    return replace(_part(rows, 0, index), bad=[row for row in rows.bad if row.position < position])


def _joined(parts: Sequence[Rows]) -> Rows:
    first, *others = parts
    if not others:
        return first
    return replace(
        first,
        table=pa.concat_tables([part.table for part in parts]),
        positions=np.concatenate([part.positions for part in parts]),
        bad=[row for part in parts for row in part.bad],
        lacking={
            name: {position for part in parts for position in part.lacking.get(name, ())}
            for name in {name for part in parts for name in part.lacking}
        },
    )
