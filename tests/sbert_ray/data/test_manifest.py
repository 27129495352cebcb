"""The manifest: what is done stays done, what is lost is redone, and another plan is refused."""

import dataclasses
import json
import shutil
import uuid
from pathlib import Path
from typing import Any

import pytest

from sbert_ray.data import manifest as manifests
from sbert_ray.data.errors import InputError, PlanChangedError
from sbert_ray.data.manifest import Manifest, Plan, Record
from sbert_ray.data.storage import Storage

SEGMENT = 10
FILES = [{"name": f"{name}.parquet", "size": 10, "identity": name, "rows": 5} for name in "abc"]


def make_plan(num_units: int = 4, **settings: Any) -> Plan:
    return Plan("embed", {"prompt": None, "text_column": ["text"], **settings}, FILES, num_units, "/data/in")


@pytest.fixture(params=["local", "memory"])
def storage(request: pytest.FixtureRequest, tmp_path: Path) -> Storage:
    return Storage(str(tmp_path / "out") if request.param == "local" else f"memory://{tmp_path.as_posix()}")


def commit(storage: Storage, unit: int, bad_rows: int = 0, run: int = 0) -> Record:
    name = f"data/part-{unit:08d}.parquet"
    storage.write(name, b"x" * (unit + 1))
    if bad_rows:
        storage.write(f"_quarantine/part-{unit:08d}.jsonl", b"{}\n" * bad_rows)
    return Record(unit, name, 5, bad_rows, unit + 1, "digest", run)


def begin(storage: Storage, num_units: int = 4, done: int = 0) -> Manifest:
    manifest = Manifest.open(storage, make_plan(num_units))
    for unit in range(done):
        manifest.append([commit(storage, unit)])
    return manifest


def test_a_new_output_has_its_plan_and_nothing_done(storage: Storage) -> None:
    assert Manifest.read_plan(storage) is None
    manifest = begin(storage)
    assert (manifest.num_done, manifest.run, list(manifest.records(storage))) == (0, 0, [])
    assert Manifest.read_plan(storage) == manifest.plan
    document = json.loads(storage.read(Manifest.PLAN))
    assert document["fingerprint"] == manifest.plan.fingerprint


def test_a_plan_is_kept_without_credentials(storage: Storage) -> None:
    plan = dataclasses.replace(make_plan(), input="https://me:secret@host/in/*.parquet?sig=secret")
    Manifest.open(storage, plan)
    assert b"secret" not in storage.read(Manifest.PLAN)
    kept = Manifest.read_plan(storage)
    assert kept is not None
    assert kept.input == "https://***@host/in/*.parquet?***"
    assert kept.fingerprint == plan.fingerprint


def test_messages_about_an_output_lack_its_credentials(monkeypatch: pytest.MonkeyPatch) -> None:
    storage = Storage(f"memory://me:secret@{uuid.uuid4().hex}")
    begin(storage)
    for run in (lambda: Manifest.open(storage, make_plan(5)), lambda: Manifest.finished_files(storage)):
        with pytest.raises(InputError, match=r"^memory://\*\*\*@\w+ ") as raised:
            run()
        assert "secret" not in str(raised.value)
    monkeypatch.setattr(Storage, "locate", lambda _, name: f"https://me:secret@host/{name}?sig=secret")
    storage.write(Manifest.PLAN, b"{")
    with pytest.raises(InputError, match=r"^https://\*\*\*@host/_manifest/plan.json\?\*\*\* is damaged"):
        Manifest.read_plan(storage)


def test_what_was_committed_is_done_in_the_next_run(storage: Storage) -> None:
    begin(storage, done=2)
    again = begin(storage)
    assert list(again.done) == [1, 1, 0, 0]
    assert again.run == 1
    again.append([commit(storage, 3, run=1)])
    third = begin(storage)
    assert list(third.done) == [1, 1, 0, 1]
    assert third.run == 2
    assert [record.unit for record in third.records(storage)] == [0, 1, 3]


def test_a_record_comes_back_as_it_was(storage: Storage) -> None:
    record = dataclasses.replace(commit(storage, 1), attempts=3, stats={"tokens": 5, "seconds": {"read": 0.1}})
    Manifest(storage, make_plan()).append([record])
    assert list(Manifest.records(storage)) == [record]


@pytest.mark.parametrize("loss", ["removed", "truncated", "longer"])
def test_a_lost_file_is_redone(loss: str, storage: Storage) -> None:
    begin(storage, done=4).succeed()
    if loss == "removed":
        storage.remove("data/part-00000002.parquet")
    else:
        storage.write("data/part-00000002.parquet", b"x" * (1 if loss == "truncated" else 9))
    assert storage.exists(Manifest.SUCCESS)
    manifest = begin(storage)
    manifest.clean()
    assert list(manifest.done) == [1, 1, 0, 1]
    assert not storage.exists(Manifest.SUCCESS)
    assert not storage.exists("data/part-00000002.parquet")
    with pytest.raises(InputError, match="has not finished"):
        Manifest.finished_files(storage)
    manifest.append([commit(storage, 2)])
    assert list(begin(storage).done) == [1, 1, 1, 1]


