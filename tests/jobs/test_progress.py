"""What a run says of its progress, in a log and on a terminal."""

import io
import logging
import sys

import pytest

from jobs import progress
from jobs.progress import Progress


class Clock:
    """A clock that tests turn."""

    now = 1000.0

    def monotonic(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(progress, "time", clock)
    return clock


def messages(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [record.getMessage() for record in caplog.records if record.name == "jobs.progress"]


@pytest.fixture(autouse=True)
def info(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, logger="jobs.progress")


def test_a_log_gets_a_line_now_and_then(clock: Clock, caplog: pytest.LogCaptureFixture) -> None:
    with Progress("embed", total=1000, resumed=0, exact=True) as shown:
        for second in range(31):
            clock.now = 1000.0 + second
            shown.show(rows=10 * second, tokens=50 * second)
    assert messages(caplog) == [
        "embed 100 of 1,000 rows, 10 rows/s, 56 tokens/s, 90 s left",
        "embed 200 of 1,000 rows, 10 rows/s, 53 tokens/s, 80 s left",
        "embed 300 of 1,000 rows, 10 rows/s, 52 tokens/s, 70 s left",
    ]


def test_tokens_are_left_out_where_they_are_not_counted(clock: Clock, caplog: pytest.LogCaptureFixture) -> None:
    with Progress("evaluate", total=100, resumed=0, exact=False) as shown:
        for second in range(12):
            clock.now = 1000.0 + second
            shown.show(rows=5 * second, tokens=None)
    assert messages(caplog) == ["evaluate 50 of about 100 rows, 5 rows/s, 10 s left"]


def test_a_patient_log_gets_fewer_lines(
    clock: Clock, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(progress, "LOG_SECONDS", 25.0)
    with Progress("embed", total=1000, resumed=0, exact=True) as shown:
        for second in range(31):
            clock.now = 1000.0 + second
            shown.show(rows=10 * second, tokens=0)
    assert messages(caplog) == ["embed 250 of 1,000 rows, 10 rows/s, 0 tokens/s, 75 s left"]


def test_starting_workers_does_not_count_as_work(clock: Clock, caplog: pytest.LogCaptureFixture) -> None:
    with Progress("embed", total=1000, resumed=0, exact=True) as shown:
        for second, rows in ((20, 0), (60, 100), (70, 200)):
            clock.now = 1000.0 + second
            shown.show(rows, tokens=0)
    assert messages(caplog) == [
        "embed 0 of 1,000 rows, 0 rows/s, 0 tokens/s, starting",
        "embed 100 of 1,000 rows, 0 rows/s, 0 tokens/s, starting",
        "embed 200 of 1,000 rows, 10 rows/s, 0 tokens/s, 80 s left",
    ]


def test_rows_of_earlier_runs_are_not_this_runs_speed(clock: Clock, caplog: pytest.LogCaptureFixture) -> None:
    with Progress("embed", total=10_000, resumed=5000, exact=True) as shown:
        for second, rows in ((1, 5000), (2, 5001), (12, 5101)):
            clock.now = 1000.0 + second
            shown.show(rows, tokens=1000)
    assert messages(caplog) == [
        "embed 5,101 of 10,000 rows, 10 rows/s, 100 tokens/s, 490 s left, 5,000 from earlier runs"
    ]


def test_an_estimated_total_says_so_and_may_be_passed(clock: Clock, caplog: pytest.LogCaptureFixture) -> None:
    with Progress("embed", total=100, resumed=0, exact=False) as shown:
        for second, rows in ((1, 10), (11, 120)):
            clock.now = 1000.0 + second
            shown.show(rows, tokens=0, note="3 bad")
    assert messages(caplog) == ["embed 120 of about 100 rows, 11 rows/s, 0 tokens/s, 0 s left, 3 bad"]


class Terminal(io.StringIO):
    """A stream with a person before it."""

    def isatty(self) -> bool:
        return True


def test_a_terminal_gets_a_bar(clock: Clock, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch) -> None:
    terminal = Terminal()
    monkeypatch.setattr(sys, "stderr", terminal)
    with Progress("embed", total=1000, resumed=200, exact=True) as shown:
        for second, rows in ((1, 210), (21, 600), (22, 1100)):
            clock.now = 1000.0 + second
            shown.show(rows, tokens=4000, note="3 bad")
    states = terminal.getvalue().split("\r")
    assert any("embed:  60%" in state and "600/1000" in state and "200 tokens/s 3 bad" in state for state in states)
    assert "1100/1100" in states[-1]  # more than were expected
    assert terminal.getvalue().endswith("\n")
    assert messages(caplog) == []
