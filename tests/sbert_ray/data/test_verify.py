"""Verification: a whole output passes, and every kind of damage is found."""

import dataclasses
import hashlib
import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from sbert_ray.data import verify as verification
from sbert_ray.data.errors import InputError
from sbert_ray.data.units import Unit
from sbert_ray.data.verify import verify
from tests.sbert_ray.data.ids import IDS
from tests.sbert_ray.data.output import SECOND, Edit, Paths, make, write_input

NUM_ROWS = 23


@pytest.fixture
def paths(tmp_path: Path) -> Paths:
    """An input of two files, and its output of six units of at most four rows."""
    paths = Paths(tmp_path)
    write_input(paths.input, [f"id-{row}" for row in range(NUM_ROWS)])
    make(paths.input, paths.output)
    return paths


@pytest.mark.parametrize("kind", ["parquet", "jsonl"])
@pytest.mark.parametrize("id_column", ["id", None])
@pytest.mark.parametrize("limit", [None, 5])
def test_a_whole_output_has_no_problems(kind: str, id_column: str | None, limit: int | None, tmp_path: Path) -> None:
    paths = Paths(tmp_path)
    write_input(paths.input, list(range(NUM_ROWS)), kind)
    make(paths.input, paths.output, id_column=id_column, limit=limit)
    verdict = paths.check()
    assert (verdict.problems, verdict.notes) == ([], [])
    assert verdict.units == verdict.num_units == len(paths.records)
    assert (verdict.rows, verdict.bad_rows) == (limit or NUM_ROWS, 0)


@pytest.mark.parametrize("name", IDS)
def test_ids_may_be_of_any_type(name: str, tmp_path: Path) -> None:
    paths = Paths(tmp_path)
    paths.input.mkdir()
    ids = pa.concat_arrays([IDS[name]] * 8)
    pq.write_table(pa.table({"id": ids, "text": ["x"] * len(ids)}), paths.input / "a.parquet")
    make(paths.input, paths.output, rows_per_unit=12, bad={1: "bad"})
    verdict = paths.check()
    assert (verdict.problems, verdict.bad_rows) == ([], 1)
    assert verdict.notes == ["3 ids occur more than once, 20 rows too many (a note, not a fault)"]
    paths.edit(lambda table: pa.concat_tables([table.slice(1), table.slice(0, 1)]))
    assert "id is not that of the input rows of a.parquet" in paths.problem()


@pytest.mark.parametrize(
    "ids",
    [
        [{"$oid": f"{row:024x}"} for row in range(NUM_ROWS)],
        [[row, row + 1] for row in range(NUM_ROWS)],
        [{"n": [row / 2]} for row in range(NUM_ROWS)],
    ],
    ids=["oid", "list", "nested"],
)
def test_ids_of_json_may_be_objects(ids: list[Any], tmp_path: Path) -> None:
    paths = Paths(tmp_path)
    write_input(paths.input, ids, "jsonl")
    make(paths.input, paths.output)
    assert (paths.check().problems, paths.check().notes) == ([], [])


def test_ids_may_be_dictionaries_of_their_own_in_each_part(tmp_path: Path) -> None:
    paths = Paths(tmp_path)
    paths.input.mkdir()
    ids = pa.chunked_array([pa.array([f"id-{row}"]).dictionary_encode() for row in range(NUM_ROWS)])
    pq.write_table(pa.table({"id": ids, "text": ["x"] * NUM_ROWS}), paths.input / "a.parquet", row_group_size=5)
    make(paths.input, paths.output, rows_per_unit=12)
    assert paths.check().problems == []


