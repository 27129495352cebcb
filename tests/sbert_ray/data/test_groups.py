"""Groups of rows: each is in one unit as a whole, wherever units are cut."""

import gzip
import json
from itertools import groupby
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import zstandard

from sbert_ray.data.dataset import Dataset, RowReader
from sbert_ray.data.errors import InputError
from sbert_ray.data.groups import GroupReader
from sbert_ray.data.units import Unit

SIZES = [3, 1, 300, 2, 5, 1]
KEYS = [[f"q{file}-{group}" for group, size in enumerate(SIZES) for _ in range(size)] for file in range(2)]


def dataset_of(folder: Path, kind: str) -> Dataset:
    for number, keys in enumerate(KEYS):
        rows = [{"query": key, "document": row} for row, key in enumerate(keys)]
        name = folder / f"{number}.{kind}"
        if kind == "parquet":
            pq.write_table(pa.Table.from_pylist(rows), name, row_group_size=50)
            continue
        lines = [json.dumps(row) for row in rows]
        lines[4:4] = ["no JSON"]  # in the middle of a group, and between two
        lines[3:3] = ["no JSON either"]
        data = "".join(f"{line}\n" for line in lines).encode()
        name.write_bytes(gzip.compress(data) if kind.endswith("gz") else data)
    return Dataset.open(str(folder), ["query"], ["document"])


@pytest.mark.parametrize("kind", ["parquet", "jsonl", "jsonl.gz"])
@pytest.mark.parametrize("rows_per_unit", [3, 7, 64, 10_000])
def test_each_group_is_in_one_unit(kind: str, rows_per_unit: int, tmp_path: Path) -> None:
    dataset = dataset_of(tmp_path, kind)
    reader = GroupReader(dataset.reader(rows_per_unit), "query")
    units = [list(reader.read(unit, ["document"])) for unit in dataset.units(rows_per_unit)]
    assert all(unit for unit in units)  # each gives its output a schema
    pieces = [piece for unit in units for piece in unit]
    rows = [row for piece in pieces for row in piece.table.select(["query", "document"]).to_pylist()]
    assert rows == [{"query": key, "document": row} for keys in KEYS for row, key in enumerate(keys)]
    for piece in pieces:  # which ends where a group does
        runs = {key: len(list(run)) for key, run in groupby(piece.table["query"].to_pylist())}
        assert runs == {key: SIZES[int(key.partition("-")[2])] for key in runs}
    bad = [(row.file, row.position) for piece in pieces for row in piece.bad]
    assert len(bad) == len(set(bad)) == (0 if kind == "parquet" else 4)


