"""Texts by id: the first process of a machine copies them, the last one removes them."""

import json
import multiprocessing
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from sbert_ray.data.errors import InputError
from sbert_ray.data.lookup import LookupSource, TextLookup

TEXTS = {f"d{row}": f"text {row} \u4f60\u597d" for row in range(1000)} | {"": "of the empty id", "empty": ""}


def nothing(num_rows: int) -> None:
    assert num_rows == 0


def write(path: Path, ids: list[Any], texts: list[Any], kind: pa.DataType | None = None) -> Path:
    path.mkdir(exist_ok=True)
    half = len(ids) // 2
    for name, part in (("a", slice(half)), ("b", slice(half, None))):
        table = pa.table({"id": pa.array(ids[part], kind), "text": pa.array(texts[part], pa.string())})
        pq.write_table(table, path / f"{name}.parquet", row_group_size=100)
    return path


@pytest.fixture
def source(tmp_path: Path) -> LookupSource:
    return LookupSource.of(str(write(tmp_path / "texts", list(TEXTS), list(TEXTS.values()))), "id", "text")


@pytest.fixture
def lookup(source: LookupSource, tmp_path: Path) -> Iterator[TextLookup]:
    found = TextLookup(source, str(tmp_path / "disk"))
    yield found
    found.close()


def test_every_text_is_found_by_its_id(lookup: TextLookup) -> None:
    ids = np.random.default_rng(0).choice(list(TEXTS), 3000)
    texts, faults = lookup.texts(pa.chunked_array([ids[:7].tolist(), ids[7:].tolist()]), nothing)
    assert texts == [TEXTS[name] for name in ids]
    assert not faults


@pytest.mark.parametrize("kind", [pa.int64(), pa.uint8(), pa.binary(), pa.large_string(), pa.float64(), pa.date32()])
def test_ids_of_any_type_are_found(kind: pa.DataType, tmp_path: Path) -> None:
    plain = pa.array(range(100), pa.int32())
    column = (plain.cast(pa.string()) if kind in (pa.binary(), pa.large_string()) else plain).cast(kind)
    folder = write(tmp_path / "texts", column.to_pylist(), [f"text {row}" for row in range(100)], kind)
    found = TextLookup(LookupSource.of(str(folder), "id", "text"), str(tmp_path / "disk"))
    wanted = pa.chunked_array([column.take(pa.array([42, 7, 7, 99]))])
    assert found.texts(wanted, nothing) == (["text 42", "text 7", "text 7", "text 99"], {})
    found.close()


def test_what_is_missing_or_null_is_told(tmp_path: Path) -> None:
    folder = write(tmp_path / "texts", [1, 2, 3], ["one", None, "three"])
    found = TextLookup(LookupSource.of(str(folder), "id", "text"), str(tmp_path / "disk"))
    texts, faults = found.texts(pa.chunked_array([[3, 2, 4, None]]), nothing)
    assert texts == ["three", None, None, None]
    assert faults.keys() == {1, 2, 3}
    assert faults[2] == f"4 is not in column 'id' of {folder}, or its text is null"
    found.close()


@pytest.mark.parametrize("ids", [[1, 2, 1], ["x", "y", "x"]])
def test_an_id_that_is_there_twice_is_an_error_and_leaves_nothing(ids: list[Any], tmp_path: Path) -> None:
    folder = write(tmp_path / "texts", ids, ["one", "two", "another"])
    found = TextLookup(LookupSource.of(str(folder), "id", "text"), str(tmp_path / "disk"))
    with pytest.raises(InputError, match=f"column 'id' of {folder} must hold each id once, and has '{ids[0]}' twice"):
        found.texts(pa.chunked_array([ids]), nothing)
    [base] = (tmp_path / "disk").iterdir()
    assert [path.suffix for path in base.iterdir()] == [".lock"]


def test_equal_hashes_are_told_apart(source: LookupSource, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sbert_ray.data.lookup.hashes", lambda ids: np.arange(len(ids), dtype=np.uint64) % 3)
    found = TextLookup(source, str(tmp_path / "disk"))
    found.open(nothing)
    monkeypatch.setattr("sbert_ray.data.lookup.hashes", lambda ids: np.zeros(len(ids), np.uint64))
    texts, _ = found.texts(pa.chunked_array([["d0", "d3", "d1"]]), nothing)
    assert texts == [TEXTS["d0"], TEXTS["d3"], None]  # the hash of the last one is 1
    found.close()


def test_a_bad_line_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "texts.jsonl").write_text(json.dumps({"id": 1, "text": "one"}) + "\nno JSON\n")
    found = TextLookup(LookupSource.of(str(tmp_path / "texts.jsonl"), "id", "text"), str(tmp_path / "disk"))
    with pytest.raises(InputError, match=r"holds a text that cannot be read: invalid JSON"):
        found.open(nothing)


