"""A dataset to read: Parquet or JSON lines in a file, a folder or a glob, on any file system that fsspec knows."""

import logging
from collections.abc import Callable, Generator, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager
from dataclasses import dataclass
from functools import cached_property
from typing import Self, TypeVar

import pyarrow as pa

from sbert_ray.data import jsonl, units
from sbert_ray.data.columns import Columns
from sbert_ray.data.errors import InputError
from sbert_ray.data.listing import PARQUET, FileInfo, list_files
from sbert_ray.data.parquet import ParquetReader, read_footer
from sbert_ray.data.rows import Rows
from sbert_ray.data.storage import Storage, redacted
from sbert_ray.data.units import Unit

logger = logging.getLogger(__name__)

T = TypeVar("T")
METADATA_THREADS = 16
MANY_FILES = 1000
SAMPLE_UNITS = 8
FIRST_LINES = f"first {jsonl.SAMPLE_LINES} lines"


@dataclass(frozen=True)
class InputFile:
    """One file of a dataset, as its metadata describes it."""

    name: str
    """Path relative to the dataset."""
    size: int
    identity: str
    """Changes when the contents do: ``Footer.identity`` of Parquet, else the store's ETag or the time of change."""
    row_groups: tuple[int, ...] | None = None
    """Rows of each Parquet row group; None where rows are not known before they are read."""

    @property
    def num_rows(self) -> int | None:
        """Rows of the file, if its metadata tells."""
        return None if self.row_groups is None else sum(self.row_groups)

    def described(self) -> dict[str, str | int | None]:
        """Return what a plan says of the file."""
        return {"name": self.name, "size": self.size, "identity": self.identity, "rows": self.num_rows}


@dataclass(frozen=True)
class RowReader:
    """Reads units of a dataset; small enough to travel to the workers.

    Args:
        url: folder that file names are relative to.
        schema: types of the columns.
        max_rows: rows that are read at a time where a unit has no known end.
    """

    url: str
    schema: pa.Schema
    max_rows: int

    @cached_property
    def _parquet(self) -> ParquetReader:
        return ParquetReader(Storage(self.url), self.schema)

    @cached_property
    def _jsonl(self) -> jsonl.JsonlReader:
        return jsonl.JsonlReader(Storage(self.url), self.schema)

    def __reduce__(self) -> tuple[type[Self], tuple[str, pa.Schema, int]]:
        return type(self), (self.url, self.schema, self.max_rows)

    def read(self, unit: Unit, columns: Sequence[str]) -> Iterator[Rows]:
        """Yield the rows of ``unit``.

        Raises:
            InputError: if the file is damaged.
        """
        if self.is_parquet(unit):
            return self._parquet.read(unit, columns)
        return self._jsonl.read(unit, columns, self.max_rows)

    def stream(self, file: str, columns: Sequence[str]) -> Iterator[Rows]:
        """Yield all rows of a file, a few at a time, decoding each once.

        Raises:
            InputError: if the file is damaged.
        """
        if file.endswith(PARQUET):
            return self._parquet.stream(file, columns, self.max_rows)
        return self._jsonl.read(Unit(0, file, 0, None), columns, self.max_rows)

    @staticmethod
    def is_parquet(unit: Unit) -> bool:
        """Whether a unit is counted in rows of a Parquet file, not in bytes of JSON lines."""
        return unit.file.endswith(PARQUET)

    def num_rows(self, unit: Unit) -> int:
        """Return the rows of the Parquet file that a unit is in."""
        return self._parquet.num_rows(unit.file)


