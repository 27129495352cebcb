"""Reading Parquet: what a footer tells, and ranges of rows."""

import hashlib
import threading
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import BinaryIO

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from sbert_ray.data.errors import InputError
from sbert_ray.data.rows import Rows
from sbert_ray.data.storage import Storage
from sbert_ray.data.units import Unit

CACHED_BYTES = 512 * 2**20
"""Larger row groups are read anew for each unit that lies in them."""


@dataclass(frozen=True)
class Footer:
    """What is known of a Parquet file without reading its rows."""

    schema: pa.Schema
    row_groups: tuple[int, ...]
    """Rows of each row group."""
    identity: str
    """Digest of the footer, which changes with the contents: it holds the size, place and statistics of every chunk."""


def read_footer(storage: Storage, name: str) -> Footer:
    """Return what the footer of a Parquet file says.

    Raises:
        InputError: if it is no readable Parquet file.
    """
    with storage.open(name) as file:
        try:
            metadata = pq.ParquetFile(file).metadata
            schema = metadata.schema.to_arrow_schema()
            raw = _footer_bytes(file)
        except (pa.ArrowException, OSError, ValueError) as error:
            message = f"{storage.locate(name)} is no readable Parquet file: {error}; repair it or take it out"
            raise InputError(message) from error
    row_groups = tuple(metadata.row_group(index).num_rows for index in range(metadata.num_row_groups))
    return Footer(schema, row_groups, hashlib.sha256(raw).hexdigest())


def _footer_bytes(file: BinaryIO) -> bytes:
    end = file.seek(0, 2)
    file.seek(end - 8)  # the last eight bytes are the footer's length and a magic word
    length = int.from_bytes(file.read(4), "little")
    file.seek(end - 8 - length)
    return file.read(length)


class ParquetReader:
    """Reads row ranges, and keeps the last row group, since the next unit often lies in the same one.

    Safe to use from several threads.
    """

    def __init__(self, storage: Storage) -> None:
        self.storage = storage
        self._lock = threading.Lock()
        self._cached: tuple[tuple[str, int, tuple[str, ...]], pa.Table] | None = None

    def read(self, unit: Unit, columns: Sequence[str]) -> Iterator[Rows]:
        """Yield the rows of ``unit`` in one piece."""
        assert unit.stop is not None
        where = f"{self.storage.locate(unit.file)}, rows {unit.start} to {unit.stop - 1}"
        try:
            with self.storage.open(unit.file) as file:
                table = self._read(pq.ParquetFile(file), unit, tuple(columns))
        except (pa.ArrowException, pa.ArrowInvalid) as error:
            raise InputError(f"{where} cannot be read: {error}; repair the file or take it out") from error
        if table.num_rows != unit.stop - unit.start:
            raise InputError(f"{where}: the file now holds other rows than when the run was planned")
        yield Rows(unit.file, table, np.arange(unit.start, unit.stop))

    def _read(self, parquet: pq.ParquetFile, unit: Unit, columns: tuple[str, ...]) -> pa.Table:
        pieces, first = [], 0
        for group in range(parquet.metadata.num_row_groups):
            rows = parquet.metadata.row_group(group).num_rows
            start, stop = max(unit.start - first, 0), min((unit.stop or 0) - first, rows)
            if start < stop:
                pieces.append(self._row_group(parquet, unit.file, group, columns).slice(start, stop - start))
            first += rows
        return pa.concat_tables(pieces) if pieces else parquet.schema_arrow.empty_table().select(list(columns))

    def _row_group(self, parquet: pq.ParquetFile, file: str, group: int, columns: tuple[str, ...]) -> pa.Table:
        key = (file, group, columns)
        with self._lock:
            if self._cached is not None and self._cached[0] == key:
                return self._cached[1]
        table = parquet.read_row_group(group, columns=list(columns), use_threads=False)
        if table.nbytes <= CACHED_BYTES:
            with self._lock:
                self._cached = (key, table)
        return table
