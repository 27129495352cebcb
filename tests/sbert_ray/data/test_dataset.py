"""Datasets: what is read, cut into units by nothing but the input, and what is refused before anything starts."""

import gzip
import json
import os
import pickle
import shutil
import time
import uuid
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import zstandard

from sbert_ray.data import units
from sbert_ray.data.dataset import Dataset
from sbert_ray.data.errors import InputError
from tests.sbert_ray.data.output import make

COMPRESS = {"": bytes, ".gz": gzip.compress, ".zst": zstandard.ZstdCompressor().compress}


def write(path: Path, ids: range, row_group_size: int = 100, **columns: pa.Array) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    table = pa.table({"id": pa.array(ids), "text": [f"text {row}" for row in ids]} | columns)
    pq.write_table(table, path, row_group_size=row_group_size)


def write_lines(path: Path, ids: range, suffix: str = "") -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    data = b"".join(b'{"id": %d, "text": "text %d"}\n' % (row, row) for row in ids)
    Path(f"{path}{suffix}").write_bytes(COMPRESS[suffix](data))


def open_(url: str | Path) -> Dataset:
    return Dataset.open(str(url), ["text"], ["id"])


def read(dataset: Dataset, rows_per_unit: int, limit: int | None = None) -> list[list[int]]:
    """Return the ids of each unit."""
    reader = dataset.reader(rows_per_unit)
    found = []
    for unit in dataset.units(rows_per_unit, limit):
        pieces = list(reader.read(unit, ["id", "text"]))
        ids = [row for piece in pieces for row in piece.table["id"].to_pylist()]
        assert [text for piece in pieces for text in piece.table["text"].to_pylist()] == [f"text {row}" for row in ids]
        found.append(ids)
    return found


def flat(found: list[list[int]]) -> list[int]:
    return [row for ids in found for row in ids]


