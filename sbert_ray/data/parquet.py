"""Reading Parquet: what a footer tells, and ranges of rows."""

import hashlib
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import BinaryIO

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from sbert_ray.data.errors import InputError
from sbert_ray.data.kinds import read_as
from sbert_ray.data.rows import Rows
from sbert_ray.data.storage import Storage, redacted
from sbert_ray.data.units import Unit

CACHED_BYTES = 512 * 2**20
"""Larger row groups are read piece by piece, and anew for each unit that lies in them."""
PIECE_ROWS = 8192
WHOLE_BYTES = 8 * 2**20
"""Of larger files a sample is hashed: a store answers few requests per second, and a dataset may have 100,000 files."""
SAMPLE_BLOCKS = 16
BLOCK_BYTES = 64 * 2**10


@dataclass(frozen=True)
class Footer:
    """What is known of a Parquet file without reading its rows."""

    schema: pa.Schema
    row_groups: tuple[int, ...]
    """Rows of each row group."""
    identity: str
    """Digest that is equal for equal files, wherever they lie, and changes with the contents.

    It is that of the footer, which holds the size, place and statistics of every chunk, and of a sample of the bytes:
    all of a small file, evenly spaced blocks of a large one. What it misses is a change in a large file that keeps
    every size and statistic and lies between the blocks, such as a few values overwritten by others as long.
    """


def read_footer(storage: Storage, name: str) -> Footer:
    """Return what the footer of a Parquet file says.

    Raises:
        InputError: if it is no readable Parquet file.
    """
    where = redacted(storage.locate(name))
    try:
        with storage.open(name, BLOCK_BYTES) as file:
            digest = _sample_digest(file)  # first: of a small file the rest is then in the store's cache
            metadata = pq.ParquetFile(file).metadata
            schema = metadata.schema.to_arrow_schema()
            digest.update(_footer_bytes(file))
    except (pa.ArrowException, OSError, ValueError) as error:
        raise InputError(f"{where} is no readable Parquet file: {_line(error)}; repair it or take it out") from error
    row_groups = tuple(metadata.row_group(index).num_rows for index in range(metadata.num_row_groups))
    return Footer(schema, row_groups, digest.hexdigest())


def _line(error: Exception) -> str:
    return " ".join(redacted(str(error)).split())  # Arrow's messages go over several lines


