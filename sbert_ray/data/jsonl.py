"""Reading JSON lines, plain or compressed: a row is a line with a JSON object; blank lines are none.

A row's position is the byte at which its line begins, in the decompressed text. A line that can't be read is a bad row,
never the end of the job.
"""

import gzip
import io
import json
import zlib
from codecs import BOM_UTF8
from collections import defaultdict
from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager, suppress
from itertools import islice
from typing import Any, BinaryIO

import numpy as np
import pyarrow as pa

from sbert_ray.data.errors import InputError
from sbert_ray.data.rows import EXCERPT, BadRow, Rows
from sbert_ray.data.storage import Storage, redacted
from sbert_ray.data.units import Unit

COMPRESSIONS = (".gz", ".zst")
SAMPLE_LINES = 1000
CHUNK = 2**20
HEAD_CHUNK = 2**16
"""Bytes read at a time where most often the first line is enough."""


def is_compressed(name: str) -> bool:
    """Whether a file's suffix tells that it is compressed."""
    return name.endswith(COMPRESSIONS)


@contextmanager
def _opened(storage: Storage, name: str, block_size: int | None) -> Iterator[BinaryIO]:
    where = redacted(storage.locate(name))
    damage: tuple[type[Exception], ...] = (EOFError, zlib.error, gzip.BadGzipFile)
    with storage.open(name, block_size) as file:
        raw: Any = file
        if name.endswith(".gz"):
            raw = gzip.GzipFile(fileobj=file)
        elif name.endswith(".zst"):
            try:
                import zstandard
            except ImportError as error:
                message = f"{where}: reading .zst files needs a package: pip install 'sbert-ray[zstd]'"
                raise InputError(message) from error
            raw, damage = _ZstdFile(file, zstandard.ZstdDecompressor()), (EOFError, zstandard.ZstdError)
        try:
            yield io.BufferedReader(raw, block_size or CHUNK)  # remote files have a slow readline of their own
        except damage as error:
            raise InputError(f"{where} is damaged: {error}; repair the file or take it out") from error


