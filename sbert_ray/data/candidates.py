"""Where the queries and documents of a reranking are: in the rows themselves, or in tables of texts by id."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, Literal

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from sbert_ray.data.dataset import RowReader
from sbert_ray.data.groups import GroupReader
from sbert_ray.data.kinds import comparable
from sbert_ray.data.lookup import Beat, LookupSource, TextLookup
from sbert_ray.data.rows import Rows, strings

Pair = tuple[str, str]


@dataclass(frozen=True)
class Candidates:
    """The columns of candidates, in one of three layouts; small enough to travel to the workers.

    ``pairs``: a row has a query and a document. ``lists``: a row has a query and a list of documents. ``ids``: a row
    has the ids of a query and a document, and their texts are in tables. Except in lists, rows with an equal query must
    be consecutive.

    Args:
        layout: which of the three.
        query_column: text of the query, or its id in ``ids``.
        document_column: text of the document, the list of them, or its id in ``ids``.
        query_id_column: id of the query; None: the query itself is.
        document_id_column: id of the document, or list of them; None: its row in the file, or its place in the list.
        queries: texts of queries, for ``ids``.
        documents: texts of documents, for ``ids``.
    """

    layout: Literal["pairs", "lists", "ids"]
    query_column: str
    document_column: str
    query_id_column: str | None = None
    document_id_column: str | None = None
    queries: LookupSource | None = None
    documents: LookupSource | None = None

    @property
    def columns(self) -> list[str]:
        """Columns that are read."""
        named = (self.query_id_column, self.query_column, self.document_id_column, self.document_column)
        return list(dict.fromkeys(name for name in named if name))

    @property
    def key(self) -> str:
        """The column that is equal in all rows of a query."""
        return self.query_id_column or self.query_column

    def grouped(self, reader: RowReader) -> Any:
        """Return what reads units with all rows of a query together."""
        return reader if self.layout == "lists" else GroupReader(reader, self.key)

    def groups(self, rows: Rows) -> NDArray[np.int64]:
        """Return the query of each row (N,), numbered in their order."""
        if self.layout == "lists":
            return np.arange(len(rows))
        keys = comparable(rows.table[self.key]).to_pylist()
        begins = [index == 0 or key != keys[index - 1] for index, key in enumerate(keys)]
        return np.cumsum(np.array(begins, dtype=np.int64)) - 1

    def owners(self, rows: Rows) -> NDArray[np.int64]:
        """Return the row of each candidate (M,)."""
        if self.layout != "lists":
            return np.arange(len(rows))
        return np.repeat(np.arange(len(rows)), _lengths(rows.table[self.document_column]))

    def query_ids(self, rows: Rows) -> pa.ChunkedArray:
        """Return the id of each row's query (N,)."""
        return rows.table[self.key]

    def document_ids(self, rows: Rows) -> pa.ChunkedArray:
        """Return the id of each candidate (M,)."""
        if self.document_id_column and self.layout == "lists":
            return _flattened(rows.table[self.document_id_column])
        if self.document_id_column or self.layout == "ids":
            return rows.table[self.document_id_column or self.document_column]
        if self.layout == "pairs":
            return pa.chunked_array([rows.positions])
        places = [np.arange(length) for length in _lengths(rows.table[self.document_column])]
        return pa.chunked_array([np.concatenate([np.empty(0, np.int64), *places])])

    def faults(self, rows: Rows) -> dict[int, str]:
        """Return why rows cannot be used, by index, as far as the rows themselves tell."""
        faults: dict[int, str] = {}
        for name in self.columns:
            column = rows.table[name]
            faults |= dict.fromkeys(np.flatnonzero(column.is_null()).tolist(), f"column {name!r} is null")
        if self.layout == "lists" and self.document_id_column:
            texts, ids = (_lengths(rows.table[name]) for name in (self.document_column, self.document_id_column))
            reason = f"{self.document_column!r} and {self.document_id_column!r} are lists of different lengths"
            faults |= dict.fromkeys(np.flatnonzero(texts != ids).tolist(), reason)
        return faults

    def opened(self) -> "CandidateTexts":
        """Return what finds the texts."""
        return CandidateTexts(self)


