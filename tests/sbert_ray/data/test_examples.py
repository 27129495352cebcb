"""Tables of examples: which columns they need, and what is said of rows that are wrong."""

import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from sbert_ray.data.errors import InputError
from sbert_ray.data.examples import Examples, Role

PAIR = (Role("sentence1", "sentence1", "text"), Role("score", "score", "number"))
ID = (Role("id", "id", "id"), Role("text", "text", "text", takes_several=True))


def table(path: Path, **columns: Any) -> str:
    pq.write_table(pa.table(columns), path / "t.parquet", row_group_size=2)
    return str(path / "t.parquet")


def lines(path: Path, *rows: Any) -> str:
    (path / "t.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return str(path / "t.jsonl")


def test_values_come_by_role(tmp_path: Path) -> None:
    url = table(tmp_path, premise=["a", "b", "c"], score=[1, 2, 3], other=[0, 0, 0])
    found = Examples.open(url, PAIR, {"sentence1": ["premise"]})
    assert found.read() == {"sentence1": ["a", "b", "c"], "score": [1.0, 2.0, 3.0]}
    assert found.only("score").read() == {"score": [1.0, 2.0, 3.0]}
    assert found.described()[0]["rows"] == 3


def test_lines_of_several_files_come_in_the_order_of_their_names(tmp_path: Path) -> None:
    for name in ("b", "a"):
        (tmp_path / f"{name}.jsonl").write_text(json.dumps({"sentence1": name, "score": 0.5}) + "\n")
    assert Examples.open(str(tmp_path), PAIR, {}).read()["sentence1"] == ["a", "b"]


def test_several_columns_are_joined_and_nulls_left_out(tmp_path: Path) -> None:
    url = table(tmp_path, id=[1, 2], title=["t", None], text=["a", "b"])
    found = Examples.open(url, ID, {"text": ["title", "text"]})
    assert found.read() == {"id": ["1", "2"], "text": ["t\na", "b"]}


def test_a_role_without_a_column_is_not_read(tmp_path: Path) -> None:
    assert Examples.open(table(tmp_path, sentence1=["a"]), PAIR, {"score": [""]}).read() == {"sentence1": ["a"]}


@pytest.mark.parametrize("limit", [1, 2, 3, 9])
def test_no_more_rows_are_read_than_asked_for(tmp_path: Path, limit: int) -> None:
    url = table(tmp_path, sentence1=list("abcde"), score=[1, 2, 3, 4, 5])
    assert len(Examples.open(url, PAIR, {}, limit=limit).read()["score"]) == min(limit, 5)


@pytest.mark.parametrize(
    ("kind", "values", "message"),
    [
        ("text", ["a", None], r"row 1, column 'x': must be a text, got null"),
        ("number", [0.5, None], r"row 1, column 'x': must be a finite number, got null"),
        ("number", [0.5, float("nan")], r"row 1, column 'x': must be a finite number, got nan"),
        ("label", [0, 2], r"row 1, column 'x': a label must be 0 or 1, got 2"),
        ("label", [0.0, 0.5], r"row 1, column 'x': a label must be 0 or 1, got 0.5"),
        ("label", [0, None], r"row 1, column 'x': a label must be 0 or 1, got null"),
        ("id", ["a", None], r"row 1, column 'x': an id must not be null"),
        ("texts", [["a"], None], r"row 1, column 'x': must be a text or a list of texts, got null"),
        ("texts", [["a"], ["b", None]], r"row 1, column 'x': must be a text or a list of texts, got one with a null"),
        ("number", ["a", "b"], r"column 'x' is string; as x it must hold numbers"),
        ("label", ["a", "b"], r"column 'x' is string; as x it must hold whole numbers"),
        ("texts", [[1], [2]], r"column 'x' is list<.*: int64>; as x it must hold texts or lists of texts"),
        ("id", [[1], [2]], r"column 'x' is list<.*: int64>; as x it must hold ids"),
        ("text", [1, 2], r"column 'x' is int64; a text column must hold strings"),
    ],
)
def test_what_is_wrong_is_named(tmp_path: Path, kind: Any, values: list[Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        Examples.open(table(tmp_path, x=values), [Role("x", "x", kind)], {}).read()


@pytest.mark.parametrize(
    ("kind", "values", "expected"),
    [
        ("label", [True, False], [1, 0]),
        ("label", [1.0, 0.0], [1, 0]),
        ("label", [2, 1], [2, 1]),
        ("texts", ["a", "b"], [["a"], ["b"]]),
        ("texts", [["a", "c"], []], [["a", "c"], []]),
        ("id", [1, 2], ["1", "2"]),
    ],
)
def test_values_are_taken_as_what_they_are_for(tmp_path: Path, kind: Any, values: list[Any], expected: Any) -> None:
    assert Examples.open(table(tmp_path, x=values), [Role("x", "x", kind)], {}, 3).read() == {"x": expected}


def test_a_class_that_the_model_does_not_have_is_named(tmp_path: Path) -> None:
    url = table(tmp_path, x=[0, 3])
    with pytest.raises(InputError, match="a label must be a whole number from 0 to 2, got 3"):
        Examples.open(url, [Role("x", "x", "label")], {}, num_labels=3).read()


def test_a_wrong_line_is_named_by_its_byte(tmp_path: Path) -> None:
    url = lines(tmp_path, {"sentence1": "a", "score": 1.5}, {"sentence1": None, "score": 2.5})
    with pytest.raises(InputError, match=r"t.jsonl, line at byte 33, column 'sentence1': must be a text, got null"):
        Examples.open(url, PAIR, {}).read()


def test_a_line_that_cannot_be_parsed_is_an_error(tmp_path: Path) -> None:
    url = lines(tmp_path, {"sentence1": "a", "score": 1.5})
    with Path(url).open("a") as file:
        file.write("{nonsense\n")
    with pytest.raises(InputError, match=r"t.jsonl, position 33"):
        Examples.open(url, PAIR, {}).read()


def test_invalid_utf_8_is_an_error(tmp_path: Path) -> None:
    texts = pa.array([b"a", b"\xff"]).view(pa.string())
    with pytest.raises(InputError, match="row 1, column 'sentence1': invalid UTF-8"):
        Examples.open(table(tmp_path, sentence1=texts, score=[1, 2]), PAIR, {}).read()


def test_a_missing_column_is_named(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"lacks column\(s\) \['score'\]; it has \['sentence1'\]"):
        Examples.open(table(tmp_path, sentence1=["a"]), PAIR, {})