class _ZstdFile(io.RawIOBase):
    """Decompresses frame after frame, and knows a file that was cut off, which zstandard's own reader does not."""

    def __init__(self, file: BinaryIO, decompressor: Any) -> None:
        self._file = file
        self._decompressor = decompressor
        self._frame: Any = None
        self._input = self._output = b""

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        while not self._output:
            self._input = self._input or self._file.read(CHUNK // 8)
            if not self._input:
                if self._frame is not None:
                    raise EOFError("it ends in the middle of a frame")
                return 0
            self._frame = self._frame or self._decompressor.decompressobj()
            self._output, self._input = self._frame.decompress(self._input), b""
            if self._frame.eof:
                self._frame, self._input = None, self._frame.unused_data
        size = min(len(buffer), len(self._output))
        buffer[:size], self._output = self._output[:size], self._output[size:]
        return size


def lines(
    storage: Storage, name: str, start: int = 0, stop: int | None = None, block_size: int | None = None
) -> Iterator[tuple[int, bytes]]:
    """Yield each line that begins in the bytes from ``start`` to ``stop``, with its position; blank lines are left out.

    Args:
        storage: folder that the file's name is relative to.
        name: of the file.
        start: first byte.
        stop: byte after the last; None: the end of the file.
        block_size: bytes that are read at a time; None: what suits a file that is read to its end.

    Raises:
        InputError: if a compressed file is damaged, or what decompresses it is not installed.
    """
    with _opened(storage, name, block_size) as file:
        position = start
        if start > 0:
            _skip(file, start - 1)
            position += len(file.readline()) - 1  # the rest of a line that begins before
        while stop is None or position < stop:
            line = file.readline()
            if not line:
                return
            if line.strip():
                yield position, line
            position += len(line)


def _skip(file: BinaryIO, size: int) -> None:
    if file.seekable():
        file.seek(size)
        return
    while size > 0 and (data := file.read(min(size, CHUNK))):
        size -= len(data)


def parse(line: bytes) -> dict[str, Any]:
    """Return the object in a line.

    Raises:
        ValueError: that says what is wrong with the line.
    """
    try:
        value = json.loads(line.removeprefix(BOM_UTF8).rstrip().decode())
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

    Where values of a column are of several types, its field says so in its metadata; its type is string if there are
    strings among them, so that whoever needs text can take the others for bad rows.
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
    names = dict.fromkeys(column for item in objects for column in item)
    fields = [_field(column, [item.get(column) for item in objects]) for column in names]
    return pa.schema(fields), num_bytes / max(num_lines, 1)


def first_columns(storage: Storage, name: str, wanted: Collection[str]) -> list[str]:
    """Return the columns of the first lines, read until those that are wanted have been seen; none if no line has any.

    Raises:
        InputError: if a compressed file is damaged, or what decompresses it is not installed.
    """
    found: dict[str, None] = {}
    for _, line in islice(lines(storage, name, block_size=HEAD_CHUNK), SAMPLE_LINES):
        with suppress(ValueError):  # such a line is counted when its unit is read
            found |= dict.fromkeys(parse(line))
        if found.keys() >= set(wanted):
            break
    return list(found)


def _field(name: str, values: list[Any]) -> pa.Field:
    try:
        return pa.field(name, pa.array([value for value in values if is_unicode(value)]).type)
    except (pa.ArrowException, OverflowError) as error:
        kind = pa.string() if any(isinstance(value, str) for value in values) else pa.null()
        return pa.field(name, kind, metadata={"mixed": str(error)})


def is_unicode(value: Any) -> bool:
    """Whether a value can be written as UTF-8; JSON knows escapes of lone surrogates, which are no characters."""
    try:
        json.dumps(value, ensure_ascii=False).encode()
    except UnicodeEncodeError:
        return False
    return True


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
        """Yield the rows of ``unit``, at most ``max_rows`` at a time, and at least one piece."""
        schema = pa.schema([self.schema.field(column) for column in columns])
        piece = _Piece(unit.file, schema)
        for position, line in lines(self.storage, unit.file, unit.start, unit.stop):
            if len(piece) == max_rows:
                yield piece.rows()
                piece = _Piece(unit.file, schema)
            piece.add(position, line)
        yield piece.rows()


class _Piece:
    """Consecutive lines of a file on their way to a table."""

    def __init__(self, file: str, schema: pa.Schema) -> None:
        self.file = file
        self.schema = schema
        self.positions: list[int] = []
        self.values: list[list[Any]] = []
        self.bad: list[BadRow] = []
        self.lacking: dict[str, set[int]] = defaultdict(set)
        self._fields, self._names = list(schema), frozenset(schema.names)  # Arrow makes them anew each time

    def __len__(self) -> int:
        return len(self.positions) + len(self.bad)

    def add(self, position: int, line: bytes) -> None:
        try:
            row = parse(line)
            self.values.append([_fitting(row.get(field.name), field) for field in self._fields])
        except ValueError as error:
            text = line.strip()[:EXCERPT].decode(errors="replace")
            self.bad.append(BadRow(self.file, position, str(error), text=text))
            return
        self.positions.append(position)
        for name in self._names - row.keys():
            self.lacking[name].add(position)

    def rows(self) -> Rows:
        columns = zip(*self.values, strict=True) if self.values else [()] * len(self.schema)
        arrays = [pa.array(list(column), type=kind) for column, kind in zip(columns, self.schema.types, strict=True)]
        table = pa.table(arrays, schema=self.schema)
        return Rows(self.file, table, np.array(self.positions, dtype=np.int64), self.bad, self.lacking)


def _fitting(value: Any, field: pa.Field) -> Any:
    """Return ``value`` if it fits the column's type."""
    if value is None or (type(value) is str and pa.types.is_string(field.type) and value.isprintable()):
        return value  # the usual case, without the cost of asking Arrow
    try:
        kept = pa.scalar(value, type=field.type).as_py()
    except UnicodeEncodeError as error:
        raise ValueError(f"column {field.name!r} holds a lone surrogate, which is no character: {error}") from error
    except (pa.ArrowException, TypeError, ValueError, OverflowError) as error:
        message = f"column {field.name!r} must be {field.type}, got {type(value).__name__}: {error}"
        raise ValueError(message) from error
    if not _is_whole(value, kept):
        raise ValueError(
            f"column {field.name!r} must be {field.type}, and would keep but {kept!r} of {value!r}"[:EXCERPT]
        )
    return value


def _is_whole(value: Any, kept: Any) -> bool:
    """Whether Arrow has kept all of a value: it drops fractions of integers and unknown fields of structs."""
    if isinstance(value, dict):
        return all(_is_whole(item, kept.get(key)) for key, item in value.items())
    if isinstance(value, list):
        return all(map(_is_whole, value, kept))
    return bool(value == kept or value != value)  # NaN is not equal to itself
