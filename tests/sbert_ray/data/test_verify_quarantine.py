"""Verification of the rows in quarantine: each bad row is there, and what damages their files is told."""

import dataclasses
from pathlib import Path

import pytest

from tests.sbert_ray.data.output import SECOND, Paths, make, write_input

NUM_ROWS = 23
QUARANTINE = "_quarantine/part-00000001.jsonl"


@pytest.mark.parametrize("kind", ["parquet", "jsonl"])
@pytest.mark.parametrize("id_column", ["id", None])
def test_rows_in_quarantine_are_accounted_for(kind: str, id_column: str | None, tmp_path: Path) -> None:
    paths = Paths(tmp_path)
    write_input(paths.input, list(range(NUM_ROWS)), kind)
    if kind == "jsonl":
        (paths.input / "b.jsonl").write_text((paths.input / "b.jsonl").read_text() + "not JSON\n")
    make(paths.input, paths.output, id_column=id_column, bad={0: "bad"})
    verdict = paths.check()
    assert verdict.problems == []
    assert verdict.rows + verdict.bad_rows == NUM_ROWS + (kind == "jsonl")
    assert verdict.bad_rows == (2 if kind == "parquet" else 3)


@pytest.fixture
def paths(tmp_path: Path) -> Paths:
    """An input of two files, and its output with a bad row in the second unit."""
    paths = Paths(tmp_path)
    write_input(paths.input, [f"id-{row}" for row in range(NUM_ROWS)])
    make(paths.input, paths.output, bad={5: "bad"})
    return paths


@pytest.fixture
def with_bad_row(paths: Paths) -> Path:
    """The file of that row."""
    assert paths.check().problems == []
    return paths.output / "_quarantine" / "part-00000001.jsonl"


def test_a_lost_quarantine_is_found(paths: Paths, with_bad_row: Path) -> None:
    with_bad_row.unlink()
    assert paths.problem() == f"data/{SECOND}: {QUARANTINE} is missing, with 1 bad row(s); run the job again"


def test_a_quarantine_of_other_rows_is_found(paths: Paths, with_bad_row: Path) -> None:
    with_bad_row.write_text('{"position": 99}\n')
    assert paths.problem() == (
        f"data/{SECOND}: {QUARANTINE} has rows that the input lacks: [99]; remove data/{SECOND} and run the job again"
    )


@pytest.mark.parametrize(
    ("data", "problem"),
    [
        (b'{"file": "a.parq', f"{QUARANTINE}, line 1 is damaged: invalid JSON: Unterminated string"),
        (b'{"position": 5}\n\xff\n', f"{QUARANTINE}, line 2 is damaged: invalid UTF-8 at byte 0 of the line"),
        (b'{"position": null}\n', f"{QUARANTINE}, line 1 is damaged: position must be a number, got None"),
        (b"[5]\n", f"{QUARANTINE}, line 1 is damaged: a line must be a JSON object, got list"),
        (b"", f"0 rows in {QUARANTINE}, and 1 in the manifest"),
        (b'{"position": 5}\n{"position": 6}\n', f"2 rows in {QUARANTINE}, and 1 in the manifest"),
    ],
    ids=["truncated", "bytes", "null", "list", "empty", "more"],
)
def test_a_damaged_quarantine_is_named_with_what_to_do(
    data: bytes, problem: str, paths: Paths, with_bad_row: Path
) -> None:
    with_bad_row.write_bytes(data)
    found = paths.problem()
    assert found.startswith(f"data/{SECOND}: {problem}")
    assert found.endswith(f"; remove {QUARANTINE} and run the job again")


def test_an_unreadable_line_that_was_dropped_is_found(tmp_path: Path) -> None:
    paths = Paths(tmp_path)
    paths.input.mkdir()
    (paths.input / "a.jsonl").write_text('{"id": 1, "text": "x"}\nnot JSON\n')
    make(paths.input, paths.output)
    (paths.output / "_quarantine" / "part-00000000.jsonl").unlink()
    paths.records = [dataclasses.replace(record, bad_rows=0) for record in paths.records]
    assert paths.problem() == (
        "data/part-00000000.parquet: the input has bad rows that are not in _quarantine/part-00000000.jsonl: [23];"
        " remove data/part-00000000.parquet and run the job again"
    )


def test_a_row_that_lacks_an_id_must_be_in_quarantine(tmp_path: Path) -> None:
    paths = Paths(tmp_path)
    paths.input.mkdir()
    (paths.input / "a.jsonl").write_text('{"id": 1, "text": "x"}\n{"text": "y"}\n{"id": null, "text": "z"}\n')
    make(paths.input, paths.output)
    verdict = paths.check()
    assert (verdict.problems, verdict.rows, verdict.bad_rows) == ([], 2, 1)
    (paths.output / "_quarantine" / "part-00000000.jsonl").unlink()
    paths.records = [dataclasses.replace(record, bad_rows=0) for record in paths.records]
    assert "the input has bad rows that are not in _quarantine/part-00000000.jsonl: [23]" in paths.problem()
