"""The stages of a worker: turns in order, time that is told apart, and one item made ahead."""

import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from types import SimpleNamespace

import pytest

from actors.stages import Stage, Stopwatch, ahead

SECONDS = 30
"""More than anything here takes."""


class Clock:
    """Tells the time that it is told."""

    def __init__(self) -> None:
        self.now = 100.0

    def perf_counter(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr("actors.stages.time", SimpleNamespace(perf_counter=clock.perf_counter))
    return clock


def silent(num_rows: int) -> None:
    """Take a sign of life."""


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


def test_calls_have_their_turns_in_the_order_in_which_they_come() -> None:
    stage, may_begin, done = Stage("test"), threading.Event(), []

    def first() -> None:
        assert may_begin.wait(SECONDS)

    with ThreadPoolExecutor() as threads:
        calls = [threads.submit(stage.run, first, silent, Stopwatch())]
        while stage.usage()[1] == 0.0:
            time.sleep(0.001)
        for number in range(3):
            calls.append(threads.submit(stage.run, lambda n=number: done.append(n), silent, Stopwatch()))
            while stage._thread._work_queue.qsize() <= number:
                time.sleep(0.001)
        may_begin.set()
        for call in calls:
            call.result(SECONDS)
    assert done == [0, 1, 2]


def test_all_calls_run_in_one_thread() -> None:
    stage = Stage("test")
    with ThreadPoolExecutor() as threads:
        calls = [threads.submit(stage.run, threading.get_ident, silent, Stopwatch()) for _ in range(8)]
        assert len({call.result(SECONDS) for call in calls}) == 1


def test_a_call_that_fails_leaves_the_stage_to_others() -> None:
    stage = Stage("test")
    with pytest.raises(ZeroDivisionError):
        stage.run(lambda: 1 // 0, silent, Stopwatch())
    assert stage.run(lambda: 5, silent, Stopwatch()) == 5


def test_a_stage_that_was_never_used_has_used_nothing() -> None:
    assert Stage("test").usage() == (0.0, 0.0)


def test_time_at_work_is_told_from_time_since_the_first_call(clock: Clock) -> None:
    stage, watch = Stage("test"), Stopwatch()

    def work(seconds: float) -> tuple[float, float]:
        clock.now += seconds
        return stage.usage()

    clock.now += 50  # before the first call nothing counts
    assert stage.run(lambda: work(3.0), silent, watch) == (3.0, 3.0)  # a call that still runs counts so far
    clock.now += 1.0
    assert stage.run(lambda: work(2.0), silent, watch) == (5.0, 6.0)
    clock.now += 4.0
    assert stage.usage() == (5.0, 10.0)
    assert watch.seconds == {"wait": 0.0}


def test_items_come_in_order_and_one_is_made_ahead() -> None:
    made: list[int] = []
    is_made = threading.Condition()

    def make() -> Iterator[int]:
        for number in range(5):
            with is_made:
                made.append(number)
                is_made.notify()
            yield number

    used = []
    for number in ahead(make()):
        used.append(number)
        with is_made:
            assert is_made.wait_for(lambda n=number: len(made) == min(n + 2, 5), SECONDS)
    assert used == [0, 1, 2, 3, 4]


def test_a_failure_comes_after_the_items_before_it() -> None:
    def make() -> Iterator[int]:
        yield 1
        yield 2
        raise ValueError("no more")

    used = []
    with pytest.raises(ValueError, match="no more"):
        used.extend(ahead(make()))
    assert used == [1, 2]


def test_whoever_stops_early_leaves_no_thread() -> None:
    before = threading.active_count()
    with closing(ahead(ahead(iter(range(10))))) as items:
        assert next(items) == 0
        assert threading.active_count() > before
    del items
    assert threading.active_count() == before