@pytest.fixture(params=["parquet", "jsonl"])
def source(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    """Three files with 25 rows in all, of either kind, in a nested folder."""
    folder = tmp_path / "in"
    for name, ids in {"a": range(10), "deep/b": range(10, 22), "deep/c": range(22, 25)}.items():
        if request.param == "parquet":
            write(folder / f"{name}.parquet", ids, row_group_size=5)
        else:
            write_lines(folder / f"{name}.jsonl", ids)
    (folder / "_notes.txt").write_text("no data")
    return folder


@pytest.mark.parametrize("rows_per_unit", [1, 3, 5, 7, 100])
def test_units_hold_each_row_once_in_order(rows_per_unit: int, source: Path) -> None:
    dataset = open_(source)
    assert [file.name.partition(".")[0] for file in dataset.files] == ["a", "deep/b", "deep/c"]
    assert dataset.schema == pa.schema([("text", pa.string()), ("id", pa.int64())])
    assert flat(read(dataset, rows_per_unit)) == list(range(25))


def test_a_memory_url_is_read_like_a_folder(source: Path) -> None:
    import fsspec

    fs = fsspec.filesystem("memory")
    url = f"memory://{uuid.uuid4().hex}"
    fs.put(f"{source}/", url.removeprefix("memory:/") + "/", recursive=True)
    assert read(open_(url), 4) == read(open_(source), 4) == read(open_(f"file://{source}"), 4)
    if any(source.glob("*.parquet")):
        assert [file.described() for file in open_(url).files] == [file.described() for file in open_(source).files]


def test_units_are_a_function_of_the_input_alone(source: Path) -> None:
    first = list(open_(source).units(4))
    moved = shutil.copytree(source, source.parent / "moved")
    assert list(open_(moved).units(4)) == first
    assert [unit.index for unit in first] == list(range(len(first)))
    assert len({unit.name for unit in first}) == len(first)
    shutil.move(source, source.parent / "again")
    assert list(open_(source.parent / "again").units(4)) == first


@pytest.mark.parametrize("limit", [1, 4, 9, 10, 11, 22, 24, 25, 26])
@pytest.mark.parametrize("rows_per_unit", [1, 4, 100])
def test_a_limit_cuts_the_input(limit: int, rows_per_unit: int, source: Path) -> None:
    dataset = open_(source)
    limited = list(dataset.units(rows_per_unit, limit))
    assert flat(read(dataset, rows_per_unit, limit)) == list(range(min(limit, 25)))
    if limit > 25:
        assert limited == list(dataset.units(rows_per_unit))


@pytest.mark.parametrize("suffix", [".gz", ".zst"])
@pytest.mark.parametrize("limit", [None, 1, 7, 10, 12, 30])
def test_a_compressed_file_is_one_unit(suffix: str, limit: int | None, tmp_path: Path) -> None:
    write_lines(tmp_path / "a.jsonl", range(10), suffix)
    write_lines(tmp_path / "b.jsonl", range(10, 20), suffix)
    found = read(open_(tmp_path), 3, limit)
    assert flat(found) == list(range(min(limit or 20, 20)))
    assert len(found) == (1 if limit and limit <= 10 else 2)


def test_rows_are_counted_or_estimated(source: Path, tmp_path: Path) -> None:
    dataset = open_(source)
    assert dataset.estimated_rows == pytest.approx(25, abs=2)
    if any(source.glob("*.parquet")):
        assert dataset.num_rows == dataset.estimated_rows == 25
    else:
        assert dataset.num_rows is None


def test_a_reader_travels(source: Path) -> None:
    dataset = open_(source)
    reader = pickle.loads(pickle.dumps(dataset.reader(100)))
    unit = next(dataset.units(100))
    (rows,) = reader.read(unit, ["id"])
    assert rows.table["id"].to_pylist() == list(range(10))


def test_a_sample_comes_from_all_over_the_input(source: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def sample(num_rows: int) -> list[int]:
        pieces = open_(source).sample("text", num_rows)
        return [int(text.removeprefix("text ")) for piece in pieces for text in piece.table["text"].to_pylist()]

    assert sample(3) == [0, 10, 22]
    assert sample(6) == [0, 1, 10, 11, 22, 23]
    monkeypatch.setattr(units, "MIN_ROWS", 1)
    assert len(sample(8)) == 8
    assert max(sample(8)) >= 20


def test_files_without_rows_are_read_past(tmp_path: Path) -> None:
    for name, ids in {"a": range(0), "b": range(3), "c": range(0), "d": range(3, 5)}.items():
        write(tmp_path / "parquet" / f"{name}.parquet", ids)
        write_lines(tmp_path / "jsonl" / f"{name}.jsonl", ids)
    for kind in ("parquet", "jsonl"):
        assert flat(read(open_(tmp_path / kind), 2)) == list(range(5))
        assert flat(read(open_(tmp_path / kind), 2, limit=4)) == list(range(4))


def test_nulls_take_the_type_of_the_other_files(tmp_path: Path) -> None:
    pq.write_table(pa.table({"id": pa.nulls(2), "text": pa.nulls(2)}), tmp_path / "a.parquet")
    write(tmp_path / "b.parquet", range(3))
    dataset = open_(tmp_path)
    tables = [next(iter(dataset.reader(9).read(unit, ["id", "text"]))).table for unit in dataset.units(9)]
    assert tables[0].schema.equals(tables[1].schema)
    assert tables[0]["id"].to_pylist() == [None, None]


@pytest.mark.parametrize("kind", [pa.large_string(), pa.dictionary(pa.int32(), pa.string()), pa.string_view()], ids=str)
def test_text_of_any_string_type_is_read(kind: pa.DataType, tmp_path: Path) -> None:
    write(tmp_path / "a.parquet", range(5), text=pa.array([f"text {row}" for row in range(5)]).cast(kind))
    assert flat(read(open_(tmp_path), 2)) == list(range(5))


def test_a_bad_row_leaves_a_column_of_any_string_type(tmp_path: Path) -> None:
    for kind in (pa.string(), pa.large_string(), pa.dictionary(pa.int32(), pa.string()), pa.string_view()):
        write(tmp_path / "a.parquet", range(3), text=pa.array(["text 0", None, "text 2"]).cast(kind))
        dataset = Dataset.open(str(tmp_path), ["text"], ["id", "text"])
        (rows,) = dataset.reader(9).read(next(dataset.units(9)), ["id", "text"])
        assert rows.table.schema.field("text").type == dataset.schema.field("text").type
        assert rows.without({1: "the text is null"}, "id", {}).table["id"].to_pylist() == [0, 2]


def test_kinds_are_not_mixed(tmp_path: Path) -> None:
    write(tmp_path / "a.parquet", range(3))
    write_lines(tmp_path / "b.jsonl", range(3))
    with pytest.raises(InputError, match=r"holds Parquet and JSONL files; give one kind, .* such as .*/\*\.parquet"):
        open_(tmp_path)
    assert flat(read(open_(tmp_path / "*.parquet"), 9)) == list(range(3))


@pytest.mark.parametrize("suffix", [".parquet", ".jsonl"])
def test_a_missing_column_is_named_with_its_file(suffix: str, tmp_path: Path) -> None:
    (write if suffix == ".parquet" else write_lines)(tmp_path / f"a{suffix}", range(3))
    with pytest.raises(InputError, match=rf"/a\{suffix}.* lacks column\(s\) \['body'\]; it has \['id', 'text'\]"):
        Dataset.open(str(tmp_path), ["body"], ["id"])
    with pytest.raises(InputError, match=rf"/a\{suffix}.*: column 'id' is int64; a text column must hold strings"):
        Dataset.open(str(tmp_path), ["id"])


@pytest.mark.parametrize("suffix", ["", ".gz", ".zst"])
def test_a_column_that_a_later_jsonl_file_lacks_is_named_with_it(suffix: str, tmp_path: Path) -> None:
    for name in "abd":
        write_lines(tmp_path / f"{name}.jsonl", range(3), suffix)
    data = b'{"ID": 3, "text": "text 3"}\n' * 3
    (tmp_path / f"c.jsonl{suffix}").write_bytes(COMPRESS[suffix](data))
    expected = rf"/c\.jsonl{suffix} \(first 1000 lines\) lacks column\(s\) \['id'\]; it has \['ID', 'text'\]$"
    with pytest.raises(InputError, match=expected):
        open_(tmp_path)
    (tmp_path / f"c.jsonl{suffix}").write_bytes(COMPRESS[suffix](data + b'{"id": 3}\n'))
    assert len(open_(tmp_path).files) == 4


def test_a_later_jsonl_file_may_lack_an_optional_column(tmp_path: Path) -> None:
    for name in "ab":
        write_lines(tmp_path / f"{name}.jsonl", range(3))
    (tmp_path / "a.jsonl").write_text('{"id": 0, "text": "a", "url": "u"}\n')
    dataset = Dataset.open(str(tmp_path), ["text"], ["id"], ["url"])
    units = list(dataset.units(9))
    urls = [rows.table["url"].to_pylist() for unit in units for rows in dataset.reader(9).read(unit, ["url"])]
    assert urls == [["u"], [None] * 3]
    (tmp_path / "a.jsonl").write_text('{"id": 0, "text": "a"}\n')
    with pytest.raises(InputError, match=r"a\.jsonl \(first 1000 lines\) lacks column\(s\) \['url'\]"):
        Dataset.open(str(tmp_path), ["text"], ["id"], ["url"])


def test_a_later_jsonl_file_without_objects_is_read_past(tmp_path: Path) -> None:
    write_lines(tmp_path / "a.jsonl", range(3))
    (tmp_path / "b.jsonl").write_text("not JSON\n\n[1]\n")
    (tmp_path / "c.jsonl").write_text("")
    assert len(open_(tmp_path).files) == 3


def test_a_later_jsonl_file_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    write_lines(tmp_path / "a.jsonl", range(3))
    (tmp_path / "b.jsonl").symlink_to(tmp_path / "nowhere")
    with pytest.raises(InputError, match=r"^cannot read /.*/b\.jsonl: .*No such file"):
        open_(tmp_path)
    (tmp_path / "b.jsonl").unlink()
    (tmp_path / "b.jsonl.gz").write_bytes(b"no gzip")
    with pytest.raises(InputError, match=r"/b\.jsonl\.gz is damaged"):
        open_(tmp_path)


def test_a_copied_column_of_two_types_is_named_with_both_files(tmp_path: Path) -> None:
    write(tmp_path / "a.parquet", range(3))
    write(tmp_path / "b.parquet", range(3), id=pa.array(["x", "y", "z"]))
    with pytest.raises(InputError, match=r"/b\.parquet: column 'id' is string, but int64 in /.*/a\.parquet"):
        open_(tmp_path)
    assert Dataset.open(str(tmp_path), ["text"]).num_rows == 6


@pytest.mark.parametrize(("name", "what"), [("a.parquet", "rows"), ("a.jsonl", "JSON objects"), ("a.json.gz", "JSON")])
def test_an_empty_dataset_is_refused(name: str, what: str, tmp_path: Path) -> None:
    if name.endswith("parquet"):
        write(tmp_path / name, range(0))
    else:
        (tmp_path / name).write_bytes(gzip.compress(b"\n\n") if name.endswith("gz") else b"not JSON\n")
    with pytest.raises(InputError, match=f"holds no {what}"):
        open_(tmp_path)


def test_a_damaged_file_is_found_before_anything_starts(tmp_path: Path) -> None:
    write(tmp_path / "a.parquet", range(3))
    (tmp_path / "b.parquet").write_bytes(b"PAR1 and no more")
    with pytest.raises(InputError, match=r"/b\.parquet is no readable Parquet file"):
        open_(tmp_path)
    (tmp_path / "c.jsonl.gz").write_bytes(b"no gzip")
    with pytest.raises(InputError, match=r"/c\.jsonl\.gz is damaged"):
        open_(tmp_path / "*.gz")


def test_a_file_that_cannot_be_opened_is_named(tmp_path: Path) -> None:
    for name in ("a.parquet", "b.jsonl"):
        (tmp_path / name).symlink_to(tmp_path / "nowhere")
        with pytest.raises(
            InputError, match=rf"(/{name} is no readable Parquet file|cannot read .*/{name}): .*No such file"
        ):
            open_(tmp_path / f"*{Path(name).suffix}")


def test_a_fault_ends_the_reading_of_heads(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from sbert_ray.data import dataset, jsonl

    write_lines(tmp_path / "000.jsonl", range(1))
    for index in range(1, 200):
        (tmp_path / f"{index:03d}.jsonl").write_text('{"id": 1}\n')
    monkeypatch.setattr(dataset, "METADATA_THREADS", 1)
    original, seen = jsonl.first_columns, []

    def first_columns(storage: Any, name: str, wanted: Any) -> list[str]:
        seen.append(name)
        return original(storage, name, wanted)

    monkeypatch.setattr(jsonl, "first_columns", first_columns)
    with pytest.raises(InputError, match=r"001\.jsonl .* lacks column"):
        open_(tmp_path)
    num_seen = len(seen)
    time.sleep(0.1)
    assert len(seen) == num_seen < 150


def test_a_fault_ends_the_reading_of_footers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from sbert_ray.data import dataset

    for index in range(200):
        write(tmp_path / f"{index:03d}.parquet", range(1))
    monkeypatch.setattr(dataset, "METADATA_THREADS", 1)
    original, seen = dataset.read_footer, []

    def read_footer(storage: Any, name: str) -> Any:
        seen.append(name)
        return original(storage, name)

    monkeypatch.setattr(dataset, "read_footer", read_footer)
    with pytest.raises(InputError, match=r"000\.parquet lacks column") as caught:
        Dataset.open(str(tmp_path), ["body"])
    num_seen = len(seen)
    time.sleep(0.1)
    assert len(seen) == num_seen < 150
    assert caught.tb  # which holds everything that was open


@pytest.mark.parametrize("value", [5, None, "\ud800", {"a": 1}], ids=repr)
def test_one_odd_text_among_the_first_lines_is_a_bad_row(value: Any, tmp_path: Path) -> None:
    rows = [{"id": 0, "text": "text 0"}, {"id": 1, "text": value}, {"id": 2, "text": "text 2"}]
    (tmp_path / "a.jsonl").write_text("\n".join(map(json.dumps, rows)))
    dataset = open_(tmp_path)
    (rows_read,) = dataset.reader(9).read(next(dataset.units(9)), ["id", "text"])
    assert rows_read.table["id"].to_pylist() == ([0, 1, 2] if value is None else [0, 2])
    assert [row.position for row in rows_read.bad] == ([] if value is None else [28])


def test_a_copied_column_of_several_types_is_refused(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_text('{"id": 0, "text": "x"}\n{"id": "b", "text": "y"}')
    with pytest.raises(InputError, match=r"/a\.jsonl .*: column 'id' holds values of several types"):
        open_(tmp_path)
    assert Dataset.open(str(tmp_path), ["text"]).schema == pa.schema([("text", pa.string())])


def test_the_identity_of_a_file_follows_its_contents_not_its_place(source: Path) -> None:
    before = [file.described() for file in open_(source).files]
    moved = source.rename(source.parent / "moved")
    assert [file.described() for file in open_(moved).files] == before
    if any(moved.glob("*.parquet")):
        write(moved / "a.parquet", range(1, 11), row_group_size=5)
    else:
        os.utime(moved / "a.jsonl", (1, 1))
    after = [file.described() for file in open_(moved).files]
    assert after[0] != before[0]
    assert after[1:] == before[1:]


def test_a_finished_output_is_a_dataset_of_what_was_committed(tmp_path: Path) -> None:
    write(tmp_path / "in" / "a.parquet", range(10))
    output = tmp_path / "out"
    manifest = make(tmp_path / "in", output, edit=lambda unit, table: table.append_column("text", [["x"] * len(table)]))
    (output / "data" / "part-99999999.parquet").write_bytes(b"left by a run that died")
    dataset = open_(output)
    assert [file.name for file in dataset.files] == [f"data/part-0000000{index}.parquet" for index in range(3)]
    assert dataset.num_rows == 10
    assert len(open_(output / "data" / "*0.parquet").files) == 1
    assert [file.name for file in open_(f"{output}/**/*1.parquet").files] == ["data/part-00000001.parquet"]

    manifest.storage.remove("data/part-00000001.parquet")
    with pytest.raises(InputError, match="lacks files that are in its manifest; run the job that made it again"):
        open_(output)
    manifest.storage.remove("_SUCCESS")
    with pytest.raises(InputError, match="/out is the output of a job that has not finished; run that job again first"):
        open_(output)


def test_an_output_without_rows_is_an_empty_dataset(tmp_path: Path) -> None:
    write(tmp_path / "in" / "a.parquet", range(2))
    make(tmp_path / "in", tmp_path / "out", bad={0: "bad", 1: "bad"})
    with pytest.raises(InputError, match="no Parquet or JSONL files at"):
        open_(tmp_path / "out")
