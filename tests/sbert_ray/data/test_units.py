"""Units of work: every row once, none too large, the same ones for the same input."""

import numpy as np
import pytest

from sbert_ray.data.units import MAX_ROWS, MIN_ROWS, Unit, byte_ranges, default_rows_per_unit, numbered, row_ranges


@pytest.mark.parametrize(
    ("row_groups", "rows_per_unit", "expected"),
    [
        ([], 10, []),
        ([0, 0], 10, []),
        ([4, 4, 4], 8, [(0, 8), (8, 12)]),
        ([4, 0, 4], 8, [(0, 8)]),
        ([8, 8], 8, [(0, 8), (8, 16)]),
        ([5, 5], 8, [(0, 5), (5, 10)]),
        ([25], 10, [(0, 8), (8, 16), (16, 25)]),
        ([3, 25, 3], 10, [(0, 3), (3, 11), (11, 19), (19, 28), (28, 31)]),
        ([11], 10, [(0, 5), (5, 11)]),
        ([3], 1, [(0, 1), (1, 2), (2, 3)]),
    ],
)
def test_row_groups_stay_whole_and_larger_ones_are_cut_evenly(
    row_groups: list[int], rows_per_unit: int, expected: list[tuple[int, int]]
) -> None:
    assert list(row_ranges(row_groups, rows_per_unit)) == expected


def test_row_ranges_hold_each_row_once_and_at_most_so_many() -> None:
    random = np.random.default_rng(0)
    for _ in range(300):
        row_groups = random.integers(0, 40, size=random.integers(0, 12)).tolist()
        rows_per_unit = int(random.integers(1, 30))
        ranges = list(row_ranges(row_groups, rows_per_unit))
        assert [row for start, stop in ranges for row in range(start, stop)] == list(range(sum(row_groups)))
        assert all(0 < stop - start <= rows_per_unit for start, stop in ranges)


@pytest.mark.parametrize(
    ("size", "each", "expected"),
    [(0, 5, []), (5, 5, [(0, 5)]), (6, 5, [(0, 5), (5, 6)]), (3, 1, [(0, 1), (1, 2), (2, 3)])],
)
def test_byte_ranges_hold_each_byte_once(size: int, each: int, expected: list[tuple[int, int]]) -> None:
    assert list(byte_ranges(size, each)) == expected


@pytest.mark.parametrize(
    ("num_rows", "expected"),
    [(0, MIN_ROWS), (1, MIN_ROWS), (65_536, 256), (65_537, 512), (10**6, 4096), (10**9, MAX_ROWS)],
)
def test_the_default_size_grows_with_the_input_within_bounds(num_rows: int, expected: int) -> None:
    assert default_rows_per_unit(num_rows) == expected


def test_units_are_numbered_and_their_outputs_sort_in_their_order() -> None:
    units = list(numbered(Unit(0, "a.parquet", start, start + 1) for start in range(12)))
    assert [unit.index for unit in units] == list(range(12))
    assert [unit.start for unit in units] == list(range(12))
    names = [unit.name for unit in units]
    assert names == sorted(names)
    assert names[11] == "part-00000011"


def test_a_unit_says_where_it_lies() -> None:
    assert str(Unit(0, "a/b.parquet", 5, 9)) == "a/b.parquet [5:9]"
    assert str(Unit(0, "b.jsonl.gz", 0, None)) == "b.jsonl.gz [0:]"
