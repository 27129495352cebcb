"""The stages that rows go through inside a worker, each at work on other rows than the next."""

import threading
import time
from collections import defaultdict
from collections.abc import Callable, Generator, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any, TypeVar

T = TypeVar("T")

Beat = Callable[[int], None]
"""Called after each batch with its rows: a sign of life, and progress."""

WAIT_SECONDS = 0.5
"""Between signs of life of whoever waits for a stage."""


class Stopwatch:
    """Adds up the seconds of named stages, which may run in several threads."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = defaultdict(float)
        self._lock = threading.Lock()

    def add(self, name: str, seconds: float) -> None:
        """Count seconds under ``name``."""
        with self._lock:
            self.seconds[name] += seconds

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        """Count the time in the block under ``name``."""
        start = time.perf_counter()
        try:
            yield
        finally:
            self.add(name, time.perf_counter() - start)

    def each(self, name: str, items: Iterator[Any]) -> Iterator[Any]:
        """Yield ``items``, counting the time that each takes to come under ``name``."""
        while True:
            with self.stage(name):
                item = next(items, None)
            if item is None:
                return
            yield item


class Stage:
    """Runs calls one at a time, in the order in which they come, in a thread of its own, and tells how busy it was.

    One thread for all calls, since libraries keep helpers and buffers for each thread that computes.

    Args:
        name: of the thread.
    """

    def __init__(self, name: str) -> None:
        self._thread = ThreadPoolExecutor(1, thread_name_prefix=name)
        self._lock = threading.Lock()
        self._busy = 0.0
        self._first: float | None = None
        """When the first call began."""
        self._since: float | None = None
        """When the present call began."""

    def run(self, work: Callable[[], T], beat: Beat, watch: Stopwatch) -> T:
        """Return what ``work`` returns, when its turn has come; until then time counts under ``wait``.

        Whoever waits is alive: if the call that runs hangs, it is that one which gives no sign.
        """
        asked = time.perf_counter()
        has_begun = threading.Event()

        def call() -> T:
            watch.add("wait", time.perf_counter() - asked)
            has_begun.set()
            with self._at_work():
                return work()

        running = self._thread.submit(call)
        while not has_begun.wait(WAIT_SECONDS):
            beat(0)
        return running.result()

    @contextmanager
    def _at_work(self) -> Iterator[None]:
        with self._lock:
            self._since = time.perf_counter()
            self._first = self._first or self._since
        try:
            yield
        finally:
            with self._lock:
                self._busy += time.perf_counter() - self._since
                self._since = None

    def usage(self) -> tuple[float, float]:
        """Return the seconds in which calls ran, and those since the first one began."""
        with self._lock:
            now = time.perf_counter()
            running = 0.0 if self._since is None else now - self._since
            return self._busy + running, 0.0 if self._first is None else now - self._first


def ahead(items: Iterator[T]) -> Generator[T, None, None]:
    """Yield ``items``, the next of which is made in another thread while the present one is used; never more than one.

    Close it, or use it up, so that the thread ends.
    """
    end: Any = object()
    with ThreadPoolExecutor(1, thread_name_prefix="ahead") as thread:
        coming = thread.submit(next, items, end)
        while (item := coming.result()) is not end:
            coming = thread.submit(next, items, end)
            yield item
