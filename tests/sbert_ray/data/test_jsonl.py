"""JSON lines: each line once however the file is cut, and a bad line is a bad row."""

import gzip
import json
import re
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import zstandard

from sbert_ray.data.errors import InputError
from sbert_ray.data.jsonl import (
    HEAD_CHUNK,
    SAMPLE_LINES,
    JsonlReader,
    first_columns,
    infer_schema,
    lines,
    parse,
    position_after,
)
from sbert_ray.data.rows import Rows
from sbert_ray.data.storage import Storage
from sbert_ray.data.units import Unit, byte_ranges

SCHEMA = pa.schema([("id", pa.int64()), ("text", pa.string())])
OBJECTS = [{"id": row, "text": "\u20ac\U0001f600" * (row % 4)} for row in range(12)]
PLAIN = b"".join(json.dumps(item, ensure_ascii=False).encode() + b"\n" for item in OBJECTS)
COMPRESS = {"": bytes, ".gz": gzip.compress, ".zst": zstandard.ZstdCompressor(write_checksum=True).compress}


def write(folder: Path, data: bytes, suffix: str = "") -> Storage:
    (folder / f"a.jsonl{suffix}").write_bytes(COMPRESS[suffix](data))
    return Storage(str(folder))


def read(storage: Storage, stop: int | None = None, suffix: str = "", schema: pa.Schema = SCHEMA) -> Rows:
    (rows,) = JsonlReader(storage, schema).read(Unit(0, f"a.jsonl{suffix}", 0, stop), schema.names, 10**6)
    return rows


def brute_force(data: bytes) -> list[tuple[int, bytes]]:
    starts = [0, *(index + 1 for index, byte in enumerate(data) if byte == 10)]
    found = [(start, line) for start, line in zip(starts, data.splitlines(keepends=True), strict=False)]
    return [(start, line) for start, line in found if line.strip()]


VARIANTS = {
    "plain": PLAIN,
    "no last newline": PLAIN[:-1],
    "blank lines": b"\n\n" + PLAIN.replace(b"\n", b"\n \n\n") + b"\n",
    "CRLF": PLAIN.replace(b"\n", b"\r\n"),
    "one line": PLAIN.partition(b"\n")[0],
}


@pytest.mark.parametrize("variant", VARIANTS)
def test_each_line_comes_once_wherever_a_file_is_cut(variant: str, tmp_path: Path) -> None:
    data = VARIANTS[variant]
    storage = write(tmp_path, data)
    expected = brute_force(data)
    assert list(lines(storage, "a.jsonl")) == expected
    for cut in range(len(data) + 1):
        assert [*lines(storage, "a.jsonl", 0, cut), *lines(storage, "a.jsonl", cut, len(data))] == expected
    for size in (1, 2, 7, 50, 1000):
        parts = [lines(storage, "a.jsonl", start, stop) for start, stop in byte_ranges(len(data), size)]
        assert [line for part in parts for line in part] == expected


@pytest.mark.parametrize("suffix", COMPRESS)
def test_all_compressions_give_the_same_rows(suffix: str, tmp_path: Path) -> None:
    rows = read(write(tmp_path, PLAIN, suffix), suffix=suffix)
    assert rows.table.to_pylist() == OBJECTS
    assert rows.positions.tolist() == [position for position, _ in brute_force(PLAIN)]
    assert rows.table.schema.equals(SCHEMA)
    assert rows.bad == []


@pytest.mark.parametrize("suffix", [".gz", ".zst"])
def test_concatenated_compressed_files_are_read_to_their_end(suffix: str, tmp_path: Path) -> None:
    data = COMPRESS[suffix](PLAIN) + COMPRESS[suffix](b"") + COMPRESS[suffix](PLAIN)
    (tmp_path / f"a.jsonl{suffix}").write_bytes(data)
    assert read(Storage(str(tmp_path)), suffix=suffix).table.to_pylist() == OBJECTS * 2


@pytest.mark.parametrize("suffix", COMPRESS)
def test_large_files_are_read_in_pieces(suffix: str, tmp_path: Path) -> None:
    words = np.random.default_rng(0).integers(0, 10**9, size=80_000)
    data = b"".join(b'{"text": "%d"}\n' % word for word in words.tolist())
    storage = write(tmp_path, data, suffix)
    reader = JsonlReader(storage, SCHEMA)
    pieces = list(reader.read(Unit(0, f"a.jsonl{suffix}", 0, None), ["text"], 30_000))
    assert [len(piece) for piece in pieces] == [30_000, 30_000, 20_000]
    assert [int(text) for piece in pieces for text in piece.table["text"].to_pylist()] == words.tolist()


