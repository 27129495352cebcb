"""Reading JSON lines, plain or compressed: a row is a line with a JSON object; blank lines are none.

A row's position is the byte at which its line begins, in the decompressed text. A line that can't be read is a bad row,
never the end of the job.
"""

import json
import zlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, BinaryIO

import fsspec.core
import numpy as np
import pyarrow as pa

from sbert_ray.data.errors import InputError
from sbert_ray.data.rows import EXCERPT, BadRow, Rows
from sbert_ray.data.storage import Storage
from sbert_ray.data.units import Unit

COMPRESSIONS = {".gz": "gzip", ".zst": "zstd"}
SAMPLE_LINES = 1000


def compression(name: str) -> str | None:
    """Return fsspec's name for the compression that a file's suffix tells."""
    return next((codec for suffix, codec in COMPRESSIONS.items() if name.endswith(suffix)), None)


@contextmanager
def _opened(storage: Storage, name: str) -> Iterator[BinaryIO]:
    where, codec = storage.locate(name), compression(name)
    try:
        with fsspec.core.open(where, "rb", compression=codec) as file:
            yield file
    except ValueError as error:
        if codec is not None and "not supported" in str(error):
            raise InputError(f"{where}: reading {codec} needs a package: pip install 'sbert-ray[zstd]'") from error
        raise
    except (EOFError, zlib.error, OSError) as error:
        if codec is None or isinstance(error, FileNotFoundError | PermissionError | ConnectionError | TimeoutError):
            raise
        message = f"{where} is no whole {codec} file: {error}; repair the file or take it out"
        raise InputError(message) from error


def lines(storage: Storage, name: str, start: int = 0, stop: int | None = None) -> Iterator[tuple[int, bytes]]:
    """Yield each line that begins in the bytes from ``start`` to ``stop``, with its position; blank lines are left out.

    Raises:
        InputError: if a compressed file is damaged, or its compression is not installed.
    """
    with _opened(storage, name) as file:
        position = start
        if start > 0:
            file.seek(start - 1)
            position += len(file.readline()) - 1  # the rest of a line that begins before
        while stop is None or position < stop:
            line = file.readline()
            if not line:
                return
            if line.strip():
                yield position, line
            position += len(line)


def parse(line: bytes) -> dict[str, Any]:
    """Return the object in a line.

    Raises:
        ValueError: that says what is wrong with the line.
    """
    try:
        value = json.loads(line.decode())
    except UnicodeDecodeError as error:
        raise ValueError(f"invalid UTF-8 at byte {error.start} of the line") from error
    except json.JSONDecodeError as error:
        raise ValueError(f"invalid JSON: {error}") from error
    except RecursionError as error:
        raise ValueError("invalid JSON: nested too deeply") from error
    if not isinstance(value, dict):
        raise ValueError(f"a line must be a JSON object, got {type(value).__name__}")
    return value


def infer_schema(storage: Storage, name: str) -> tuple[pa.Schema, float]:
    """Return the schema of the first lines that can be read, and the mean bytes of a line.

    Raises:
        InputError: if values of one column are of different types.
    """
    objects, num_bytes, num_lines = [], 0, 0
    for _, line in lines(storage, name):
        num_bytes, num_lines = num_bytes + len(line), num_lines + 1
        try:
            objects.append(parse(line))
        except ValueError:
            continue  # counted when its unit is read
        if num_lines == SAMPLE_LINES:
            break
    names = list(dict.fromkeys(column for item in objects for column in item))
    fields = []
    for column in names:
        try:
            fields.append(pa.field(column, pa.array([item.get(column) for item in objects]).type))
        except (pa.ArrowInvalid, pa.ArrowTypeError, UnicodeEncodeError) as error:
            fields.append(pa.field(column, pa.null(), metadata={"mixed": str(error)}))
    return pa.schema(fields), num_bytes / max(num_lines, 1)


def position_after(storage: Storage, name: str, num_rows: int) -> tuple[int | None, int]:
    """Return the position at which row ``num_rows`` begins, None if there are no more, and the rows before it."""
    count = 0
    for position, _ in lines(storage, name):
        if count == num_rows:
            return position, count
        count += 1
    return None, count


class JsonlReader:
    """Reads units of JSON lines into tables of a known schema."""

    def __init__(self, storage: Storage, schema: pa.Schema) -> None:
        self.storage = storage
        self.schema = schema

    def read(self, unit: Unit, columns: Sequence[str], max_rows: int) -> Iterator[Rows]:
        """Yield the rows of ``unit``, at most ``max_rows`` at a time."""
        schema = pa.schema([self.schema.field(column) for column in columns])
        positions: list[int] = []
        values: list[list[Any]] = []
        bad: list[BadRow] = []
        for position, line in lines(self.storage, unit.file, unit.start, unit.stop):
            try:
                row = parse(line)
                values.append([_fitting(row.get(field.name), field) for field in schema])
                positions.append(position)
            except ValueError as error:
                text = line[:EXCERPT].decode(errors="replace")
                bad.append(BadRow(unit.file, position, str(error), text=text))
            if len(positions) + len(bad) == max_rows:
                yield _rows(unit.file, positions, values, schema, bad)
                positions, values, bad = [], [], []
        yield _rows(unit.file, positions, values, schema, bad)


def _fitting(value: Any, field: pa.Field) -> Any:
    """Return ``value`` if it fits the column's type."""
    if value is None or (type(value) is str and pa.types.is_string(field.type) and value.isprintable()):
        return value  # the usual case, without the cost of asking Arrow
    try:
        pa.scalar(value, type=field.type)
    except (pa.ArrowException, UnicodeEncodeError, TypeError, ValueError, OverflowError) as error:
        message = f"column {field.name!r} must be {field.type}, got {type(value).__name__}: {error}"
        raise ValueError(message) from error
    return value


def _rows(file: str, positions: list[int], values: list[list[Any]], schema: pa.Schema, bad: list[BadRow]) -> Rows:
    columns = zip(*values, strict=True) if values else [()] * len(schema)
    arrays = [pa.array(list(column), type=field.type) for column, field in zip(columns, schema, strict=True)]
    return Rows(file, pa.table(arrays, schema=schema), np.array(positions, dtype=np.int64), bad)
