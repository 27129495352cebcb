"""Texts and embeddings that an embed job, or another program, wrote as Parquet or JSON lines, in memory.

Shapes: N rows, D dimensions, W values of a row as written.
"""

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from sbert_ray.data.dataset import Dataset
from sbert_ray.data.errors import InputError
from sbert_ray.data.listing import PARQUET, list_files
from sbert_ray.data.parquet import read_footer
from sbert_ray.data.rows import Rows, strings
from sbert_ray.data.sink import METADATA_KEY
from sbert_ray.data.sparse import sparse_fault
from sbert_ray.data.storage import redacted
from sbert_ray.inference.sparse import SparseRows
from sbert_ray.quantization import BINARY_PRECISIONS, SCALAR_PRECISIONS, dequantize_embeddings

SPARSE = ("indices", "values")
_ROWS = 8_192  # of a file, at a time
_CALIBRATION = "_manifest/calibration.json"
_SAME = ("similarity", "precision", "dimension", "revision")  # in all files, where they tell them


class Texts(Protocol):
    """What takes texts one by one, such as a list."""

    def append(self, text: str, /) -> None:
        """Take a text."""


class Written:
    """A dataset of texts and embeddings.

    Args:
        url: A folder, file or glob, on any file system that fsspec knows.
        text_column: The column of the texts.
        embedding_column: The column of the embeddings; if it is not there, but ``indices`` and ``values`` are, these.

    Raises:
        InputError: There is nothing to read, a column is missing, or the files disagree on how they were made.
    """

    def __init__(self, url: str, text_column: str, embedding_column: str) -> None:
        self._where = redacted(url)
        schemas = dict(_schemas(url))
        first = next(iter(schemas.values()), pa.schema([]))
        self._is_sparse = embedding_column not in first.names and set(first.names) >= set(SPARSE)
        self._columns = SPARSE if self._is_sparse else (embedding_column,)
        self._text_column = text_column
        self._dataset = Dataset.open(url, [text_column], self._columns)
        self.facts = self._facts(schemas)
        """What the job says of the embeddings, such as their similarity; empty where another program wrote them."""

    def read(self, texts: Texts) -> NDArray[Any] | SparseRows:
        """Read the rows, with each text given to ``texts.append``; return the embeddings (N, D).

        Codes of fewer bits come as the float32 numbers that they stand for.

        Raises:
            InputError: A text is null, or the embeddings are null, no numbers, or of several lengths.
        """
        found = _Sparse() if self._is_sparse else _Dense(self._dataset.num_rows)
        for file, rows in self._rows():
            values, reasons = strings(rows.table[self._text_column])
            for row, text in enumerate(values):
                if text is None:
                    reason = reasons.get(row, "the text must not be null")
                    raise InputError(f"{file}, row {int(rows.positions[row])}: {reason} ({self._text_column!r})")
                texts.append(text)
            self._add(found, file, rows)
        return found.matrix(self.facts.get("dimension"), self._where)

    def _add(self, found: "_Sparse | _Dense", file: str, rows: Rows) -> None:
        if isinstance(found, _Sparse):
            found.add(rows.table["indices"], rows.table["values"], file)
        else:
            found.add(self._numbers(_matrix(rows, self._columns[0], file), file))

    def _rows(self) -> Iterator[tuple[str, Rows]]:
        reader = self._dataset.reader(_ROWS)
        for file in self._dataset.files:
            for rows in reader.stream(file.name, [self._text_column, *self._columns]):
                if len(rows):
                    yield redacted(self._dataset.storage.locate(file.name)), rows

    def _numbers(self, codes: NDArray[Any], file: str) -> NDArray[Any]:
        """Return what codes (n, W) stand for, as (n, D); floats are as they are."""
        if np.issubdtype(codes.dtype, np.floating):
            return codes
        precision = self.facts.get("precision")
        if precision not in (*SCALAR_PRECISIONS, *BINARY_PRECISIONS):
            raise InputError(f"{file} must hold floats, or tell the precision of its codes as an embed job does")
        ranges = self._ranges(precision) if precision in SCALAR_PRECISIONS else None
        return dequantize_embeddings(codes, precision, ranges, self.facts.get("dimension")).astype(np.float32)

    def _ranges(self, precision: str) -> NDArray[np.float32]:
        if not self._dataset.storage.exists(_CALIBRATION):
            raise InputError(
                f"{self._where} must be the whole output of an embed job: the ranges of {precision} are in its "
                f"{_CALIBRATION}"
            )
        found = json.loads(self._dataset.storage.read(_CALIBRATION))
        return np.array([found["min"], found["max"]], np.float32)

    def _facts(self, schemas: Mapping[str, pa.Schema]) -> dict[str, Any]:
        facts: dict[str, Any] = {}
        for file, schema in schemas.items():
            told = json.loads((schema.metadata or {}).get(METADATA_KEY, b"{}"))
            for name in _SAME:
                if told.get(name) is not None and facts.setdefault(name, told[name]) != told[name]:
                    raise InputError(
                        f"the files of {self._where} must be embedded alike, got {name} {told[name]!r} in {file} and "
                        f"{facts[name]!r} in others"
                    )
        return facts


