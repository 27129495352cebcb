"""Embeddings that a job has written, by row number: read range by range, never as a whole.

Shapes: N rows, D dimensions, nnz values other than zero.
"""

import json
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise
from typing import Any, Self

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from sbert_ray.data.dataset import Dataset, InputFile, RowReader
from sbert_ray.data.errors import InputError
from sbert_ray.data.listing import PARQUET, list_files
from sbert_ray.data.parquet import read_footer
from sbert_ray.data.sink import METADATA_KEY
from sbert_ray.data.storage import redacted
from sbert_ray.data.units import Unit

ROWS_PER_READ = 65_536
DENSE, SPARSE = ("embedding",), ("indices", "values")


@dataclass(frozen=True)
class SparseRange:
    """Rows of sparse embeddings as a CSR matrix (N, D)."""

    offsets: NDArray[np.int64]
    """(N + 1,)"""
    indices: NDArray[np.int32]
    """(nnz,)"""
    values: NDArray[np.float32]
    """(nnz,)"""


@dataclass(frozen=True)
class Embedded:
    """The output of an embed job; small enough to travel to a worker.

    Args:
        url: as the user gave it.
        reader: reads its rows.
        files: all of them.
        id_column: the ids.
        facts: what the job says of them, such as the model's name; empty where another program wrote them.
    """

    url: str
    reader: RowReader
    files: tuple[InputFile, ...]
    id_column: str
    facts: Mapping[str, Any]

    @classmethod
    def open(cls, url: str, id_column: str) -> Self:
        """List the files and check their columns.

        Raises:
            InputError: if there is nothing to read, or no ids and embeddings of floats in it.
        """
        where = redacted(url)
        storage, files = list_files(url)
        if not files[0].name.endswith(PARQUET):
            raise InputError(f"{where} must hold Parquet with embeddings, got {files[0].name}")
        schema = read_footer(storage, files[0].name).schema
        columns = DENSE if DENSE[0] in schema.names else SPARSE
        dataset = Dataset.open(url, [], [id_column, *columns])
        for name in columns:
            _check_type(where, name, dataset.schema.field(name).type)
        facts = json.loads((schema.metadata or {}).get(METADATA_KEY, b"{}"))
        return cls(url, dataset.reader(ROWS_PER_READ), dataset.files, id_column, facts)

    @property
    def is_sparse(self) -> bool:
        """Whether the embeddings are."""
        return DENSE[0] not in self.reader.schema.names

    def __len__(self) -> int:
        return int(self._starts[-1])

    @cached_property
    def dimension(self) -> int:
        """D, which other programs' sparse embeddings do not tell.

        Raises:
            InputError: if it is not known.
        """
        if not self.is_sparse and (size := getattr(self.reader.schema.field(DENSE[0]).type, "list_size", None)):
            return int(size)
        if "dimension" not in self.facts:
            raise InputError(
                f"{redacted(self.url)} does not tell the dimension of its embeddings, as an embed job does"
            )
        return int(self.facts["dimension"])

    def described(self) -> list[dict[str, Any]]:
        """Return name, size, identity and rows of each file."""
        return [file.described() for file in self.files]

    def id_batches(self) -> Iterator[list[str]]:
        """Yield the ids of the rows, as text, some thousand at a time.

        Raises:
            InputError: if one is null.
        """
        for file in self.files:
            for rows in self.reader.stream(file.name, [self.id_column]):
                column = rows.table[self.id_column]
                if column.null_count:
                    raise InputError(f"{redacted(self.url)}, {file.name}: an id must not be null ({self.id_column!r})")
                yield list(map(str, column.to_pylist()))

    def ids(self, beat: Callable[[int], None] = lambda _: None) -> list[str]:
        """Return the id of each row, as text.

        Raises:
            InputError: if one is null, or there twice.
        """
        found: list[str] = []
        for batch in self.id_batches():
            found += batch
            beat(0)
        if len(set(found)) < len(found):
            [(repeated, _)] = Counter(found).most_common(1)
            raise InputError(f"{redacted(self.url)}: each id must be there once, got {repeated!r} again")
        return found

    def read(self, start: int, stop: int) -> NDArray[np.float32] | SparseRange:
        """Return rows ``start`` to ``stop``: (N, D), or a CSR matrix of sparse ones."""
        columns = SPARSE if self.is_sparse else DENSE
        pieces: list[pa.Table] = []
        for file, (first, last) in zip(self.files, pairwise(self._starts), strict=True):
            begin, end = max(start, first), min(stop, last)
            if begin < end:
                unit = Unit(0, file.name, int(begin - first), int(end - first))
                pieces += [rows.table for rows in self.reader.read(unit, columns)]
        table = pa.concat_tables(pieces).combine_chunks()
        if not self.is_sparse:
            return _matrix(table, self.dimension, redacted(self.url))
        indices, values = (table[name].combine_chunks() for name in SPARSE)
        lengths = indices.value_lengths().to_numpy(zero_copy_only=False)
        return SparseRange(
            np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64),
            indices.flatten().to_numpy(zero_copy_only=False),
            values.flatten().to_numpy(zero_copy_only=False),
        )

    @cached_property
    def _starts(self) -> NDArray[np.int64]:
        """The number of each file's first row, and of all rows."""
        return np.concatenate([[0], np.cumsum([file.num_rows or 0 for file in self.files])]).astype(np.int64)


def _matrix(table: pa.Table, dimension: int, where: str) -> NDArray[np.float32]:
    column = table[DENSE[0]].combine_chunks()
    values = column.flatten().to_numpy(zero_copy_only=False)
    if column.null_count or len(values) != len(column) * dimension:
        raise InputError(f"{where}: each row must have {dimension} numbers as its embedding")
    matrix: NDArray[np.float32] = values.astype(np.float32, copy=False).reshape(len(column), dimension)
    return matrix


def _check_type(where: str, name: str, kind: pa.DataType) -> None:
    types = pa.types
    is_list = types.is_list(kind) or types.is_large_list(kind) or types.is_fixed_size_list(kind)
    number = kind.value_type if is_list else kind
    fits = types.is_integer(number) if name == SPARSE[0] else types.is_floating(number)
    if not is_list or not fits:
        what = "whole numbers" if name == SPARSE[0] else "floats, as those of precision float32 and float16 are"
        raise InputError(f"{where}: column {name!r} is {kind}; it must hold lists of {what}")


def check_same(first: Embedded, second: Embedded) -> None:
    """Make sure that the embeddings of two outputs can be compared.

    Raises:
        InputError: if they are of other kinds, lengths or models.
    """
    one, other = ((table.is_sparse, table.dimension) for table in (first, second))
    if one != other:
        what, that = (f"{'sparse' if kind else 'dense'} embeddings of {size} dimensions" for kind, size in (other, one))
        raise InputError(f"{redacted(second.url)} has {what}, and {redacted(first.url)} {that}")
    for name in ("revision", "similarity"):
        made, by = first.facts.get(name), second.facts.get(name)
        if made is not None and by is not None and made != by:
            raise InputError(
                f"{redacted(second.url)} was embedded with {name} {by}, and {redacted(first.url)} with {made}"
            )
