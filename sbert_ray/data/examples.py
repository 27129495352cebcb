"""Tables of examples, as evaluations read them: a column for each role, checked row by row.

A driver reads a table once to find what is wrong with it, and whoever needs the examples reads it again.
"""

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, Literal, Self

import pyarrow as pa

from sbert_ray.data.dataset import Dataset, InputFile, RowReader
from sbert_ray.data.errors import InputError
from sbert_ray.data.listing import PARQUET
from sbert_ray.data.rows import Rows, strings
from sbert_ray.data.storage import redacted

ROWS_PER_READ = 8192

Kind = Literal["text", "texts", "number", "label", "id"]
Chosen = Mapping[str, Sequence[str]]
"""Columns by the names of their roles."""


@dataclass(frozen=True)
class Role:
    """What a column is to a task.

    Args:
        name: of the role.
        column: its column where none is chosen; empty if it has none then.
        kind: ``text``; ``texts``, a list of them or one; ``number``; ``label``, a class from 0 on; or ``id``.
        takes_several: whether several columns may have it, whose texts are joined by a line feed.
    """

    name: str
    column: str
    kind: Kind
    takes_several: bool = False


@dataclass(frozen=True)
class Examples:
    """A table of examples; small enough to travel to a worker.

    Args:
        url: as the user gave it.
        reader: reads its rows.
        files: all of them.
        roles: those that have a column.
        columns: the columns of each role, by its name.
        num_labels: classes that labels are of.
        limit: rows to read; None: all.
    """

    url: str
    reader: RowReader
    files: tuple[InputFile, ...]
    roles: tuple[Role, ...]
    columns: Chosen
    num_labels: int = 2
    limit: int | None = None

    @classmethod
    def open(
        cls, url: str, roles: Sequence[Role], chosen: Chosen, num_labels: int = 2, limit: int | None = None
    ) -> Self:
        """List the files and check their columns.

        Args:
            url: file, folder, glob or URL of Parquet or JSON lines.
            roles: that the task knows.
            chosen: columns of roles that are not called as the roles say; empty for a role that has none.
            num_labels: classes that labels are of.
            limit: rows to read; None: all.

        Raises:
            InputError: if there is nothing to read, or a column is missing or of a wrong type.
        """
        columns = {role.name: tuple(chosen.get(role.name, (role.column,))) for role in roles}
        columns = {name: found for name, found in columns.items() if any(found)}
        known = tuple(role for role in roles if role.name in columns)
        texts = [column for role in known if role.kind == "text" for column in columns[role.name]]
        others = [column for role in known if role.kind != "text" for column in columns[role.name]]
        dataset = Dataset.open(url, list(dict.fromkeys(texts)), list(dict.fromkeys(others)))
        for role in known:
            for column in columns[role.name]:
                _check_type(redacted(url), column, role, dataset.schema.field(column).type)
        return cls(url, dataset.reader(ROWS_PER_READ), dataset.files, known, columns, num_labels, limit)

    def only(self, name: str) -> Self:
        """Return the same table with one of its roles."""
        roles = tuple(role for role in self.roles if role.name == name)
        return replace(self, roles=roles, columns={name: self.columns[name]})

    def described(self) -> list[dict[str, Any]]:
        """Return name, size, identity and rows of each file."""
        return [file.described() for file in self.files]

    def batches(self) -> Iterator[dict[str, list[Any]]]:
        """Yield the values of each role, by its name, some thousand rows at a time.

        Raises:
            InputError: that names the first row with something wrong, or if there is no row.
        """
        wanted = list(dict.fromkeys(column for columns in self.columns.values() for column in columns))
        left = self.limit
        num_rows = 0
        for file in self.files:
            for rows in self.reader.stream(file.name, wanted):
                if rows.bad:
                    raise InputError(f"{redacted(self.reader.url)}: {rows.bad[0]}")
                part = rows.take(range(len(rows) if left is None else min(left, len(rows))))
                num_rows += len(part)
                if len(part):
                    yield {role.name: self._values(role, part) for role in self.roles}
                if left is not None and (left := left - len(part)) == 0:
                    return
        if not num_rows:
            raise InputError(f"{redacted(self.url)} holds no rows in its {len(self.files)} files")

    def read(self) -> dict[str, list[Any]]:
        """Return the values of each role over all rows.

        Raises:
            InputError: as ``batches``.
        """
        found: dict[str, list[Any]] = {role.name: [] for role in self.roles}
        for batch in self.batches():
            for name, values in batch.items():
                found[name] += values
        return found

    def _values(self, role: Role, rows: Rows) -> list[Any]:
        convert = _CONVERTERS[role.kind]
        if role.kind == "label":
            convert = partial(convert, num_labels=self.num_labels)
        columns = self.columns[role.name]
        if role.takes_several:
            return _each(_joined([self._texts(rows, column) for column in columns]), convert, self._where(rows, role))
        read = self._texts(rows, columns[0]) if role.kind == "text" else rows.table[columns[0]].to_pylist()
        return _each(read, convert, self._where(rows, role))

    def _texts(self, rows: Rows, column: str) -> list[str | None]:
        texts, invalid = strings(rows.table[column])
        for index, reason in invalid.items():
            raise InputError(f"{self._place(rows, index)}, column {column!r}: {reason}")
        return texts

    def _where(self, rows: Rows, role: Role) -> Callable[[int], str]:
        names = " and ".join(map(repr, self.columns[role.name]))
        return lambda index: f"{self._place(rows, index)}, column {names}"

    def _place(self, rows: Rows, index: int) -> str:
        file = redacted(self.reader.url.rstrip("/") + "/" + rows.file)
        unit = "row" if rows.file.endswith(PARQUET) else "line at byte"
        return f"{file}, {unit} {int(rows.positions[index])}"


