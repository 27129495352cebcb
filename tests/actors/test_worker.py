"""What workers share: the search for rows that fail, stages at work at the same time, and what they tell of it."""

import threading
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch

from actors.device import BrokenDeviceError, DeviceMemoryError
from actors.member import PoolOptions
from actors.stages import Beat, Stopwatch
from actors.worker import MAX_FAILURES, UnitWorker, find_failures
from jobs.summary import idle_share
from sbert_ray.data.dataset import Dataset
from sbert_ray.data.rows import Rows
from sbert_ray.data.units import Unit
from tests.actors.test_stages import Clock

SECONDS = 30
"""More than anything here takes."""


class Lengths(UnitWorker):
    """Measures texts on a device that is a function."""

    columns: Sequence[str] = ("text",)

    def __init__(self, folder: Path, device: Callable[[list[str]], None]) -> None:
        (folder / "in").mkdir()
        pq.write_table(pa.table({"text": ["a dog", "the cat", "a mat"]}), folder / "in/a.parquet")
        super().__init__(Dataset.open(f"{folder}/in", ["text"]).reader(100), f"{folder}/out")
        self.device = device

    def check(self, rows: Rows, excluded: Mapping[int, str], beat: Beat) -> Rows:
        reasons = {i: excluded[int(p)] for i, p in enumerate(rows.positions) if int(p) in excluded}
        return rows.without(reasons, None, {})

    def prepare(self, rows: Rows, beat: Beat, watch: Stopwatch) -> list[str]:
        return list(rows.table["text"].to_pylist())

    def compute(self, prepared: list[str], beat: Beat) -> list[int]:
        self.device(prepared)
        return [len(text) for text in prepared]

    def table(self, unit: Unit, rows: Rows, result: list[int]) -> pa.Table:
        return pa.table({"length": result})

    def stats(self, rows: Rows, prepared: list[str], result: list[int]) -> dict[str, Any]:
        return {}

    def quarantine(self, rows: Rows, reasons: Mapping[int, str]) -> Rows:
        return rows.without(reasons, None, {})


UNIT = Unit(0, "a.parquet", 0, 3)


def silent(num_rows: int) -> None:
    """Take a sign of life."""


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


@pytest.mark.parametrize(
    "error",
    [BrokenDeviceError("CUDA error"), DeviceMemoryError("full"), MemoryError("full"), OSError("gone")],
    ids=repr,
)
def test_what_is_no_rows_fault_ends_the_search(error: Exception) -> None:
    def run(rows: range) -> None:
        raise error if rows.start == 1 else ValueError("all")

    with pytest.raises(type(error), match=str(error)):
        find_failures(run, range(100), ValueError("all"))


def test_a_row_that_is_alone_may_fail() -> None:
    assert find_failures(failing({0}), range(1), ValueError("row 0")) == {0: "ValueError: row 0"}


@pytest.mark.parametrize(
    "error",
    [
        torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 MiB."),
        RuntimeError("CUDA error: out of memory"),
        RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"),
    ],
    ids=["torch", "driver", "cublas"],
)
def test_a_device_without_memory_for_a_single_row_is_not_that_rows_fault(tmp_path: Path, error: Exception) -> None:
    def device(texts: list[str]) -> None:
        if "the cat" in texts:
            raise error

    worker = Lengths(tmp_path, device)
    message = r"^the device is out of memory; lower --max-batch-tokens, or give the worker a device of its own: CUDA"
    for try_it in (lambda: worker.process(UNIT, silent), lambda: worker.probe(UNIT, silent, [1])):
        with pytest.raises(DeviceMemoryError, match=message):
            try_it()
    assert worker.process(UNIT, silent, {1: "is too long"}).committed.rows == 2


def test_a_unit_that_waits_for_the_device_gives_signs_of_life(tmp_path: Path) -> None:
    is_computing, is_waiting, may_end = threading.Event(), threading.Event(), threading.Event()

    def device(texts: list[str]) -> None:
        is_computing.set()
        assert may_end.wait(SECONDS)

    worker = Lengths(tmp_path, device)
    silent_beats: list[int] = []
    with ThreadPoolExecutor() as threads:
        computing = threads.submit(worker.process, UNIT, silent_beats.append)
        assert is_computing.wait(SECONDS)
        waiting = threads.submit(worker.process, UNIT, lambda _: is_waiting.set())
        has_beaten = is_waiting.wait(SECONDS)
        may_end.set()
        assert (has_beaten, silent_beats) == (True, [])
        assert {call.result(SECONDS).committed.rows for call in (computing, waiting)} == {3}


@pytest.mark.parametrize("num_units", [1, 4])
def test_four_stages_work_on_four_parts_at_the_same_time(tmp_path: Path, num_units: int) -> None:
    """Each stage of a certain part waits for the others, of the parts before and after: else they would not meet."""
    meeting = threading.Barrier(4)

    class Staged(Lengths):
        def meet(self, text: str, expected: str) -> None:
            if text == expected:
                meeting.wait(SECONDS)

        def check(self, rows: Rows, excluded: Mapping[int, str], beat: Beat) -> Rows:
            self.meet(rows.table["text"][0].as_py(), "text 3")
            return super().check(rows, excluded, beat)

        def prepare(self, rows: Rows, beat: Beat, watch: Stopwatch) -> list[str]:
            texts = super().prepare(rows, beat, watch)
            self.meet(texts[0], "text 2")
            return texts

        def compute(self, prepared: list[str], beat: Beat) -> list[int]:
            self.meet(prepared[0], "text 1")
            return super().compute(prepared, beat)

        def table(self, unit: Unit, rows: Rows, result: list[int]) -> pa.Table:
            self.meet(rows.table["text"][0].as_py(), "text 0")
            return super().table(unit, rows, result)

    worker = Staged(tmp_path, lambda texts: None)
    lines = [f'{{"text": "text {number}"}}\n' for number in range(4)]
    if num_units == 1:
        units = [write_lines(tmp_path, 0, lines)]
    else:
        units = [write_lines(tmp_path, number, [line]) for number, line in enumerate(lines)]
    worker.reader = replace(worker.reader, max_rows=1)
    with ThreadPoolExecutor() as threads:
        # The parts come in order even where they are units: each begins when the one before is ahead of it.
        calls = []
        for unit in units:
            calls.append(threads.submit(worker.process, unit, silent))
            time.sleep(0.1)
        reports = [call.result(SECONDS) for call in calls]
    assert sum(report.committed.rows for report in reports) == 4