@pytest.mark.parametrize("suffix", [".gz", ".zst"])
@pytest.mark.parametrize("damage", ["truncated", "half", "garbage", "middle"])
def test_a_damaged_compressed_file_is_named(suffix: str, damage: str, tmp_path: Path) -> None:
    whole = COMPRESS[suffix](PLAIN * 1000 + np.random.default_rng(0).bytes(100_000).hex().encode())
    cut = len(whole) // 2
    data = {
        "truncated": whole[:-6],
        "half": whole[:cut],
        "garbage": b"this was never compressed",
        "middle": whole[:cut] + bytes(200) + whole[cut + 200 :],
    }[damage]
    (tmp_path / f"a.jsonl{suffix}").write_bytes(data)
    with pytest.raises(InputError, match=rf"/a\.jsonl{suffix} is damaged: .*; repair the file or take it out"):
        list(lines(Storage(str(tmp_path)), f"a.jsonl{suffix}"))


def test_a_missing_zstandard_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    storage = write(tmp_path, PLAIN, ".zst")
    monkeypatch.setitem(sys.modules, "zstandard", None)
    with pytest.raises(InputError, match=r"a\.jsonl\.zst: .* pip install 'sbert-ray\[zstd\]'"):
        list(lines(storage, "a.jsonl.zst"))


def test_a_missing_file_is_no_damage(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        list(lines(Storage(str(tmp_path)), "a.jsonl.gz"))


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        (b'{"id": 1, "text": "\xff"}', "invalid UTF-8 at byte 19 of the line"),
        (b'{"id": 1, "text": "x}', "invalid JSON: Unterminated string"),
        (b'{"id": 1} {"id": 2}', "invalid JSON: Extra data"),
        (b"[" * 100_000, "invalid JSON: nested too deeply"),
        (b'["id", 1]', "a line must be a JSON object, got list"),
        (b"null", "a line must be a JSON object, got NoneType"),
        (b'{"id": 1, "text": "a\\ud800b"}', "column 'text' holds a lone surrogate, which is no character"),
        (b'{"id": 1, "text": 5}', "column 'text' must be string, got int"),
        (b'{"id": 1, "text": ["x"]}', "column 'text' must be string, got list"),
        (b'{"id": "x", "text": "x"}', "column 'id' must be int64, got str"),
        (b'{"id": 1.5, "text": "x"}', "column 'id' must be int64, and would keep but 1 of 1.5"),
        (b'{"id": 36893488147419103232, "text": "x"}', "column 'id' must be int64, got int"),
        (b'{"id": ' + b"1" * 5000 + b"}", "Exceeds the limit"),
    ],
)
def test_a_bad_line_is_a_bad_row(line: bytes, reason: str, tmp_path: Path) -> None:
    rows = read(write(tmp_path, PLAIN + line + b"\n" + PLAIN))
    assert rows.table.to_pylist() == OBJECTS * 2
    (bad,) = rows.bad
    assert (bad.file, bad.position) == ("a.jsonl", len(PLAIN))
    assert bad.reason.startswith(reason)
    assert bad.text == line.decode(errors="replace")[:200]


@pytest.mark.parametrize(
    ("value", "reason"),
    [
        ({"n": 1, "tags": ["a"]}, None),
        ({"n": None}, None),
        (None, None),
        ({"n": float("nan"), "more": None}, None),
        ({"n": 1, "more": 2}, "column 'meta' must be struct<.*>, and would keep but .* of .*"),
        ({"tags": ["a", 1]}, "column 'meta' must be struct<.*>, got dict: .*"),
        ({"tags": ["\ud800"]}, "column 'meta' holds a lone surrogate"),
    ],
)
def test_nested_values_are_kept_whole_or_are_bad(value: Any, reason: str | None, tmp_path: Path) -> None:
    schema = pa.schema([("meta", pa.struct([("n", pa.float64()), ("tags", pa.list_(pa.string()))]))])
    rows = read(write(tmp_path, json.dumps({"meta": value}).encode()), schema=schema)
    assert len(rows) == (reason is None)
    assert [bool(re.match(str(reason), bad.reason)) for bad in rows.bad] == [True] * (reason is not None)


def test_lines_may_be_long_hold_control_characters_and_lack_columns(tmp_path: Path) -> None:
    objects = [{"text": "x" * 2**20, "id": 1}, {"text": "a\n\u2028\x00b"}, {"id": 3, "more": [1]}, {"id": None}]
    rows = read(write(tmp_path, b"".join(json.dumps(item).encode() + b"\n" for item in objects)))
    assert rows.table["text"].to_pylist() == ["x" * 2**20, "a\n\u2028\x00b", None, None]
    assert rows.table["id"].to_pylist() == [1, None, 3, None]
    assert rows.bad == []
    assert rows.lacking == {"id": {rows.positions[1]}, "text": set(rows.positions[2:].tolist())}


def test_a_row_without_an_id_is_bad_and_a_null_is_an_id(tmp_path: Path) -> None:
    data = b'{"id": 1, "text": "a"}\n{"ID": 2, "text": "b"}\n{"id": null, "text": "c"}\n'
    rows = read(write(tmp_path, data)).without({}, "id", {})
    assert rows.table.to_pylist() == [{"id": 1, "text": "a"}, {"id": None, "text": "c"}]
    assert [(row.position, row.reason) for row in rows.bad] == [(23, "the line lacks column 'id'")]