def test_the_verdict_grows(paths: Paths, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(verification, "WINDOW", 3)
    seen = [(verdict.units, verdict.rows) for verdict in verify(str(paths.output))]
    assert [units for units, _ in seen] == [0, 3, 6, 6]
    assert seen[-1][1] == NUM_ROWS


@pytest.mark.parametrize("hashes_per_pass", [10, 10**6])
def test_duplicate_ids_are_a_note(hashes_per_pass: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(verification, "HASHES_PER_PASS", hashes_per_pass)
    paths = Paths(tmp_path)
    write_input(paths.input, [f"id-{min(row, 20)}" if row != 9 else "id-3" for row in range(NUM_ROWS)])
    make(paths.input, paths.output)
    verdict = paths.check()
    assert verdict.problems == []
    assert verdict.notes == ["2 ids occur more than once, 3 rows too many (a note, not a fault)"]


def test_what_is_no_output_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"has no _manifest/plan\.json: it is not the output of a job"):
        list(verify(str(tmp_path)))


def test_an_input_that_moved_may_be_told(paths: Paths) -> None:
    moved = paths.input.rename(paths.input.parent / "moved")
    with pytest.raises(InputError, match="/in, or it does not exist"):
        paths.check()
    assert paths.check(input_url=str(moved)).problems == []


def test_an_input_whose_credentials_are_not_kept_must_be_told(paths: Paths) -> None:
    plan = paths.output / "_manifest" / "plan.json"
    document = json.loads(plan.read_text())
    document["plan"]["input"] = "https://***@host/in"
    plan.write_text(json.dumps(document))
    with pytest.raises(InputError, match=r"without its credentials, https://\*\*\*@host/in; give --input$"):
        paths.check()
    assert paths.check(input_url=str(paths.input)).problems == []


def test_an_input_that_changed_is_found(paths: Paths) -> None:
    write_input(paths.input, [f"id-{row}" for row in range(1, NUM_ROWS + 1)])
    (paths.input / "c.parquet").write_bytes((paths.input / "a.parquet").read_bytes())
    assert paths.check().problems == [
        "the input has changed since: 1 input file(s) added: c.parquet",
        "the input has changed since: 2 input file(s) changed: a.parquet, b.parquet",
    ]


def test_a_missing_success_is_found(paths: Paths) -> None:
    (paths.output / "_SUCCESS").unlink()
    assert paths.problem() == "there is no _SUCCESS: the job has not finished; run it again"


REDO = f"; remove data/{SECOND} and run the job again"
DAMAGED = f"data/{SECOND}: the file is not what was written (other size or checksum){REDO}"


def test_a_truncated_file_is_found(paths: Paths) -> None:
    paths.second.write_bytes(paths.second.read_bytes()[:-10])
    assert paths.problem() == DAMAGED


def test_a_flipped_byte_is_found(paths: Paths) -> None:
    data = bytearray(paths.second.read_bytes())
    data[len(data) // 2] ^= 1
    paths.second.write_bytes(data)
    assert paths.problem() == DAMAGED


def test_a_removed_file_is_found(paths: Paths) -> None:
    paths.second.unlink()
    assert paths.problem() == f"data/{SECOND}: the file is missing; run the job again"


def test_a_file_that_is_no_parquet_is_found(paths: Paths) -> None:
    data = b"written so"
    paths.second.write_bytes(data)
    new = {"num_bytes": len(data), "sha256": hashlib.sha256(data).hexdigest()}
    paths.records = [dataclasses.replace(r, **new) if r.unit == 1 else r for r in paths.records]
    assert paths.problem().startswith(f"data/{SECOND}: the file cannot be read: ")


def test_a_removed_record_is_found(paths: Paths) -> None:
    total = len(paths.records)
    paths.records = [record for record in paths.records if record.unit != 1]
    assert paths.check().problems == [
        f"1 of {total} units are not done, the first is 1; run the job again",
        f"data/{SECOND} is not in the manifest; run the job again, or remove it",
    ]


def test_a_duplicated_record_is_found(paths: Paths) -> None:
    paths.records = [*paths.records, paths.records[1]]
    assert paths.problem() == "the manifest has a record too many of unit 1"


def test_a_record_of_a_unit_that_was_never_planned_is_found(paths: Paths) -> None:
    paths.records = [*paths.records, dataclasses.replace(paths.records[1], unit=99)]
    assert paths.problem() == "the manifest has a record too many of unit 99"


def test_a_stray_file_is_found(paths: Paths) -> None:
    (paths.output / "data" / "extra.parquet").write_bytes(paths.second.read_bytes())
    assert paths.problem() == "data/extra.parquet is not in the manifest; run the job again, or remove it"


ORDER = "is not that of the input rows of a.parquet [4:8] in their order"


def swap(table: pa.Table) -> pa.Table:
    return table.take([0, 2, 1, 3])


def rename(table: pa.Table) -> pa.Table:
    ids = table["id"].to_pylist()
    return table.set_column(0, "id", [[*ids[:3], "other"]])


def repeat(table: pa.Table) -> pa.Table:
    return pa.concat_tables([table, table.slice(3)])


def embeddings(values: list[Any]) -> Edit:
    def change(table: pa.Table) -> pa.Table:
        column = pa.array(values, pa.list_(pa.float32(), 2))
        return table.set_column(table.schema.get_field_index("embedding"), "embedding", column)

    return change


UNUSABLE = "some embedding is null, or has a value that is no finite number"
GOOD = [1.0, 2.0]


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        (swap, f"id {ORDER}, first in row 1"),
        (rename, f"id {ORDER}, first in row 3"),
        (repeat, "5 rows, and a.parquet [4:8] has 4 less those in quarantine"),
        (lambda table: table.slice(1), "3 rows, and a.parquet [4:8] has 4 less those in quarantine"),
        (lambda table: table.drop_columns("id"), "there is no column 'id'; it has ['embedding']"),
        (lambda table: table.set_column(0, "id", [list(range(4))]), "id is int64, and string in the input"),
        (embeddings([GOOD, [1.0, float("nan")], GOOD, GOOD]), UNUSABLE),
        (embeddings([GOOD, [1.0, float("inf")], GOOD, GOOD]), UNUSABLE),
        (embeddings([GOOD, [1.0, None], GOOD, GOOD]), UNUSABLE),
        (embeddings([GOOD, None, GOOD, GOOD]), UNUSABLE),
    ],
    ids=["swapped", "renamed", "repeated", "missing", "no ids", "other ids", "NaN", "infinite", "null", "null row"],
)
def test_rows_that_were_written_wrong_are_found(change: Edit, problem: str, paths: Paths) -> None:
    paths.edit(change)
    assert paths.check().problems[0] == f"data/{SECOND}: {problem}{REDO}"


