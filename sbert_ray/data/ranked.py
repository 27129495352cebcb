"""What a unit of ranked candidates must hold, by its input rows."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from sbert_ray.data.candidates import Candidates
from sbert_ray.data.kinds import comparable, hashes
from sbert_ray.data.rows import Rows


def candidates_of(settings: Mapping[str, Any]) -> Candidates:
    """Return the columns of candidates by the settings of a plan."""
    ids = (settings["query_id_column"], settings["doc_id_column"])
    texts = (settings["query_column"], settings["document_column"])
    return Candidates(settings["layout"], *(ids if settings["layout"] == "ids" else texts), *ids)


def compare_ranked(candidates: Candidates, pieces: Sequence[Rows], table: pa.Table, top_k: int | None) -> list[str]:
    """Return what is wrong with the ranks of a unit.

    For each query there must be as many documents as it has candidates, but at most ``top_k``; they must be among them,
    with falling finite scores and ranks from 1.

    Args:
        candidates: where queries and documents are.
        pieces: the input rows less those in quarantine, whole groups each.
        table: the output.
        top_k: documents that were kept of each query; None: all.
    """
    if missing := [name for name in ("query_id", "doc_id", "score", "rank") if name not in table.column_names]:
        return [f"there are no columns {missing}; it has {table.column_names}"]
    queries, documents, groups = _expected(candidates, pieces)
    sizes = np.bincount(groups, minlength=len(queries))
    sizes = np.minimum(sizes, top_k) if top_k else sizes
    if len(table) != sizes.sum():
        return [f"{len(table)} rows, and the candidates of its queries make {sizes.sum()}"]
    owners = np.repeat(np.arange(len(queries)), sizes)  # (M,), the query of each row of the output
    problems = []
    if not comparable(table["query_id"]).equals(comparable(queries.take(pa.array(owners)))):
        problems.append("query_id is not that of the queries in their order")
    starts = np.concatenate([[0], np.cumsum(sizes)])[:-1]
    if not np.array_equal(table["rank"].to_numpy(), np.arange(len(owners)) - np.repeat(starts, sizes) + 1):
        problems.append("ranks do not count from 1 for each query")
    scores = table["score"].to_numpy()
    rises = (np.diff(scores) > 0) & (np.diff(owners) == 0)
    if not np.isfinite(scores).all() or rises.any():
        problems.append("scores are not finite, or do not fall with the ranks")
    if not _are_among(documents, groups, table["doc_id"], owners):
        problems.append("doc_id is not among the candidates of the query")
    return problems


def _expected(
    candidates: Candidates, pieces: Sequence[Rows]
) -> tuple[pa.ChunkedArray, pa.ChunkedArray, NDArray[np.int64]]:
    """Return the id of each query (Q,), the id of each candidate (M,), and the query of each candidate (M,)."""
    queries, documents, groups = [], [], []
    num_queries = 0
    for rows in pieces:
        group = candidates.groups(rows)  # (N,)
        firsts = np.flatnonzero(np.diff(group, prepend=-1))
        queries.append(candidates.query_ids(rows).take(pa.array(firsts)))
        documents.append(candidates.document_ids(rows))
        groups.append(group[candidates.owners(rows)] + num_queries)
        num_queries += len(firsts)
    return _concatenated(queries), _concatenated(documents), np.concatenate(groups)


def _concatenated(columns: Sequence[pa.ChunkedArray]) -> pa.ChunkedArray:
    return pa.chunked_array([chunk for column in columns for chunk in column.chunks], type=columns[0].type)


def _are_among(
    documents: pa.ChunkedArray, groups: NDArray[np.int64], found: pa.ChunkedArray, owners: NDArray[np.int64]
) -> bool:
    if found.type != documents.type:
        return False
    both = comparable(_concatenated([documents, found]))
    codes = _codes(both)
    keys = np.concatenate([groups, owners]) * (codes.max(initial=0) + 1) + codes
    wanted, num_wanted = np.unique(keys[: len(groups)], return_counts=True)
    given, num_given = np.unique(keys[len(groups) :], return_counts=True)
    if not np.isin(given, wanted).all():
        return False
    return bool((num_given <= num_wanted[np.searchsorted(wanted, given)]).all())


def _codes(column: pa.ChunkedArray) -> NDArray[np.int64]:
    """Return a number for each value, equal for equal values."""
    try:
        indices = column.combine_chunks().dictionary_encode().indices
    except pa.ArrowNotImplementedError:  # of structs and lists
        return np.unique(hashes(column), return_inverse=True)[1].astype(np.int64)
    return np.asarray(pc.fill_null(indices, -1).to_numpy().astype(np.int64) + 1)