def _each(values: Sequence[Any], convert: Callable[[Any], Any], where: Callable[[int], str]) -> list[Any]:
    found: list[Any] = []
    for index, value in enumerate(values):
        try:
            found.append(convert(value))
        except ValueError as error:
            raise InputError(f"{where(index)}: {error}") from error
    return found


def _joined(columns: Sequence[Sequence[str | None]]) -> list[str | None]:
    rows = [[text for text in texts if text is not None] for texts in zip(*columns, strict=True)]
    return ["\n".join(texts) if texts else None for texts in rows]


def _text(value: str | None) -> str:
    if value is None:
        raise ValueError("must be a text, got null")
    return value


def _texts(value: Any) -> list[str]:
    texts = [value] if isinstance(value, str) else value
    if texts is None or None in texts:
        raise ValueError(f"must be a text or a list of texts, got {'null' if texts is None else 'one with a null'}")
    return list(texts)


def _number(value: Any) -> float:
    if value is None or not math.isfinite(value):
        raise ValueError(f"must be a finite number, got {'null' if value is None else value}")
    return float(value)


def _label(value: Any, num_labels: int) -> int:
    if value is None or value not in range(num_labels):
        known = "0 or 1" if num_labels == 2 else f"a whole number from 0 to {num_labels - 1}"
        raise ValueError(f"a label must be {known}, got {'null' if value is None else value}")
    return int(value)


def _id(value: Any) -> str:
    if value is None:
        raise ValueError("an id must not be null")
    return str(value)


_CONVERTERS: Mapping[str, Callable[..., Any]] = {
    "text": _text,
    "texts": _texts,
    "number": _number,
    "label": _label,
    "id": _id,
}


def _check_type(where: str, column: str, role: Role, kind: pa.DataType) -> None:
    """Make sure that a column may hold what its role says.

    Raises:
        InputError: if it cannot.
    """
    types = pa.types
    is_number = types.is_integer(kind) or types.is_floating(kind) or types.is_decimal(kind)
    is_list = types.is_list(kind) or types.is_large_list(kind) or types.is_fixed_size_list(kind)
    fits = {
        "texts": _is_text(kind.value_type if is_list else kind),
        "number": is_number,
        "label": is_number or types.is_boolean(kind),
        "id": is_number or _is_text(kind),
    }
    if not fits.get(role.kind, True):
        what = {"texts": "texts or lists of texts", "number": "numbers", "label": "whole numbers", "id": "ids"}
        raise InputError(f"{where}: column {column!r} is {kind}; as {role.name} it must hold {what[role.kind]}")


def _is_text(kind: pa.DataType) -> bool:
    kind = kind.value_type if pa.types.is_dictionary(kind) else kind
    return bool(pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_null(kind))