def test_rows_in_wrong_order_are_found_without_ids(tmp_path: Path) -> None:
    paths = Paths(tmp_path)
    write_input(paths.input, list(range(NUM_ROWS)))
    make(paths.input, paths.output, id_column=None)
    assert paths.check().problems == []
    paths.edit(swap)
    assert paths.problem() == f"data/{SECOND}: source_position {ORDER}, first in row 1{REDO}"


def test_two_files_with_each_others_rows_are_found(paths: Paths) -> None:
    a, b, *rest = paths.records
    paths.records = [dataclasses.replace(a, unit=1), dataclasses.replace(b, unit=0), *rest]
    problems = paths.check().problems
    assert len(problems) == 2
    assert all("is not that of the input rows" in problem for problem in problems)


def test_a_wrong_number_of_rows_in_the_manifest_is_found(paths: Paths) -> None:
    paths.records = [dataclasses.replace(r, rows=9) if r.unit == 1 else r for r in paths.records]
    assert paths.problem() == f"data/{SECOND}: 4 rows, and 9 in the manifest{REDO}"


def test_another_schema_is_found(paths: Paths) -> None:
    paths.edit(lambda table: table.append_column("more", [[1] * len(table)]))
    assert paths.problem().startswith(f"data/{SECOND}: another schema than in the files before it: id: string")


@pytest.mark.parametrize("dtype", [np.int8, np.float16])
def test_embeddings_of_other_precisions_are_whole(dtype: type, tmp_path: Path) -> None:
    paths = Paths(tmp_path)
    write_input(paths.input, list(range(NUM_ROWS)))

    def edit(unit: Unit, table: pa.Table) -> pa.Table:
        column = pa.FixedSizeListArray.from_arrays(pa.array(np.ones(2 * len(table), dtype)), 2)
        return table.set_column(1, "embedding", column)

    make(paths.input, paths.output, edit=edit)
    assert paths.check().problems == []


def test_a_kept_column_of_lists_may_hold_nulls(tmp_path: Path) -> None:
    paths = Paths(tmp_path)
    write_input(paths.input, list(range(NUM_ROWS)))

    def edit(unit: Unit, table: pa.Table) -> pa.Table:
        boxes = [None, [float("nan"), None], *[[0.0, 1.0]] * len(table)][: len(table)]
        return table.append_column("box", pa.array(boxes, pa.list_(pa.float32(), 2)))

    make(paths.input, paths.output, edit=edit)
    assert paths.check().problems == []