def test_a_unit_whose_bad_rows_are_lost_is_redone(storage: Storage) -> None:
    manifest = begin(storage)
    manifest.append(commit(storage, unit, bad_rows=unit % 2) for unit in range(4))
    manifest.succeed()
    assert begin(storage).num_done == 4
    assert storage.exists(Manifest.SUCCESS)
    storage.remove("_quarantine/part-00000003.jsonl")
    manifest = begin(storage)
    manifest.clean()
    assert list(manifest.done) == [1, 1, 1, 0]
    assert not storage.exists(Manifest.SUCCESS)
    assert set(storage.sizes("data")) == {f"part-0000000{unit}.parquet" for unit in range(3)}
    assert set(storage.sizes("_quarantine")) == {"part-00000001.jsonl"}
    manifest.append([commit(storage, 3, bad_rows=1)])
    assert begin(storage).num_done == 4


def test_the_quarantine_is_listed_once(storage: Storage, monkeypatch: pytest.MonkeyPatch) -> None:
    begin(storage).append(commit(storage, unit, bad_rows=1) for unit in range(4))
    original, listed = Storage.sizes, []

    def sizes(self: Storage, folder: str) -> dict[str, int]:
        listed.append(folder)
        return original(self, folder)

    monkeypatch.setattr(Storage, "sizes", sizes)
    begin(storage)
    assert listed.count("_quarantine") == listed.count("data") == 1


def test_a_finished_output_stays_finished(storage: Storage) -> None:
    begin(storage, done=4).succeed()
    manifest = begin(storage)
    manifest.clean()
    assert storage.exists(Manifest.SUCCESS)
    assert Manifest.finished_files(storage) == {f"data/part-0000000{unit}.parquet": unit + 1 for unit in range(4)}


def test_files_without_rows_are_no_part_of_the_dataset(storage: Storage) -> None:
    manifest = begin(storage)
    manifest.append(dataclasses.replace(commit(storage, unit), rows=unit % 2) for unit in (3, 0, 1, 2))
    manifest.succeed()
    assert list(Manifest.finished_files(storage)) == ["data/part-00000001.parquet", "data/part-00000003.parquet"]


def test_no_false_success_is_left_by_a_run_that_ends_early(storage: Storage, monkeypatch: pytest.MonkeyPatch) -> None:
    begin(storage, done=4).succeed()
    storage.remove("data/part-00000002.parquet")

    def write(self: Storage, name: str, data: bytes) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(Storage, "write", write)
    with pytest.raises(KeyboardInterrupt):
        begin(storage)
    assert not storage.exists(Manifest.SUCCESS)