def hold(source: LookupSource, folder: str, ready: Any, done: Any) -> None:
    found = TextLookup(source, folder)
    found.open(nothing)
    ready.set()
    done.wait(60)
    found.close()


def test_processes_share_one_copy_and_the_last_one_removes_it(source: LookupSource, tmp_path: Path) -> None:
    context = multiprocessing.get_context("spawn")
    ready, done = context.Event(), context.Event()
    other = context.Process(target=hold, args=(source, str(tmp_path / "disk"), ready, done))
    other.start()
    assert ready.wait(60)
    mine = TextLookup(source, str(tmp_path / "disk"))
    inode = (mine.folder / "bytes").stat().st_ino
    mine.open(nothing)
    assert (mine.folder / "bytes").stat().st_ino == inode
    mine.close()
    assert mine.folder.exists()
    done.set()
    other.join(60)
    assert not mine.folder.exists()


def test_the_digest_tells_of_changed_files(tmp_path: Path) -> None:
    before = LookupSource.of(str(write(tmp_path / "texts", [1, 2], ["one", "two"])), "id", "text")
    moved = LookupSource.of(str(write(tmp_path / "moved", [1, 2], ["one", "two"])), "id", "text")
    changed = LookupSource.of(str(write(tmp_path / "texts", [1, 2], ["one", "too"])), "id", "text")
    assert before.digest == moved.digest != changed.digest


def test_a_copy_of_which_a_part_is_gone_is_made_anew(source: LookupSource, tmp_path: Path) -> None:
    lookup = TextLookup(source, str(tmp_path / "disk"))
    lookup.open(nothing)
    for name in ("hashes.npy", "bytes", "sizes.json"):
        (lookup.folder / name).unlink()
        lookup._lock.close()  # as if its process had been killed
        lookup = TextLookup(source, str(tmp_path / "disk"))
        assert lookup.texts(pa.chunked_array([["d7"]]), nothing)[0] == [TEXTS["d7"]]
    lookup.close()


def test_what_a_killed_process_began_is_removed(lookup: TextLookup) -> None:
    making = lookup.folder.with_suffix(".making")
    making.mkdir()
    (making / "bytes").write_bytes(b"half of it")
    lookup.open(nothing)
    assert not making.exists()


@pytest.mark.parametrize("kind", ["link", "open to all"])
def test_a_folder_that_others_could_write_to_is_refused(kind: str, source: LookupSource, tmp_path: Path) -> None:
    foreign = tmp_path / "foreign"
    foreign.mkdir()
    foreign.chmod(0o777)
    base = tmp_path / f"sbert-ray-lookups-{os.getuid()}"
    base.symlink_to(foreign) if kind == "link" else foreign.rename(base)
    with pytest.raises(InputError, match="must be a folder of this user's alone"):
        TextLookup(source, str(tmp_path))


def test_a_table_may_hold_no_text_at_all(tmp_path: Path) -> None:
    folder = write(tmp_path / "texts", ["a", "b"], [None, None])
    found = TextLookup(LookupSource.of(str(folder), "id", "text"), str(tmp_path / "disk"))
    assert found.texts(pa.chunked_array([["a"]]), nothing)[1].keys() == {0}
    found.close()


def test_the_table_is_decoded_once(source: LookupSource, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    read: list[int] = []
    monkeypatch.setattr("sbert_ray.data.lookup.ROWS_PER_READ", 64)
    stream = type(source.reader).stream
    monkeypatch.setattr(
        type(source.reader), "stream", lambda *a: (read.append(len(rows)) or rows for rows in stream(*a))
    )
    found = TextLookup(source, str(tmp_path / "disk"))
    found.open(nothing)
    assert sum(read) == len(TEXTS)
    found.close()


def come_and_go(source: LookupSource, folder: str, times: int) -> None:
    for _ in range(times):
        found = TextLookup(source, folder)
        assert found.texts(pa.chunked_array([["d7"]]), nothing)[0] == [TEXTS["d7"]]
        found.close()


def test_many_that_come_and_go_leave_nothing(source: LookupSource, tmp_path: Path) -> None:
    context = multiprocessing.get_context("fork")
    processes = [context.Process(target=come_and_go, args=(source, str(tmp_path / "disk"), 20)) for _ in range(4)]
    for process in processes:
        process.start()
    for process in processes:
        process.join(60)
    assert [process.exitcode for process in processes] == [0] * 4
    [base] = (tmp_path / "disk").iterdir()
    assert list(base.iterdir()) == []
