"""What workers share: the search for rows that fail, turns at the device, and the stopwatch."""

import threading
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch

from actors.worker import (
    MAX_FAILURES,
    Beat,
    BrokenDeviceError,
    DeviceMemoryError,
    Stopwatch,
    UnitWorker,
    find_failures,
)
from sbert_ray.data.dataset import Dataset
from sbert_ray.data.rows import Rows
from sbert_ray.data.units import Unit

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


def test_the_stopwatch_adds_up_stages() -> None:
    watch = Stopwatch()
    begun = time.perf_counter()
    for _ in range(2):
        with watch.stage("work"):
            time.sleep(0.01)
    assert list(watch.each("read", iter([1, 2]))) == [1, 2]
    assert watch.seconds["work"] >= 0.02
    assert sum(watch.seconds.values()) <= time.perf_counter() - begun
    assert set(watch.seconds) == {"work", "read"}