@pytest.mark.parametrize("suffix", COMPRESS)
def test_the_first_columns_are_those_until_all_that_are_wanted_were_seen(suffix: str, tmp_path: Path) -> None:
    data = b'not JSON\n[1]\n{"a": 1}\n{"b": "\xff"}\n{"b": 1, "c": 1}\n{"d": 1}\n'
    storage, name = write(tmp_path, data, suffix), f"a.jsonl{suffix}"
    assert first_columns(storage, name, ["a"]) == ["a"]
    assert first_columns(storage, name, ["b", "a"]) == ["a", "b", "c"]
    assert first_columns(storage, name, ["id"]) == ["a", "b", "c", "d"]
    assert first_columns(write(tmp_path, b"\n", suffix), name, ["a"]) == []
    storage = write(tmp_path, b'{"a": 1}\n' * SAMPLE_LINES + b'{"b": 1}\n', suffix)
    assert first_columns(storage, name, ["b"]) == ["a"]


def test_little_is_read_for_the_first_columns(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    storage = write(tmp_path, b'{"a": "%s"}\n' % (b"x" * 1000) * 1000)
    original, num_bytes = Storage.open, []

    @contextmanager
    def open_(self: Storage, name: str, block_size: int | None = None) -> Iterator[Any]:
        assert block_size == HEAD_CHUNK
        with original(self, name, block_size) as file:
            try:
                yield file
            finally:
                num_bytes.append(file.tell())

    monkeypatch.setattr(Storage, "open", open_)
    first_columns(storage, "a.jsonl", ["a"])
    assert num_bytes == [HEAD_CHUNK]


def test_a_byte_order_mark_is_no_part_of_the_text() -> None:
    assert parse(b'\xef\xbb\xbf{"text": "a"}\r\n') == {"text": "a"}


@pytest.mark.parametrize("num_lines", [0, 1, 9, 10, 11, 20])
def test_rows_come_in_pieces_and_at_least_one(num_lines: int, tmp_path: Path) -> None:
    storage = write(tmp_path, b'{"id": 1}\n' * num_lines)
    pieces = list(JsonlReader(storage, SCHEMA).read(Unit(0, "a.jsonl", 0, None), ["id"], 10))
    assert [len(piece) for piece in pieces] == (
        [10] * (num_lines // 10) + [num_lines % 10] * (num_lines % 10 > 0) or [0]
    )
    assert all(piece.table.schema.equals(pa.schema([("id", pa.int64())])) for piece in pieces)


@pytest.mark.parametrize(
    ("objects", "expected"),
    [
        (
            [{"a": 1, "b": "x"}, {"b": None, "c": [1.5]}],
            {"a": pa.int64(), "b": pa.string(), "c": pa.list_(pa.float64())},
        ),
        ([{"a": 1}, {"a": 2.5}], {"a": pa.float64()}),
        ([{"a": None}, {}], {"a": pa.null()}),
        ([{"a": "\ud800"}, {"a": "x"}], {"a": pa.string()}),
        ([{"a": ["\ud800"]}, {"a": ["x"]}], {"a": pa.list_(pa.string())}),
    ],
)
def test_types_come_from_the_first_lines(objects: list[Any], expected: dict[str, pa.DataType], tmp_path: Path) -> None:
    data = b"not JSON\n" + b"\n".join(json.dumps(item).encode() for item in objects)
    schema, _ = infer_schema(write(tmp_path, data), "a.jsonl")
    assert schema.equals(pa.schema(list(expected.items())))
    assert not any(field.metadata for field in schema)


@pytest.mark.parametrize(
    ("values", "kind"), [(["x", 1], pa.string()), ([1, "x"], pa.string()), ([1, [1]], pa.null()), ([2**70], pa.null())]
)
def test_values_of_several_types_are_told(values: Sequence[Any], kind: pa.DataType, tmp_path: Path) -> None:
    storage = write(tmp_path, b"\n".join(json.dumps({"a": value}).encode() for value in values))
    field = infer_schema(storage, "a.jsonl")[0].field("a")
    assert field.type == kind
    assert b"mixed" in field.metadata


def test_the_mean_length_of_lines_is_told(tmp_path: Path) -> None:
    assert infer_schema(write(tmp_path, b'{"a":1}\n\n{"a":123}\nxx\n'), "a.jsonl")[1] == (8 + 10 + 3) / 3
    assert infer_schema(write(tmp_path, b""), "a.jsonl") == (pa.schema([]), 0.0)


def test_the_position_after_some_rows_skips_blank_lines(tmp_path: Path) -> None:
    storage = write(tmp_path, b"{}\n\n{}\n{}\n\n")
    assert [position_after(storage, "a.jsonl", rows) for rows in range(5)] == [
        (0, 0),
        (4, 1),
        (7, 2),
        (None, 3),
        (None, 3),
    ]
