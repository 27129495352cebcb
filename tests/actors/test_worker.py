"""The search for rows that fail, and the stopwatch."""

import time

import pytest

from actors.worker import MAX_FAILURES, BrokenDeviceError, Stopwatch, find_failures


def failing(bad: set[int]):
    def run(rows: range) -> None:
        for row in rows:
            if row in bad:
                raise ValueError(f"row {row}")

    return run


@pytest.mark.parametrize("bad", [{0}, {99}, {13, 14}, set(range(20, 20 + MAX_FAILURES))], ids=str)
def test_finds_each_row_that_fails(bad: set[int]) -> None:
    expected = {row: f"ValueError: row {row}" for row in bad}
    assert find_failures(failing(bad), range(100), ValueError("all")) == expected


def test_a_failure_of_no_single_row_is_passed_on() -> None:
    def run(rows: range) -> None:
        if len(rows) > 50:
            raise ValueError("too large")

    with pytest.raises(ValueError, match="too large"):
        find_failures(run, range(100), ValueError("too large"))


def test_too_many_failures_are_passed_on() -> None:
    with pytest.raises(ValueError, match="all"):
        find_failures(failing(set(range(0, 100, 2))), range(100), ValueError("all"))


def test_a_failure_of_every_row_is_passed_on() -> None:
    with pytest.raises(ValueError, match="all"):
        find_failures(failing(set(range(4))), range(4), ValueError("all"))


@pytest.mark.parametrize("error", [BrokenDeviceError("CUDA error"), MemoryError("full"), OSError("gone")], ids=repr)
def test_what_is_no_rows_fault_ends_the_search(error: Exception) -> None:
    def run(rows: range) -> None:
        raise error if rows.start == 1 else ValueError("all")

    with pytest.raises(type(error), match=str(error)):
        find_failures(run, range(100), ValueError("all"))


def test_a_row_that_is_alone_may_fail() -> None:
    assert find_failures(failing({0}), range(1), ValueError("row 0")) == {0: "ValueError: row 0"}


def test_the_stopwatch_adds_up_stages() -> None:
    watch = Stopwatch()
    for _ in range(2):
        with watch.stage("work"):
            time.sleep(0.01)
    assert list(watch.each("read", iter([1, 2]))) == [1, 2]
    assert 0.02 <= watch.seconds["work"] < 0.5
    assert set(watch.seconds) == {"work", "read"}