@pytest.mark.parametrize("kind", ["parquet", "jsonl"])
def test_a_group_that_begins_again_is_an_error(kind: str, tmp_path: Path) -> None:
    rows = [{"query": key} for key in "aabbac"]
    if kind == "parquet":
        pq.write_table(pa.Table.from_pylist(rows), tmp_path / "x.parquet")
    else:
        (tmp_path / "x.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    dataset = Dataset.open(str(tmp_path), ["query"])
    [unit] = dataset.units(100)
    with pytest.raises(
        InputError, match=r"rows with equal 'query' must be consecutive, but 'a' begins again at positi"
    ):
        list(GroupReader(dataset.reader(100), "query").read(unit, ["query"]))


def test_a_file_that_begins_with_bad_lines_loses_none(tmp_path: Path) -> None:
    lines = ["no", "no", "no", *(json.dumps({"query": key}) for key in "aab"), "no"]
    (tmp_path / "x.jsonl").write_text("".join(f"{line}\n" for line in lines))
    dataset = Dataset.open(str(tmp_path), ["query"])
    reader = GroupReader(dataset.reader(1), "query")
    pieces = [piece for unit in dataset.units(1) for piece in reader.read(unit, ["query"])]
    assert sum(len(piece.bad) for piece in pieces) == 4
    assert [key for piece in pieces for key in piece.table["query"].to_pylist()] == ["a", "a", "b"]


@pytest.mark.parametrize("bytes_per_unit", range(20, 200, 7))
def test_lines_that_do_not_fit_cost_no_row_wherever_they_lie(bytes_per_unit: int, tmp_path: Path) -> None:
    """Such a line has a key, and yet it is in no group."""
    lines = [{"query": key, "document": row} for row, key in enumerate("aaaabbbccccccddeeeeeef")]
    for row in (0, 3, 4, 5, 7, 13, 15, 21):
        lines[row]["document"] = "not a number"
    (tmp_path / "x.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    schema = pa.schema({"query": pa.string(), "document": pa.int64()})
    reader = GroupReader(RowReader(str(tmp_path), schema, 4), "query")
    size = (tmp_path / "x.jsonl").stat().st_size
    units = [Unit(0, "x.jsonl", start, min(start + bytes_per_unit, size)) for start in range(0, size, bytes_per_unit)]
    pieces = [piece for unit in units for piece in reader.read(unit, ["document"])]
    good = [row for piece in pieces for row in piece.table.to_pylist()]
    assert good == [
        {"document": line["document"], "query": line["query"]} for line in lines if line["document"] != "not a number"
    ]
    assert sum(len(piece.bad) for piece in pieces) == 8


@pytest.mark.parametrize("kind", ["parquet", "jsonl", "jsonl.zst"])
@pytest.mark.parametrize("rows_per_unit", [1, 3, 100])
def test_rows_without_a_key_go_with_those_before_them(kind: str, rows_per_unit: int, tmp_path: Path) -> None:
    keys = [None, "a", None, "a", "b", None, None, "c", None]
    rows = [{"query": key, "document": row} for row, key in enumerate(keys)]
    if kind == "parquet":
        pq.write_table(pa.Table.from_pylist(rows), tmp_path / "x.parquet", row_group_size=2)
    else:
        data = "".join(json.dumps(row) + "\n" for row in rows).encode()
        data = zstandard.ZstdCompressor().compress(data) if kind.endswith("zst") else data
        (tmp_path / f"x.{kind}").write_bytes(data)
    dataset = Dataset.open(str(tmp_path), ["query"], ["document"])
    reader = GroupReader(dataset.reader(rows_per_unit), "query")
    pieces = [piece for unit in dataset.units(rows_per_unit) for piece in reader.read(unit, ["document"])]
    assert [row for piece in pieces for row in piece.table["document"].to_pylist()] == list(range(9))


@pytest.mark.parametrize("suffix", ["", ".gz", ".zst"])
def test_a_limit_lets_the_last_group_end(suffix: str, tmp_path: Path) -> None:
    data = "".join(json.dumps({"query": key}) + "\n" for key in "aabbbbcc").encode()
    compress = {"": bytes, ".gz": gzip.compress, ".zst": zstandard.ZstdCompressor().compress}[suffix]
    (tmp_path / f"x.jsonl{suffix}").write_bytes(compress(data))
    dataset = Dataset.open(str(tmp_path), ["query"])
    reader = GroupReader(dataset.reader(100), "query")
    pieces = [piece for unit in dataset.units(100, limit=3) for piece in reader.read(unit, ["query"])]
    assert [key for piece in pieces for key in piece.table["query"].to_pylist()] == list("aabbbb")


def test_keys_may_be_structs(tmp_path: Path) -> None:
    keys = [{"x": 1}, {"x": 1}, {"x": 2}]
    pq.write_table(pa.table({"query": keys, "row": [0, 1, 2]}), tmp_path / "x.parquet")
    dataset = Dataset.open(str(tmp_path), [], ["query", "row"])
    [unit] = dataset.units(9)
    pieces = list(GroupReader(dataset.reader(9), "query").read(unit, ["row"]))
    assert [piece.table["row"].to_pylist() for piece in pieces] == [[0, 1], [2]]