def write_lines(folder: Path, number: int, lines: list[str]) -> Unit:
    """Write a file of JSON lines beside the others, and return the unit that it is."""
    (folder / f"in/{number}.jsonl").write_text("".join(lines))
    return Unit(number, f"{number}.jsonl", 0, None)


def test_a_part_that_cannot_be_prepared_waits_for_its_turn_and_costs_its_bad_rows_alone(tmp_path: Path) -> None:
    class Picky(Lengths):
        def prepare(self, rows: Rows, beat: Beat, watch: Stopwatch) -> list[str]:
            texts = super().prepare(rows, beat, watch)
            if "bad" in texts:
                raise ValueError("no such text")
            return texts

    worker = Picky(tmp_path, lambda texts: None)
    worker.reader = replace(worker.reader, max_rows=2)
    unit = write_lines(tmp_path, 0, [f'{{"text": "{text}"}}\n' for text in ("a", "b", "bad", "c", "d", "e")])
    report = worker.process(unit, silent)
    assert (report.committed.rows, report.committed.bad_rows, report.stats["rows"]) == (5, 1, 6)
    assert [row.reason for row in report.bad] == ["ValueError: no such text"]
    assert pq.read_table(tmp_path / "out" / report.committed.file)["length"].to_pylist() == [1] * 5


def test_a_unit_that_fails_ends_with_its_error_and_leaves_nothing(tmp_path: Path) -> None:
    def device(texts: list[str]) -> None:
        if "2" in texts:
            raise BrokenDeviceError("CUDA error: device-side assert triggered")

    worker = Lengths(tmp_path, device)
    worker.reader = replace(worker.reader, max_rows=1)
    unit = write_lines(tmp_path, 0, [f'{{"text": "{number}"}}\n' for number in range(5)])
    with pytest.raises(BrokenDeviceError, match="device-side assert"):
        worker.process(unit, silent)
    assert list((tmp_path / "out/data").iterdir()) == []


def test_the_report_tells_how_long_the_device_was_idle(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A toy whose stages take 2, 3 and 1 seconds of its own clock, one unit after the other."""
    clock, reader = Clock(), threading.local()

    def perf_counter() -> float:
        return getattr(reader, "now", clock.now)

    monkeypatch.setattr("actors.stages.time", SimpleNamespace(perf_counter=perf_counter))

    class Slow(Lengths):
        def check(self, rows: Rows, excluded: Mapping[int, str], beat: Beat) -> Rows:
            reader.now = clock.now  # for its thread, which looks ahead while the other stages move the clock
            return super().check(rows, excluded, beat)

        def prepare(self, rows: Rows, beat: Beat, watch: Stopwatch) -> list[str]:
            with watch.stage("tokenize"):
                clock.now += 2.0
            return super().prepare(rows, beat, watch)

        def table(self, unit: Unit, rows: Rows, result: list[int]) -> pa.Table:
            clock.now += 1.0
            return super().table(unit, rows, result)

    def device(texts: list[str]) -> None:
        clock.now += 3.0

    worker = Slow(tmp_path, device)
    first = worker.process(UNIT, silent)
    assert (first.usage.device_seconds, first.usage.device_span) == (3.0, 4.0)  # from when it computed first
    second = worker.process(replace(UNIT, index=1), silent)
    assert (second.usage.device_seconds, second.usage.device_span) == (6.0, 4.0 + 2.0 + 3.0 + 1.0)
    assert second.stats["seconds"] == {"read": 0.0, "tokenize": 2.0, "wait": 0.0, "compute": 3.0, "write": 1.0}
    assert idle_share([second.usage]) == pytest.approx(0.4)
    assert 0 < first.usage.cpu_seconds < second.usage.cpu_seconds
    assert first.begun <= first.finished <= second.begun


def test_a_device_with_units_ahead_is_hardly_idle(tmp_path: Path) -> None:
    """The stages together take twice as long as computing, and hide behind it."""

    class Slow(Lengths):
        def check(self, rows: Rows, excluded: Mapping[int, str], beat: Beat) -> Rows:
            time.sleep(0.1)
            return super().check(rows, excluded, beat)

        def prepare(self, rows: Rows, beat: Beat, watch: Stopwatch) -> list[str]:
            time.sleep(0.1)
            return super().prepare(rows, beat, watch)

        def table(self, unit: Unit, rows: Rows, result: list[int]) -> pa.Table:
            time.sleep(0.1)
            return super().table(unit, rows, result)

    worker = Slow(tmp_path, lambda texts: time.sleep(0.2))
    with ThreadPoolExecutor(PoolOptions(1).in_flight) as threads:
        calls = [threads.submit(worker.process, replace(UNIT, index=index), silent) for index in range(8)]
        usage = max(call.result(SECONDS).usage for call in calls)
    assert usage.device_seconds >= 1.6
    assert idle_share([usage]) < 0.3  # one unit after the other it would be 0.6
