"""Columns: what is missing or of a wrong type is named before anything starts."""

import pyarrow as pa
import pytest

from sbert_ray.data.columns import Columns
from sbert_ray.data.errors import InputError

TEXT = [
    pa.string(),
    pa.large_string(),
    pa.dictionary(pa.int32(), pa.string()),
    pa.dictionary(pa.int8(), pa.large_string()),
]


def check(*schemas: dict[str, pa.DataType]) -> pa.Schema:
    columns = Columns(["text"], ["id"])
    for index, schema in enumerate(schemas):
        columns.add(f"{index}.parquet", pa.schema(list(schema.items())))
    return columns.schema


@pytest.mark.parametrize("kind", TEXT, ids=str)
def test_text_may_be_of_any_string_type(kind: pa.DataType) -> None:
    assert check({"id": pa.int64(), "more": pa.int8(), "text": kind}) == pa.schema([("text", kind), ("id", pa.int64())])


def test_views_are_promised_as_what_they_are_read_as() -> None:
    expected = pa.schema([("text", pa.large_string()), ("id", pa.large_binary())])
    assert check({"id": pa.binary_view(), "text": pa.string_view()}) == expected
    assert check({"id": pa.large_binary(), "text": pa.string()}, {"id": pa.binary_view(), "text": pa.string_view()})
    with pytest.raises(
        InputError, match=r"1\.parquet: column 'id' is string_view, but binary_view in 0\.parquet; a col"
    ):
        check({"id": pa.binary_view(), "text": pa.string()}, {"id": pa.string_view(), "text": pa.string()})


def test_text_may_be_of_different_string_types_in_different_files() -> None:
    assert check(*({"id": pa.int64(), "text": kind} for kind in TEXT)).field("text").type == pa.string()


@pytest.mark.parametrize("kind", [pa.int64(), pa.binary(), pa.list_(pa.string()), pa.dictionary(pa.int8(), pa.int8())])
def test_text_of_another_type_is_refused(kind: pa.DataType) -> None:
    with pytest.raises(InputError, match=r"0\.parquet: column 'text' is .*; a text column must hold strings"):
        check({"id": pa.int64(), "text": kind})


def test_missing_columns_are_named_with_what_is_there() -> None:
    with pytest.raises(InputError, match=r"1\.parquet lacks column\(s\) \['text', 'id'\]; it has \['body', 'n'\]"):
        check({"id": pa.int64(), "text": pa.string()}, {"body": pa.string(), "n": pa.int64()})


def test_a_copied_column_must_have_one_type() -> None:
    with pytest.raises(
        InputError,
        match=r"1\.parquet: column 'id' is string, but int64 in 0\.parquet; a column that is copied must have",
    ):
        check({"id": pa.int64(), "text": pa.string()}, {"id": pa.string(), "text": pa.string()})


@pytest.mark.parametrize("kind", [pa.list_view(pa.int8()), pa.struct([])], ids=str)
def test_a_type_that_cannot_be_copied_is_refused(kind: pa.DataType) -> None:
    with pytest.raises(InputError, match=r"^0\.parquet: column 'id' is .*, which cannot be copied to the output: .*"):
        check({"id": kind, "text": pa.string()})


def test_a_column_of_nulls_fits_all_types() -> None:
    nulls = {"id": pa.null(), "text": pa.null()}
    typed = {"id": pa.int64(), "text": pa.large_string()}
    assert check(nulls, typed, nulls) == pa.schema([("text", pa.large_string()), ("id", pa.int64())])
    assert check(nulls) == pa.schema([("text", pa.string()), ("id", pa.string())])


def test_a_column_may_be_text_and_copied() -> None:
    columns = Columns(["text"], ["text", "id"])
    columns.add("a", pa.schema([("id", pa.int8()), ("text", pa.string())]))
    assert columns.schema.names == ["text", "id"]


def test_two_columns_of_one_name_are_refused() -> None:
    columns = Columns(["text"], [])
    with pytest.raises(InputError, match=r"a\.parquet has several columns called 'text'"):
        columns.add("a.parquet", pa.schema([("text", pa.string()), ("text", pa.string())]))