@dataclass
class _Dense:
    """Embeddings that are put into one array, so that they are in memory once, where their number is known."""

    num_rows: int | None
    _parts: list[NDArray[Any]] = field(default_factory=list)
    _filled: int = 0

    def add(self, part: NDArray[Any]) -> None:
        if self._parts and part.shape[1] != self._parts[0].shape[1]:
            raise InputError(f"embeddings must be of one length, got {self._parts[0].shape[1]} and {part.shape[1]}")
        if self.num_rows is None:
            self._parts.append(part)
            return
        if not self._parts:
            self._parts.append(np.empty((self.num_rows, part.shape[1]), part.dtype))
        self._parts[0][self._filled : self._filled + len(part)] = part
        self._filled += len(part)

    def matrix(self, dimension: int | None, where: str) -> NDArray[Any]:  # noqa: ARG002 (sparse ones need them)
        return self._parts[0] if len(self._parts) == 1 else np.concatenate(self._parts)


@dataclass
class _Sparse:
    lengths: list[NDArray[np.int64]] = field(default_factory=list)
    indices: list[NDArray[np.int32]] = field(default_factory=list)
    values: list[NDArray[np.float32]] = field(default_factory=list)

    def add(self, indices: pa.ChunkedArray, values: pa.ChunkedArray, file: str) -> None:
        if fault := sparse_fault(indices, values):
            raise InputError(f"{file}: {fault}")
        places, numbers = indices.combine_chunks(), values.combine_chunks()
        self.lengths.append(places.value_lengths().to_numpy(zero_copy_only=False).astype(np.int64))
        self.indices.append(places.flatten().to_numpy(zero_copy_only=False).astype(np.int32))
        self.values.append(numbers.flatten().to_numpy(zero_copy_only=False).astype(np.float32))

    def matrix(self, dimension: int | None, where: str) -> SparseRows:
        if dimension is None:
            raise InputError(f"{where} does not tell the dimension of its embeddings, as an embed job does")
        lengths, indices, values = (
            np.concatenate(self.lengths),
            np.concatenate(self.indices),
            np.concatenate(self.values),
        )
        if len(indices) and indices.max() >= dimension:
            raise InputError(f"{where}: indices must be less than {dimension}, got {indices.max()}")
        return SparseRows(np.concatenate([[0], np.cumsum(lengths)]), indices, values, dimension)


def _schemas(url: str) -> Iterator[tuple[str, pa.Schema]]:
    """Yield the name and schema of each file that has one."""
    storage, files = list_files(url)
    for file in files:
        if file.name.endswith(PARQUET):
            yield file.name, read_footer(storage, file.name).schema


def _matrix(rows: Rows, column: str, file: str) -> NDArray[Any]:
    array = rows.table[column].combine_chunks()
    types = pa.types
    is_list = types.is_fixed_size_list(array.type) or types.is_list(array.type) or types.is_large_list(array.type)
    kind = array.type.value_type if is_list else array.type
    if not is_list or not (types.is_floating(kind) or types.is_integer(kind)):
        raise InputError(f"{file}: column {column!r} must hold lists of numbers, got {array.type}")
    lengths = array.value_lengths().fill_null(-1).to_numpy(zero_copy_only=False)
    size = int(lengths.max())
    if (lengths != size).any() or size < 0:
        row = int(np.flatnonzero(lengths != size)[0]) if size >= 0 else 0
        what = "is null" if lengths[row] < 0 else f"has {lengths[row]} numbers, and others have {size}"
        raise InputError(f"{file}, row {int(rows.positions[row])}: the embedding {what} ({column!r})")
    flat = array.flatten()
    if flat.null_count:
        row = int(np.flatnonzero(flat.is_null().to_numpy(zero_copy_only=False))[0]) // size
        raise InputError(f"{file}, row {int(rows.positions[row])}: the embedding has a null in it ({column!r})")
    matrix: NDArray[Any] = flat.to_numpy(zero_copy_only=False).reshape(len(array), size)
    return matrix
