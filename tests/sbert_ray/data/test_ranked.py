"""What a unit of ranked candidates must hold, and that no row of the input is left out."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from sbert_ray.data.candidates import Candidates
from sbert_ray.data.dataset import Dataset
from sbert_ray.data.groups import GroupReader
from sbert_ray.data.manifest import Plan
from sbert_ray.data.ranked import compare_ranked
from sbert_ray.data.rows import Rows
from sbert_ray.data.storage import Storage
from sbert_ray.data.verify import _RankChecker

SETTINGS: dict[str, Any] = {
    "layout": "pairs", "query_column": "query", "document_column": "document", "query_id_column": None,
    "doc_id_column": None, "rows_per_unit": 100, "limit": None, "top_k": None,
}  # fmt: skip


def ranked(queries: list[Any], documents: list[Any], scores: list[float], ranks: list[int]) -> pa.Table:
    return pa.table({"query_id": queries, "doc_id": documents, "score": scores, "rank": pa.array(ranks, pa.int32())})


@pytest.mark.parametrize("ids", [[1, 2, 1], ["x", "y", "x"], [{"a": 1}, {"a": 2}, {"a": 1}], [[1], [2], [1]]])
def test_candidates_that_come_twice_are_there_twice(ids: list[Any]) -> None:
    table = pa.table({"query": ["q"] * 3, "document": ["a", "b", "a"], "did": ids})
    rows = Rows("x.parquet", table, np.arange(3))
    candidates = Candidates("pairs", "query", "document", None, "did")
    good = ranked(["q"] * 3, [ids[0], ids[2], ids[1]], [0.9, 0.9, 0.1], [1, 2, 3])
    assert compare_ranked(candidates, [rows], good, None) == []
    twice = ranked(["q"] * 3, [ids[0], ids[1], ids[1]], [0.9, 0.5, 0.1], [1, 2, 3])
    assert compare_ranked(candidates, [rows], twice, None) == ["doc_id is not among the candidates of the query"]


def test_a_unit_may_have_no_candidates() -> None:
    table = pa.table({"query": pa.array([], pa.string()), "document": pa.array([], pa.string())})
    rows = Rows("x.parquet", table, np.arange(0))
    empty = pa.table(
        {
            "query_id": table["query"],
            "doc_id": pa.array([], pa.int64()),
            "score": pa.array([], pa.float32()),
            "rank": [],
        }
    )
    assert compare_ranked(Candidates("pairs", "query", "document"), [rows], empty, None) == []


def checker_of(folder: Path) -> tuple[_RankChecker, Dataset]:
    plan = Plan("rerank", SETTINGS, [], 1, str(folder))
    dataset = Dataset.open(str(folder), *_RankChecker.opened(plan))
    return _RankChecker(Storage(str(folder)), plan, dataset), dataset


def test_a_row_that_is_in_no_group_is_missed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pq.write_table(pa.table({"query": ["a", "a", "b"], "document": ["x", "y", "z"]}), tmp_path / "in.parquet")
    checker, dataset = checker_of(tmp_path)
    [unit] = dataset.units(100)
    whole = ranked(["a", "a", "b"], [0, 1, 2], [0.9, 0.8, 0.7], [1, 2, 1])
    assert checker._compare_rows(unit, set(), whole) == []
    assert checker.missed() == []
    read = GroupReader.read

    def forgetful(*args: Any) -> Iterator[Rows]:
        first, *_ = read(*args)
        yield first

    monkeypatch.setattr(GroupReader, "read", forgetful)
    checker, _ = checker_of(tmp_path)
    assert checker._compare_rows(unit, set(), whole.slice(0, 2)) == []
    assert checker.missed() == ["1 row(s) of the input belong to no unit"]


def test_the_input_is_opened_as_the_job_opened_it(tmp_path: Path) -> None:
    """Texts may be of several types among the first lines, and of several string types in Parquet."""
    rows = [{"query": 5, "document": "x"}, {"query": "a", "document": "y"}]
    (tmp_path / "lines").mkdir()
    (tmp_path / "lines/x.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (tmp_path / "tables").mkdir()
    for name, kind in (("a", pa.string()), ("b", pa.large_string())):
        table = pa.table({"query": pa.array(["a"], kind), "document": ["x"]})
        pq.write_table(table, tmp_path / "tables" / f"{name}.parquet")
    for folder in ("lines", "tables"):
        checker, _ = checker_of(tmp_path / folder)
        assert checker.candidates.key == "query"