def _sample_digest(file: BinaryIO) -> "hashlib._Hash":
    size = file.seek(0, 2)
    starts, length = [0], size
    if size > WHOLE_BYTES:
        starts, length = [size * block // SAMPLE_BLOCKS for block in range(SAMPLE_BLOCKS)], BLOCK_BYTES
    digest = hashlib.sha256(str(size).encode())
    for start in starts:
        file.seek(start)
        digest.update(file.read(length))
    return digest


def _footer_bytes(file: BinaryIO) -> bytes:
    end = file.seek(0, 2)
    file.seek(end - 8)  # the last eight bytes are the footer's length and a magic word
    length = int.from_bytes(file.read(4), "little")
    file.seek(end - 8 - length)
    return file.read(length)


@contextmanager
def _readable(where: str) -> Iterator[None]:
    """Name the file in what Arrow finds wrong with its bytes."""
    try:
        yield
    except (pa.ArrowException, OSError, KeyError) as error:
        if isinstance(error, OSError) and (type(error) is not OSError or error.errno is not None):
            raise  # of the file system; what Arrow finds wrong with the bytes has no number
        raise InputError(f"{where} cannot be read: {_line(error)}; repair the file or take it out") from error


class ParquetReader:
    """Reads row ranges, and keeps the last row group, since the next unit often lies in the same one.

    Safe to use from several threads.

    Args:
        storage: folder that file names are relative to.
        schema: types of columns; a file in which all values of a column are null may have it without a type.
    """

    def __init__(self, storage: Storage, schema: pa.Schema) -> None:
        self.storage = storage
        self.schema = schema
        self._lock = threading.Lock()
        self._cached: tuple[tuple[str, int, tuple[str, ...]], pa.Table] | None = None

    def read(self, unit: Unit, columns: Sequence[str]) -> Iterator[Rows]:
        """Yield the rows of ``unit`` in one piece.

        Raises:
            InputError: if they are damaged, or the file was changed.
        """
        assert unit.stop is not None
        where = f"{redacted(self.storage.locate(unit.file))}, rows {unit.start} to {unit.stop - 1}"
        with _readable(where), self.storage.open(unit.file) as file:
            parquet = pq.ParquetFile(file, page_checksum_verification=True)
            pieces = self._read(parquet, unit.file, range(unit.start, unit.stop), tuple(columns))
        if sum(map(len, pieces)) != unit.stop - unit.start:
            raise InputError(f"{where}: the file now holds other rows than when the run was planned")
        yield Rows(unit.file, self._typed(pa.concat_tables(pieces)), np.arange(unit.start, unit.stop))

    def stream(self, name: str, columns: Sequence[str], max_rows: int) -> Iterator[Rows]:
        """Yield all rows of a file, at most ``max_rows`` at a time.

        Raises:
            InputError: if they are damaged.
        """
        start = 0
        with _readable(redacted(self.storage.locate(name))), self.storage.open(name) as file:
            parquet = pq.ParquetFile(file, page_checksum_verification=True)
            for batch in parquet.iter_batches(max_rows, columns=list(columns), use_threads=False):
                table = self._typed(pa.Table.from_batches([batch]).select(list(columns)))
                yield Rows(name, table, np.arange(start, start + batch.num_rows))
                start += batch.num_rows

    def num_rows(self, name: str) -> int:
        """Return the rows of a file."""
        with self.storage.open(name, BLOCK_BYTES) as file:
            return int(pq.ParquetFile(file).metadata.num_rows)

    def _read(self, parquet: pq.ParquetFile, file: str, wanted: range, columns: tuple[str, ...]) -> list[pa.Table]:
        for column in columns:
            parquet.schema_arrow.field(column)  # a KeyError if it is gone, whatever is cached
        pieces: list[pa.Table] = []
        first = 0
        for group in range(parquet.metadata.num_row_groups):
            rows = parquet.metadata.row_group(group).num_rows
            start, stop = max(wanted.start - first, 0), min(wanted.stop - first, rows)
            if start < stop:
                pieces += self._row_group(parquet, file, group, columns, range(start, stop))
            first += rows
        return pieces

    def _row_group(
        self, parquet: pq.ParquetFile, file: str, group: int, columns: tuple[str, ...], part: range
    ) -> list[pa.Table]:
        if parquet.metadata.row_group(group).total_byte_size > CACHED_BYTES:
            return list(_streamed(parquet, group, columns, part))
        key = (file, group, columns)
        with self._lock:
            table = self._cached[1] if self._cached is not None and self._cached[0] == key else None
        if table is None:
            table = parquet.read_row_group(group, columns=list(columns), use_threads=False).select(list(columns))
            with self._lock:
                self._cached = (key, table)
        return [table.slice(part.start, len(part))]

    def _typed(self, table: pa.Table) -> pa.Table:
        for index, field in enumerate(table.schema):
            kind = read_as(field.type)
            if pa.types.is_null(kind):
                kind = self.schema.field(field.name).type
                table = table.set_column(index, pa.field(field.name, kind), pa.nulls(len(table), kind))
            elif kind != field.type:
                table = table.set_column(index, field.with_type(kind), table[index].cast(kind))
        return table


def _streamed(parquet: pq.ParquetFile, group: int, columns: tuple[str, ...], part: range) -> Iterator[pa.Table]:
    """Yield the wanted rows of a row group that is too large to be held as a whole."""
    first = 0
    for batch in parquet.iter_batches(PIECE_ROWS, row_groups=[group], columns=list(columns), use_threads=False):
        start, stop = max(part.start - first, 0), min(part.stop - first, batch.num_rows)
        if start < stop:
            yield pa.Table.from_batches([batch.slice(start, stop - start)]).select(list(columns))
        first += batch.num_rows
        if first >= part.stop:
            return