class CandidateTexts:
    """Finds the texts of candidates.

    Args:
        candidates: where they are.
    """

    def __init__(self, candidates: Candidates) -> None:
        self.candidates = candidates

    def read(self, rows: Rows, beat: Beat) -> tuple[Rows, dict[int, str]]:
        """Return rows with the texts in their columns, and why some cannot be used, by index.

        Args:
            rows: N rows.
            beat: called now and then, as a sign of life.
        """
        candidates = self.candidates
        faults = candidates.faults(rows)
        if candidates.layout == "ids":
            return self._joined(rows, faults, beat)
        texts = {}
        for name in (candidates.query_column, candidates.document_column):
            column = rows.table[name]
            if pa.types.is_list(column.type) or pa.types.is_large_list(column.type):
                column, invalid = _string_lists(column)
            else:
                values, invalid = strings(column)
                column = pa.chunked_array([pa.array(values, pa.string())])
            faults |= {index: f"column {name!r}: {reason}" for index, reason in invalid.items()}
            texts[name] = column
        return _with_columns(rows, texts), faults

    def _joined(self, rows: Rows, faults: dict[int, str], beat: Beat) -> tuple[Rows, dict[int, str]]:
        texts = {}
        for name, lookup in (("query", self._queries), ("document", self._documents)):
            ids = rows.table[getattr(self.candidates, f"{name}_column")]
            found, missing = lookup.texts(ids, beat)
            faults = {index: f"{name} {reason}" for index, reason in missing.items()} | faults
            texts[f"{name} text"] = pa.chunked_array([pa.array(found, pa.string())])
        return _with_columns(rows, texts), faults

    def pairs(self, rows: Rows) -> tuple[list[Pair], NDArray[np.int64]]:
        """Return the pairs of N rows, and the row of each (M,)."""
        candidates = self.candidates
        names = [candidates.query_column, candidates.document_column]
        if candidates.layout == "ids":
            names = ["query text", "document text"]
        queries, documents = (rows.table[name].to_pylist() for name in names)
        if candidates.layout == "lists":
            pairs = [(query, text) for query, texts in zip(queries, documents, strict=True) for text in texts]
        else:
            pairs = list(zip(queries, documents, strict=True))
        return pairs, candidates.owners(rows)

    @cached_property
    def _queries(self) -> TextLookup:
        assert self.candidates.queries is not None
        return TextLookup(self.candidates.queries)

    @cached_property
    def _documents(self) -> TextLookup:
        assert self.candidates.documents is not None
        return TextLookup(self.candidates.documents)

    def close(self) -> None:
        """Let go of what is kept on this machine."""
        if self.candidates.layout == "ids":
            self._queries.close()
            self._documents.close()


def _with_columns(rows: Rows, columns: dict[str, pa.ChunkedArray]) -> Rows:
    table = rows.table
    for name, column in columns.items():
        if name in table.column_names:
            table = table.set_column(table.column_names.index(name), name, column)
        else:
            table = table.append_column(name, column)
    return replace(rows, table=table)


def _lengths(column: pa.ChunkedArray) -> NDArray[np.int64]:
    return np.asarray(pc.list_value_length(column).fill_null(0).to_numpy(), dtype=np.int64)


def _flattened(column: pa.ChunkedArray) -> pa.ChunkedArray:
    return pa.chunked_array([chunk.flatten() for chunk in column.chunks], type=column.type.value_type)


def _string_lists(column: pa.ChunkedArray) -> tuple[pa.ChunkedArray, dict[int, str]]:
    """Return lists of texts, and why some are none, by index."""
    values, invalid = strings(_flattened(column))
    faults: dict[int, str] = {}
    lists: list[Sequence[str] | None] = []
    start = 0
    for index, length in enumerate(_lengths(column)):
        texts = values[start : start + length]
        if bad := [place for place, text in enumerate(texts) if text is None]:
            reason = invalid.get(start + bad[0])
            faults[index] = f"item {bad[0]} of the list is {f'bad: {reason}' if reason else 'null'}"
        lists.append([text or "" for text in texts])
        start += length
    return pa.chunked_array([pa.array(lists, pa.list_(pa.string()))]), faults
