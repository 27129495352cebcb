"""A thread works ahead, in order, and is gone when nobody wants its results any more."""

import gc
import subprocess
import sys
import threading
import time
import traceback
import tracemalloc
from collections.abc import Iterator
from contextlib import closing, suppress
from itertools import count

import pytest

from sbert_ray.inference.pipeline import prefetched


@pytest.fixture(autouse=True)
def no_thread_is_left() -> Iterator[None]:
    yield
    gc.collect()
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("prefetch")]


@pytest.mark.parametrize("depth", [1, 2, 100])
@pytest.mark.parametrize("num_items", [0, 1, 2, 50])
def test_results_come_in_order(num_items: int, depth: int) -> None:
    assert list(prefetched(range(num_items), lambda item: item * item, depth)) == [i * i for i in range(num_items)]


def test_one_thread_works_ahead_and_no_further_than_depth() -> None:
    workers, done = set(), []

    def work(item: int) -> int:
        workers.add(threading.get_ident())
        done.append(item)
        return item

    with closing(prefetched(count(), work, 3)) as results:
        assert next(results) == 0
        deadline = time.monotonic() + 10
        while len(done) < 4 and time.monotonic() < deadline:
            time.sleep(0.001)
        time.sleep(0.05)
        assert done == [0, 1, 2, 3], "the one that was read, and three ahead"
    assert len(workers) == 1
    assert threading.get_ident() not in workers


def test_work_and_reading_overlap() -> None:
    """What is handed over between two threads that wait for each other: neither could go on alone."""
    meeting = threading.Barrier(2)

    def work(item: int) -> int:
        if item > 0:
            meeting.wait(10)
        return item

    for item in prefetched(range(5), work, 1):
        if item < 4:
            meeting.wait(10)
    assert not meeting.broken


def fail_at_three(item: int) -> int:
    if item == 3:
        raise LookupError("no three")
    return item


def test_an_error_comes_in_its_place_with_the_traceback_of_the_work() -> None:
    results = prefetched(range(10), fail_at_three, 2)
    assert [next(results) for _ in range(3)] == [0, 1, 2]
    with pytest.raises(LookupError, match="no three") as caught:
        next(results)
    assert fail_at_three.__name__ in [frame.name for frame in traceback.extract_tb(caught.value.__traceback__)]
    assert list(results) == []


def test_an_error_of_the_items_is_raised() -> None:
    def items() -> Iterator[int]:
        yield 0
        raise LookupError("no items")

    with pytest.raises(LookupError, match="no items"):
        list(prefetched(items(), abs, 1))


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt, None])
def test_a_reader_that_stops_early_stops_the_thread(error: type[BaseException] | None) -> None:
    done = []

    def read() -> None:
        for item in prefetched(count(), done.append, 2):
            assert item is None
            if len(done) >= 3:
                if error is None:
                    break
                raise error

    with suppress(*([error] if error else [])):
        read()
    gc.collect()
    number = len(done)
    time.sleep(0.02)
    assert len(done) == number


def test_closing_waits_for_the_item_in_work_and_drops_the_others() -> None:
    started, done = threading.Event(), []

    def work(item: int) -> None:
        if item > 0:
            started.set()
            time.sleep(0.1)
        done.append(item)

    with closing(prefetched(count(), work, 5)) as results:
        next(results)
        started.wait(10)
    assert done == [0, 1]


def test_the_thread_itself_may_collect_a_forgotten_iterator() -> None:
    closed = threading.Event()

    def work(item: int) -> int:
        if item == 1:
            reading.wait(10)
            results.close()
            closed.set()
        return item

    reading = threading.Event()
    results = prefetched(range(5), work, 2)
    assert next(results) == 0
    reading.set()
    assert closed.wait(10)
    for thread in threading.enumerate():
        if thread.name.startswith("prefetch"):
            thread.join(10)


def test_no_thread_starts_before_a_result_is_asked_for() -> None:
    results = prefetched([1], abs, 1)
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("prefetch")]
    assert list(results) == [1]


def test_a_thousand_uses_leave_no_memory() -> None:
    def use() -> None:
        with closing(prefetched(range(5), lambda item: bytes(10_000 + item), 2)) as results:
            next(results)

    def used(times: int) -> int:
        for _ in range(times):
            use()
        gc.collect()
        return tracemalloc.get_traced_memory()[0]

    tracemalloc.start()
    try:
        before = used(100)
        assert used(1000) - before < 50_000, "less than 50 bytes a use"
    finally:
        tracemalloc.stop()


UNFINISHED = """
import itertools
from sbert_ray.inference.pipeline import prefetched
results = prefetched(itertools.count(), lambda item: bytes(10), 2)
next(results)
print("end")
"""


def test_a_program_may_end_with_results_unread() -> None:
    run = subprocess.run([sys.executable, "-c", UNFINISHED], capture_output=True, text=True, check=True, timeout=60)
    assert (run.stdout, run.stderr) == ("end\n", "")


def test_rejects_no_depth() -> None:
    with pytest.raises(ValueError, match="depth must be positive, got 0"):
        prefetched([], abs, 0)
