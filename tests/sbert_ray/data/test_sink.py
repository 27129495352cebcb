"""Committing units: nothing shows before, everything at once, and the first attempt stays."""

import hashlib
import json
from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from sbert_ray.data.rows import BadRow
from sbert_ray.data.sink import Committed, digest, unit_output, with_metadata
from sbert_ray.data.storage import Storage
from sbert_ray.data.units import Unit

UNIT = Unit(3, "a.parquet", 0, 4)
FILE, QUARANTINE = "data/part-00000003.parquet", "_quarantine/part-00000003.jsonl"
SCHEMA = pa.schema([("id", pa.int64()), ("embedding", pa.list_(pa.float32(), 2))])
Attempt = Callable[..., Committed]


@pytest.fixture
def storage(tmp_path: Path) -> Storage:
    return Storage(str(tmp_path / "out"))


@pytest.fixture
def attempt(storage: Storage) -> Attempt:
    """Commit a unit of four rows, of which those at the given positions are bad."""

    def run(value: float = 0.5, bad: tuple[int, ...] = ()) -> Committed:
        ids = [row for row in range(4) if row not in bad]
        with unit_output(storage, UNIT) as output:
            output.write(table(ids, value))
            output.bad.extend(BadRow("a.parquet", row, f"reason {value}") for row in bad)
            return output.commit()

    return run


def table(ids: list[int], value: float = 0.5) -> pa.Table:
    return pa.table({"id": ids, "embedding": [[value, value]] * len(ids)}, schema=SCHEMA)


def files(storage: Storage) -> list[str]:
    root = Path(storage.url)
    return sorted(str(path.relative_to(root)) for path in root.rglob("*") if path.is_file())


def test_a_commit_tells_what_is_there(storage: Storage, attempt: Attempt) -> None:
    committed = attempt()
    data = (Path(storage.url) / FILE).read_bytes()
    assert committed == Committed(FILE, 4, 0, len(data), hashlib.sha256(data).hexdigest())
    assert digest(Path(storage.url) / FILE) == committed.sha256
    assert pq.read_table(Path(storage.url) / FILE).equals(table([0, 1, 2, 3]))
    assert files(storage) == [FILE]


def test_nothing_shows_before_the_commit(storage: Storage) -> None:
    with unit_output(storage, UNIT) as output:
        output.write(table([1, 2]))
        assert not storage.exists(FILE)
        output.bad.append(BadRow("a.parquet", 0, "bad"))
    assert files(storage) == []


def test_a_failure_leaves_no_trace(storage: Storage) -> None:
    def fail() -> None:
        with unit_output(storage, UNIT) as output:
            output.write(table([1, 2]))
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fail()
    assert files(storage) == []


def test_equal_attempts_give_equal_bytes(storage: Storage, attempt: Attempt) -> None:
    first = attempt()
    storage.remove(FILE)
    assert attempt() == first


def test_the_first_attempt_stays_and_is_what_gets_recorded(storage: Storage, attempt: Attempt) -> None:
    first = attempt(0.5)
    assert attempt(0.25) == first
    assert pq.read_table(Path(storage.url) / FILE)["embedding"][0].as_py() == [0.5, 0.5]
    assert files(storage) == [FILE]


@pytest.mark.parametrize(("first_bad", "second_bad"), [((1,), (2,)), ((1,), ()), ((), (1, 2)), ((0, 1), (3,))])
def test_a_late_attempt_changes_neither_rows_nor_quarantine(
    first_bad: tuple[int, ...], second_bad: tuple[int, ...], storage: Storage, attempt: Attempt
) -> None:
    first = attempt(0.5, first_bad)
    before = {name: storage.read(name) for name in files(storage)}
    assert (first.rows, first.bad_rows) == (4 - len(first_bad), len(first_bad))
    assert attempt(0.25, second_bad) == first
    assert {name: storage.read(name) for name in files(storage)} == before


def test_a_late_attempt_completes_one_that_died_before_its_quarantine(storage: Storage, attempt: Attempt) -> None:
    first = attempt(0.5, (1,))
    quarantine = storage.read(QUARANTINE)
    storage.remove(QUARANTINE)
    assert attempt(0.5, (1,)) == first
    assert storage.read(QUARANTINE) == quarantine


def test_the_quarantine_holds_a_line_for_each_bad_row(storage: Storage) -> None:
    with unit_output(storage, UNIT) as output:
        output.write(table([]))
        output.bad += [BadRow("a.parquet", 7, "bad", 5, "\u20ac\n"), BadRow("a.parquet", 8, "worse", None, "\ud800")]
        committed = output.commit()
    assert (committed.rows, committed.bad_rows) == (0, 2)
    lines = storage.read(QUARANTINE).splitlines()
    assert "\u20ac".encode() in lines[0]
    assert [json.loads(line) for line in lines] == [
        {"file": "a.parquet", "position": 7, "reason": "bad", "id": 5, "text": "\u20ac\n"},
        {"file": "a.parquet", "position": 8, "reason": "worse", "id": None, "text": "\ud800"},
    ]


def test_a_unit_without_rows_still_has_its_schema(storage: Storage) -> None:
    with unit_output(storage, UNIT) as output:
        output.write(table([]))
        committed = output.commit()
    assert committed.rows == 0
    found = pq.read_table(Path(storage.url) / FILE)
    assert found.schema.equals(SCHEMA)
    assert found.num_rows == 0


def test_each_table_becomes_a_row_group(storage: Storage) -> None:
    with unit_output(storage, UNIT) as output:
        for ids in ([1, 2, 3], [], [4]):
            output.write(table(ids))
        assert output.commit().rows == 4
    metadata = pq.read_metadata(Path(storage.url) / FILE)
    assert [metadata.row_group(index).num_rows for index in range(metadata.num_row_groups)] == [3, 1]
    assert pq.read_table(Path(storage.url) / FILE)["id"].to_pylist() == [1, 2, 3, 4]


def test_columns_of_every_kind_are_written_back(storage: Storage) -> None:
    source = pa.table(
        {
            "id": pa.array(["a", "b"]).dictionary_encode(),
            "tags": [["x"], []],
            "meta": [{"n": 1}, None],
            "embedding": pa.array([[1, 2], [3, 4]], pa.list_(pa.int8(), 2)),
        }
    )
    with unit_output(storage, UNIT) as output:
        output.write(source)
        output.commit()
    assert pq.read_table(Path(storage.url) / FILE).equals(source)


def test_metadata_is_json_beside_what_was_there(storage: Storage) -> None:
    source = table([1]).replace_schema_metadata({"mine": "kept"})
    with unit_output(storage, UNIT) as output:
        output.write(with_metadata(source, {"model": "m", "dimension": 2, "prompt": None}))
        output.commit()
    metadata = pq.read_schema(Path(storage.url) / FILE).metadata
    assert metadata[b"mine"] == b"kept"
    assert json.loads(metadata[b"sbert_ray"]) == {"model": "m", "dimension": 2, "prompt": None}