@dataclass(frozen=True)
class Dataset:
    """The files of a dataset, in the order of their names, and what their metadata tells.

    Args:
        url: as the user gave it.
        storage: folder that file names are relative to.
        files: in the order of their names.
        schema: the columns that were asked for, and their types.
        line_bytes: mean length of the first lines, for JSONL.
    """

    url: str
    storage: Storage
    files: tuple[InputFile, ...]
    schema: pa.Schema
    line_bytes: float = 0.0

    @property
    def num_rows(self) -> int | None:
        """Rows in all, or None if some file does not tell before it is read."""
        counts = [file.num_rows for file in self.files]
        return None if None in counts else sum(count for count in counts if count is not None)

    @property
    def estimated_rows(self) -> int:
        """Rows in all; for JSON lines from the mean length of the first ones, which compression makes too few."""
        return sum(
            file.num_rows if file.num_rows is not None else round(file.size / max(self.line_bytes, 1.0))
            for file in self.files
        )

    @classmethod
    def open(
        cls,
        url: str,
        text_columns: Sequence[str],
        copied_columns: Sequence[str] = (),
        optional_columns: Sequence[str] = (),
    ) -> Self:
        """List the files and read their metadata.

        Args:
            url: file, folder, glob or URL; a finished output of another job is a dataset too.
            text_columns: must be there, with strings.
            copied_columns: must be there, with the same type in every file.
            optional_columns: the same, but only the first of several JSONL files must have them.

        Raises:
            InputError: if there is nothing to read, a file is damaged, or a column is missing or of a wrong type.
        """
        storage, found = list_files(url)
        if len({file.name.endswith(PARQUET) for file in found}) > 1:
            where = redacted(url)
            raise InputError(
                f"{where} holds Parquet and JSONL files; give one kind, with a glob such as {where}/*.parquet"
            )
        open_ = cls._open_parquet if found[0].name.endswith(PARQUET) else cls._open_jsonl
        return open_(url, storage, found, Columns(text_columns, copied_columns, optional_columns))

    @classmethod
    def _open_parquet(cls, url: str, storage: Storage, found: Sequence[FileInfo], columns: Columns) -> Self:
        if len(found) > MANY_FILES:
            logger.info("reading the metadata of %d files", len(found))
        files: list[InputFile] = []
        with closing(_in_threads(lambda file: read_footer(storage, file.name), found)) as footers:
            for file, footer in zip(found, footers, strict=True):
                columns.add(redacted(storage.locate(file.name)), footer.schema)
                files.append(InputFile(file.name, file.size, footer.identity, footer.row_groups))
        dataset = cls(url, storage, tuple(files), columns.schema)
        if not dataset.num_rows:
            raise InputError(f"{redacted(url)} holds no rows in its {len(files)} files")
        return dataset

    @classmethod
    def _open_jsonl(cls, url: str, storage: Storage, found: Sequence[FileInfo], columns: Columns) -> Self:
        files = tuple(InputFile(file.name, file.size, file.version) for file in found)
        for index, file in enumerate(files):
            where = redacted(storage.locate(file.name))
            with _named(where):
                schema, line_bytes = jsonl.infer_schema(storage, file.name)
            if len(schema):
                columns.add(f"{where} ({FIRST_LINES})", schema)
                _check_heads(storage, found[index + 1 :], columns)
                return cls(url, storage, files, columns.schema, line_bytes)
        raise InputError(f"{redacted(url)} holds no JSON objects in its {len(files)} files")

    def reader(self, max_rows: int) -> RowReader:
        """Return what reads this dataset's units."""
        return RowReader(self.storage.url, self.schema, max_rows)

    def units(self, rows_per_unit: int, limit: int | None = None) -> Iterator[Unit]:
        """Yield the units of work, in the order of the input.

        Args:
            rows_per_unit: at most (Parquet) or about (JSON lines) so many rows each.
            limit: stop after so many rows.
        """
        if limit is None:
            return units.numbered(unit for file in self.files for unit in self._cut(file, rows_per_unit))
        return units.numbered(self._limited(rows_per_unit, limit))

    def _cut(self, file: InputFile, rows_per_unit: int) -> Iterator[Unit]:
        if file.row_groups is not None:
            ranges = units.row_ranges(file.row_groups, rows_per_unit)
        elif jsonl.is_compressed(file.name):
            yield Unit(0, file.name, 0, None)
            return
        else:
            ranges = units.byte_ranges(file.size, max(round(rows_per_unit * self.line_bytes), 1))
        for start, stop in ranges:
            yield Unit(0, file.name, start, stop)

    def _limited(self, rows_per_unit: int, limit: int) -> Iterator[Unit]:
        for file in self.files:
            if limit <= 0:
                return
            if file.row_groups is None:
                end, rows = jsonl.position_after(self.storage, file.name, limit)
            else:
                rows = min(limit, sum(file.row_groups))
                end = rows
            for unit in self._cut(file, rows_per_unit):
                if end is None:
                    yield unit
                elif unit.start < end:
                    yield Unit(0, unit.file, unit.start, end if unit.stop is None else min(unit.stop, end))
            limit -= rows

    def sample(self, column: str, num_rows: int) -> Iterator[Rows]:
        """Yield about ``num_rows`` rows of one column, from the beginnings of units spread over the dataset."""
        candidates = list(self.units(units.default_rows_per_unit(self.estimated_rows)))
        chosen = sorted({len(candidates) * part // SAMPLE_UNITS for part in range(SAMPLE_UNITS)})
        each = -(-num_rows // len(chosen))
        for index in chosen:
            rows = next(iter(self.reader(each).read(candidates[index], [column])))
            yield rows.take(range(min(each, len(rows))))


def _check_heads(storage: Storage, files: Sequence[FileInfo], columns: Columns) -> None:
    """Make sure that the first lines of JSONL files have the columns; a value of another type is a bad row."""
    if len(files) > MANY_FILES:
        logger.info("reading the first lines of %d files", len(files))

    def read(file: FileInfo) -> list[str]:
        with _named(redacted(storage.locate(file.name))):
            return jsonl.first_columns(storage, file.name, columns.needed)

    with closing(_in_threads(read, files)) as heads:
        for file, found in zip(files, heads, strict=True):
            if found:
                columns.look_for_needed(f"{redacted(storage.locate(file.name))} ({FIRST_LINES})", found)


@contextmanager
def _named(where: str) -> Iterator[None]:
    """Name the file that could not be read."""
    try:
        yield
    except OSError as error:
        raise InputError(redacted(f"cannot read {where}: {error}")) from error


def _in_threads(read: Callable[[FileInfo], T], files: Sequence[FileInfo]) -> Generator[T, None, None]:
    """Read many files at a time, in order; none is begun after the generator was closed."""
    with ThreadPoolExecutor(METADATA_THREADS) as threads:
        yield from threads.map(read, files)
