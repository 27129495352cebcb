"""Types of columns: values of all that Parquet keeps are compared, and what cannot be copied says why."""

import pyarrow as pa
import pytest

from sbert_ray.data.kinds import are_comparable, check_copied, comparable, hashes, num_repeated, read_as
from tests.sbert_ray.data.ids import IDS

VIEWS = {
    pa.string_view(): pa.large_string(),
    pa.binary_view(): pa.large_binary(),
    pa.list_(pa.string_view()): pa.list_(pa.large_string()),
    pa.large_list(pa.binary_view()): pa.large_list(pa.large_binary()),
    pa.list_(pa.string_view(), 2): pa.list_(pa.large_string(), 2),
    pa.map_(pa.string_view(), pa.int8()): pa.map_(pa.large_string(), pa.int8()),
    pa.struct([pa.field("a", pa.string_view(), nullable=False), ("b", pa.int8())]): pa.struct(
        [pa.field("a", pa.large_string(), nullable=False), ("b", pa.int8())]
    ),
    pa.json_(pa.string_view()): pa.large_string(),
}

WITH_VIEWS = {"string_view", "binary_view", "json_view", "struct of views", "map"}


@pytest.fixture(params=IDS)
def ids(request: pytest.FixtureRequest) -> pa.ChunkedArray:
    """Two values and a null of some type, three times, in parts of larger arrays."""
    array = IDS[request.param]
    column = pa.chunked_array([pa.concat_arrays([array] * 4).slice(1, 5), pa.concat_arrays([array] * 3).slice(3, 4)])
    return column.cast(read_as(column.type))


def test_equal_values_of_any_type_are_equal(ids: pa.ChunkedArray) -> None:
    part, same, other = (comparable(ids.slice(start, 3)) for start in (0, 3, 1))
    assert part.equals(same)
    assert not part.equals(other)
    assert part.to_pylist() == same.to_pylist()
    comparable(ids).validate(full=True)


def test_equal_values_of_any_type_have_equal_hashes(ids: pa.ChunkedArray) -> None:
    found = hashes(ids).tolist()
    assert found[:3] == found[3:6] == found[6:]
    assert len(set(found)) == 3
    assert num_repeated(ids) == 6
    assert num_repeated(ids.slice(1, 3)) == num_repeated(ids.slice(0, 0)) == 0


def test_bad_rows_of_any_type_can_leave(ids: pa.ChunkedArray) -> None:
    kept = ids.filter(pa.array([True, False] * 4 + [True]))
    assert hashes(kept).tolist() == hashes(ids).tolist()[::2]


@pytest.mark.parametrize("kind", VIEWS, ids=str)
def test_views_are_read_as_large_types(kind: pa.DataType) -> None:
    assert read_as(kind) == VIEWS[kind]
    assert pa.chunked_array([pa.nulls(2, kind)]).cast(read_as(kind)).null_count == 2


@pytest.mark.parametrize("name", IDS)
def test_types_without_views_are_read_as_they_are(name: str) -> None:
    kind = IDS[name].type
    check_copied(pa.field("id", read_as(kind)))
    assert read_as(kind).equals(kind, check_metadata=True) == (name not in WITH_VIEWS)


@pytest.mark.parametrize(
    ("kind", "reason"),
    [
        (pa.list_view(pa.int8()), "Arrow converts parts of a list_view into other lists; write it as a list"),
        (pa.struct([("a", pa.large_list_view(pa.int8()))]), "Arrow converts parts of a list_view"),
        (pa.struct([]), "Parquet has no such type: Cannot write struct type 'id' with no child field"),
        (pa.list_(pa.struct([])), "Parquet has no such type: Cannot write struct type"),
        (pa.month_day_nano_interval(), "Parquet has no such type: Unhandled type"),
    ],
    ids=str,
)
def test_what_cannot_be_copied_says_why(kind: pa.DataType, reason: str) -> None:
    with pytest.raises(TypeError, match=f"^{reason}"):
        check_copied(pa.field("id", kind))


@pytest.mark.parametrize(
    ("one", "other", "expected"),
    [
        (pa.int32(), pa.uint64(), True),
        (pa.string(), pa.large_string(), True),
        (pa.timestamp("us"), pa.timestamp("us"), True),
        (pa.timestamp("us"), pa.timestamp("ns"), False),
        (pa.int64(), pa.timestamp("ns"), False),
        (pa.int64(), pa.string(), False),
    ],
)
def test_only_types_whose_equal_values_hash_equally_may_be_mixed(
    one: pa.DataType, other: pa.DataType, expected: bool
) -> None:
    assert are_comparable(one, other) is are_comparable(other, one) is expected