def test_many_records_go_to_many_files(storage: Storage, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(manifests, "SEGMENT", SEGMENT)
    num_units = 2 * SEGMENT + 3
    manifest = begin(storage, num_units)
    for start in range(0, num_units, 7):
        manifest.append(commit(storage, unit) for unit in range(start, min(start + 7, num_units)))
    assert Manifest.segments(storage) == [f"records-00000{index}.jsonl" for index in range(3)]
    sizes = [len(storage.read(f"_manifest/{name}").splitlines()) for name in Manifest.segments(storage)]
    assert sizes == [SEGMENT, SEGMENT, 3]
    storage.remove("data/part-00000007.parquet")
    again = begin(storage, num_units)
    assert again.num_done == num_units - 1
    again.append([commit(storage, 7)])
    assert [record.unit for record in Manifest.records(storage)][-1] == 7
    assert begin(storage, num_units).num_done == num_units


def test_a_missing_segment_costs_its_units_alone(storage: Storage, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(manifests, "SEGMENT", SEGMENT)
    num_units = 2 * SEGMENT + 3
    begin(storage, num_units).append(commit(storage, unit) for unit in range(num_units))
    storage.remove("_manifest/records-000001.jsonl")
    manifest = begin(storage, num_units)
    assert [unit for unit in range(num_units) if not manifest.done[unit]] == list(range(SEGMENT, 2 * SEGMENT))
    for unit in range(SEGMENT, 2 * SEGMENT):
        manifest.append([commit(storage, unit)])
        units = [record.unit for record in Manifest.records(storage)]
        assert len(set(units)) == len(units) == num_units - 2 * SEGMENT + unit + 1
    assert begin(storage, num_units).num_done == num_units


def test_what_was_never_committed_is_cleaned_away(storage: Storage) -> None:
    manifest = begin(storage)
    manifest.append([commit(storage, 0), commit(storage, 1, bad_rows=2)])
    commit(storage, 2, bad_rows=1)  # the run died before it was recorded
    storage.write("data/.part-00000003.parquet.0123.tmp", b"half")
    storage.write("_quarantine/part-00000000.jsonl", b"of an earlier attempt")
    storage.write("notes.txt", b"not ours")
    manifest = begin(storage)
    manifest.clean()
    assert storage.sizes("data") == {"part-00000000.parquet": 1, "part-00000001.parquet": 2}
    assert set(storage.sizes("_quarantine")) == {"part-00000001.jsonl"}
    assert storage.exists("notes.txt")


def test_facts_are_found_once(storage: Storage) -> None:
    found: list[int] = []

    def find() -> dict[str, int]:
        found.append(1)
        return {"max": 3}

    assert begin(storage).remember("calibration", find) == {"max": 3}
    assert begin(storage).remember("calibration", find) == {"max": 3}
    assert found == [1]


def test_a_data_folder_without_a_manifest_is_refused(storage: Storage) -> None:
    storage.write("data/precious.parquet", b"someone else's")
    with pytest.raises(InputError, match="has a data folder but no manifest; give a new or empty output"):
        begin(storage)
    assert storage.read("data/precious.parquet") == b"someone else's"


@pytest.mark.parametrize(
    ("change", "lines"),
    [
        ({"job": "search"}, ["job: embed -> search"]),
        ({"num_units": 5}, ["units of work: 4 -> 5"]),
        ({"settings": {"prompt": "q: ", "text_column": ["text"]}}, ['prompt: null -> "q: "']),
        (
            {"settings": {"text_column": ["body"], "limit": 3}},
            ["limit: null -> 3", 'text_column: ["text"] -> ["body"]'],
        ),
        ({"files": FILES[1:]}, ["1 input file(s) removed: a.parquet"]),
        ({"files": [*FILES, FILES[0] | {"name": "d.parquet"}]}, ["1 input file(s) added: d.parquet"]),
        ({"files": [FILES[0], FILES[1] | {"identity": "other"}, FILES[2]]}, ["1 input file(s) changed: b.parquet"]),
        (
            {"files": [FILES[0] | {"name": f"{index}.parquet"} for index in range(7)]},
            [
                "3 input file(s) removed: a.parquet, b.parquet, c.parquet",
                "7 input file(s) added: 0.parquet, 1.parquet, 2.parquet, 3.parquet, 4.parquet, ...",
            ],
        ),
    ],
)
def test_another_plan_is_refused_with_each_difference(
    change: dict[str, Any], lines: list[str], storage: Storage
) -> None:
    begin(storage, done=2)
    before = storage.read(Manifest.PLAN)
    with pytest.raises(PlanChangedError, match="was begun with another input or other settings") as caught:
        Manifest.open(storage, dataclasses.replace(make_plan(), **change))
    assert str(caught.value).splitlines()[1:-1] == [f"  {line}" for line in lines]
    assert storage.read(Manifest.PLAN) == before
    assert begin(storage).num_done == 2


def test_a_dataset_may_move(storage: Storage) -> None:
    begin(storage, done=1)
    moved = dataclasses.replace(make_plan(), input="s3://elsewhere")
    assert moved.fingerprint == make_plan().fingerprint
    assert Manifest.open(storage, moved).num_done == 1


def test_an_output_may_move(tmp_path: Path) -> None:
    begin(Storage(str(tmp_path / "out")), done=2)
    shutil.move(tmp_path / "out", tmp_path / "moved")
    assert begin(Storage(str(tmp_path / "moved"))).num_done == 2


def test_a_plan_is_the_same_after_json() -> None:
    plan = make_plan(text_column=("text",))
    assert plan.fingerprint == make_plan().fingerprint
    assert plan.differences(make_plan()) == []
    assert plan.with_files([]).differences(plan) == ["3 input file(s) added: a.parquet, b.parquet, c.parquet"]


def test_a_manifest_of_another_format_is_refused(storage: Storage) -> None:
    storage.write(Manifest.PLAN, json.dumps({"format": 99, "plan": {"other": 1}}).encode())
    with pytest.raises(InputError, match=r"_manifest/plan\.json has format 99; this version knows 1"):
        begin(storage)


@pytest.mark.parametrize("data", [b"", b"{}", b"[]", b'{"format": 1', b'{"format": 1}'])
def test_a_damaged_plan_is_named(data: bytes, storage: Storage) -> None:
    storage.write(Manifest.PLAN, data)
    with pytest.raises(InputError, match=r"_manifest/plan\.json is damaged: .*; give a new output"):
        begin(storage)


def test_a_damaged_record_is_named(storage: Storage) -> None:
    begin(storage, done=2)
    name = "_manifest/records-000000.jsonl"
    storage.write(name, storage.read(name)[:-20])
    with pytest.raises(InputError, match=r"_manifest/records-000000\.jsonl, line 2 is damaged: "):
        begin(storage)
