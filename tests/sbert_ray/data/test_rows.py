"""Rows: what is bad leaves the table, and says where it was and why."""

from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from sbert_ray.data.rows import EXCERPT, BadRow, Rows, readable, strings

INVALID = pa.array([b"\xffx", b"ok", None], pa.binary()).view(pa.string())


def rows() -> Rows:
    table = pa.table({"id": ["a", "b", "c", "d"], "text": ["1", "2", "3", "4"]})
    return Rows("x.parquet", table, np.arange(10, 14))


def test_take_keeps_rows_and_positions_together() -> None:
    part = rows().take(range(1, 3))
    assert part.table["id"].to_pylist() == ["b", "c"]
    assert part.positions.tolist() == [11, 12]
    assert len(part) == 2


def test_bad_rows_leave_the_table_in_order() -> None:
    before = BadRow("x.parquet", 3, "unreadable")
    source = Rows("x.parquet", rows().table, rows().positions, [before])
    kept = source.without({2: "worse", 0: "bad"}, "id", {0: "y" * 1000})
    assert kept.table["id"].to_pylist() == ["b", "d"]
    assert kept.positions.tolist() == [11, 13]
    assert kept.bad == [
        before,
        BadRow("x.parquet", 10, "bad", "a", "y" * EXCERPT),
        BadRow("x.parquet", 12, "worse", "c", None),
    ]


def test_without_reasons_nothing_changes() -> None:
    source = rows()
    assert source.without({}, "id", {}) is source


def test_rows_that_lack_an_id_are_bad() -> None:
    source = Rows("x.parquet", rows().table, rows().positions, lacking={"id": {11, 13}, "text": {10}})
    kept = source.without({1: "worse"}, "id", {1: "2"})
    assert kept.positions.tolist() == [10, 12]
    assert [(row.position, row.reason) for row in kept.bad] == [(11, "worse"), (13, "the line lacks column 'id'")]
    assert source.take(range(2, 4)).without({}, "id", {}).positions.tolist() == [12]
    assert kept.without({}, "id", {}) is kept
    assert source.without({}, None, {}) is source


def test_all_rows_may_be_bad_and_need_no_id() -> None:
    kept = rows().without(dict.fromkeys(range(4), "bad"), None, {})
    assert len(kept) == kept.table.num_rows == 0
    assert [row.id for row in kept.bad] == [None] * 4


def test_a_bad_row_says_where_it_was() -> None:
    assert str(BadRow("x.parquet", 7, "the text is null")) == "x.parquet, position 7: the text is null"
    assert str(BadRow("x", 7, "r", id="a")) == "x, position 7, id 'a': r"


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (pa.scalar("a"), "a"),
        (pa.scalar(3), 3),
        (pa.scalar(None), None),
        (pa.scalar(b"\x00"), "b'\\x00'"),
        (pa.scalar([1, 2]), "[1, 2]"),
        (INVALID[0], "b'\\xffx'"),
        (INVALID.dictionary_encode()[0], "b'\\xffx'"),
        (pa.array(["a"]).dictionary_encode()[0], "a"),
        (pa.StructArray.from_arrays([INVALID], ["a"])[0], "{'a': b'\\xffx'}"),
        (pa.scalar(2**33 + 1, pa.timestamp("ns")), 2**33 + 1),
        (pa.scalar(4_000_000, pa.int32()).cast(pa.date32()), 4_000_000),
    ],
)
def test_ids_become_what_json_can_hold(value: pa.Scalar, expected: Any) -> None:
    assert readable(value) == expected


@pytest.mark.parametrize("kind", [pa.string(), pa.large_string(), pa.string_view()])
def test_strings_of_every_type_are_read(kind: pa.DataType) -> None:
    column = pa.chunked_array([pa.array(["a", None, "\u00e9\n"]).cast(kind), pa.array(["b"]).cast(kind)])
    assert strings(column) == (["a", None, "\u00e9\n", "b"], {})


@pytest.mark.parametrize("encode", [False, True])
def test_invalid_utf8_is_a_reason_for_its_row_alone(encode: bool) -> None:
    array = INVALID.dictionary_encode() if encode else INVALID
    texts, reasons = strings(pa.chunked_array([array]))
    assert texts == [None, "ok", None]
    assert reasons == {0: "invalid UTF-8 at byte 0 of the text"}
