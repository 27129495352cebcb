"""A dataset to read: Parquet or JSON lines in a file, a folder or a glob, on any file system that fsspec knows."""

import logging
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import islice
from typing import Self

import pyarrow as pa
from fsspec.core import url_to_fs

from sbert_ray.data import jsonl, units
from sbert_ray.data.errors import InputError
from sbert_ray.data.manifest import Manifest
from sbert_ray.data.parquet import ParquetReader, read_footer
from sbert_ray.data.rows import Rows
from sbert_ray.data.storage import Storage
from sbert_ray.data.units import Unit

logger = logging.getLogger(__name__)

PARQUET = (".parquet", ".pq")
JSONL = tuple(stem + codec for stem in (".jsonl", ".ndjson", ".json") for codec in ("", *jsonl.COMPRESSIONS))
METADATA_THREADS = 16
MANY_FILES = 1000


@dataclass(frozen=True)
class InputFile:
    """One file of a dataset, as its metadata describes it."""

    name: str
    """Path relative to the dataset."""
    size: int
    identity: str
    """Changes when the contents do: a digest of a Parquet footer; the store's ETag or the time of change otherwise."""
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
        schema: what the columns of JSON lines must hold.
        max_rows: rows that are read at a time where a unit has no known end.
    """

    url: str
    schema: pa.Schema
    max_rows: int

    def __post_init__(self) -> None:
        storage = Storage(self.url)
        object.__setattr__(self, "_parquet", ParquetReader(storage))
        object.__setattr__(self, "_jsonl", jsonl.JsonlReader(storage, self.schema))

    def __reduce__(self) -> tuple[type[Self], tuple[str, pa.Schema, int]]:
        return type(self), (self.url, self.schema, self.max_rows)

    def read(self, unit: Unit, columns: Sequence[str]) -> Iterator[Rows]:
        """Yield the rows of ``unit``.

        Raises:
            InputError: if the file is damaged.
        """
        if unit.file.endswith(PARQUET):
            return self._parquet.read(unit, columns)  # type: ignore[attr-defined, no-any-return]
        return self._jsonl.read(unit, columns, self.max_rows)  # type: ignore[attr-defined, no-any-return]


@dataclass(frozen=True)
class Dataset:
    """The files of a dataset, in the order of their names, and what their metadata tells.

    Args:
        url: as the user gave it.
        storage: folder that file names are relative to.
        files: in the order of their names.
        schema: columns of the first file that has rows.
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
    def open(cls, url: str, text_columns: Sequence[str], copied_columns: Sequence[str] = ()) -> Self:
        """List the files and read their metadata.

        Args:
            url: file, folder, glob or URL; a finished output of another job is a dataset too.
            text_columns: must be there, with strings.
            copied_columns: must be there, with the same type in every file.

        Raises:
            InputError: if there is nothing to read, a file is damaged, or a column is missing or of a wrong type.
        """
        storage, names = _list(url)
        if len({name.endswith(PARQUET) for name in names}) > 1:
            raise InputError(f"{url} holds Parquet and JSONL files; give one kind, with a glob such as {url}/*.parquet")
        if names[0].endswith(PARQUET):
            return cls._open_parquet(url, storage, names, text_columns, copied_columns)
        return cls._open_jsonl(url, storage, names, text_columns, copied_columns)

    @classmethod
    def _open_parquet(
        cls, url: str, storage: Storage, names: Sequence[str], text: Sequence[str], copied: Sequence[str]
    ) -> Self:
        if len(names) > MANY_FILES:
            logger.info("reading the metadata of %d files", len(names))
        files: list[InputFile] = []
        types: pa.Schema | None = None
        with ThreadPoolExecutor(METADATA_THREADS) as threads:
            for name, footer in zip(names, threads.map(lambda name: read_footer(storage, name), names), strict=True):
                found = _columns(storage.locate(name), footer.schema, text, copied)
                types = types or found
                _check_same(storage.locate(name), found, storage.locate(names[0]), types, copied)
                files.append(InputFile(name, _size(storage, name), footer.identity, footer.row_groups))
        dataset = cls(url, storage, tuple(files), types or pa.schema([]))
        if not dataset.num_rows:
            raise InputError(f"{url} holds no rows in its {len(files)} files")
        return dataset

    @classmethod
    def _open_jsonl(
        cls, url: str, storage: Storage, names: Sequence[str], text: Sequence[str], copied: Sequence[str]
    ) -> Self:
        files = tuple(InputFile(name, _size(storage, name), _version(storage, name)) for name in names)
        for name in names:
            schema, line_bytes = jsonl.infer_schema(storage, name)
            if len(schema):
                found = _columns(storage.locate(name), schema, text, copied)
                return cls(url, storage, files, found, line_bytes)
        raise InputError(f"{url} holds no JSON objects in its {len(files)} files")

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
        elif jsonl.compression(file.name):
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
        """Yield about ``num_rows`` rows of one column from units spread over the dataset."""
        per_unit = max(num_rows // 8, 1)
        candidates = list(islice(self.units(per_unit), 100_000))
        for unit in candidates[:: max(len(candidates) // 8, 1)][:8]:
            yield next(iter(self.reader(per_unit).read(unit, [column])))


def _list(url: str) -> tuple[Storage, list[str]]:
    """Return the folder that ``url`` points into, and the names of the data files there."""
    try:
        fs, path = url_to_fs(url)
        if any(mark in url for mark in "*?["):
            paths = sorted(fs.glob(path))
            fixed = path[: min(path.find(mark) for mark in "*?[" if mark in path)]
            root = fixed.rpartition("/")[0]
        elif fs.isfile(path):
            root, paths = path.rpartition("/")[0], [path]
        else:
            root, paths = path, sorted(fs.find(path)) if fs.exists(path) else []
    except (OSError, ImportError, ValueError) as error:
        raise InputError(f"cannot read input {url}: {error}") from error
    storage = Storage(str(fs.unstrip_protocol(root)) if "://" in url else root or "/")
    if storage.exists(Manifest.PLAN):
        return storage, Manifest.finished_files(storage)
    prefix = len(root.rstrip("/")) + 1
    names = [path[prefix:] for path in paths]
    names = [name for name in names if not any(part.startswith((".", "_")) for part in name.split("/"))]
    found = [name for name in names if name.endswith(PARQUET + JSONL)]
    if not found:
        what = f"; it has {names[:5]}" if names else ", or it does not exist"
        raise InputError(f"no Parquet or JSONL files at {url}{what}; known suffixes are {[*PARQUET, *JSONL]}")
    return storage, found


def _size(storage: Storage, name: str) -> int:
    fs, path = url_to_fs(storage.locate(name))
    return int(fs.size(path))


def _version(storage: Storage, name: str) -> str:
    """Return the ETag of an object, or the time at which a file was last changed."""
    fs, path = url_to_fs(storage.locate(name))
    info = fs.info(path)
    return str(next((info[key] for key in ("ETag", "etag", "md5Hash", "mtime", "created") if key in info), "unknown"))


def _columns(where: str, schema: pa.Schema, text: Sequence[str], copied: Sequence[str]) -> pa.Schema:
    """Return the fields of the columns that are asked for, or say what is wrong with them."""
    wanted = list(dict.fromkeys([*text, *copied]))
    if missing := [column for column in wanted if column not in schema.names]:
        raise InputError(f"{where} lacks column(s) {missing}; it has {schema.names}")
    fields = []
    for column in wanted:
        field = schema.field(column)
        if mixed := (field.metadata or {}).get(b"mixed"):
            raise InputError(f"{where}: column {column!r} holds values of several types: {mixed.decode()}")
        kind = pa.string() if pa.types.is_null(field.type) else field.type
        if column in text and not _is_text(kind):
            raise InputError(f"{where}: column {column!r} is {kind}; a text column must hold strings")
        fields.append(pa.field(column, kind))
    return pa.schema(fields)


def _is_text(kind: pa.DataType) -> bool:
    if pa.types.is_dictionary(kind):
        kind = kind.value_type
    return any(is_kind(kind) for is_kind in (pa.types.is_string, pa.types.is_large_string, pa.types.is_string_view))


def _check_same(where: str, found: pa.Schema, first: str, types: pa.Schema, copied: Sequence[str]) -> None:
    for column in copied:
        if found.field(column).type != types.field(column).type:
            raise InputError(
                f"{where}: column {column!r} is {found.field(column).type}, but {types.field(column).type} in {first};"
                " a column that is copied must have one type"
            )
