"""The Ray actor round a plain worker.

Nothing that is imported here may load a library with threads of its own, since `Host` sets their number first.
"""

import logging
import os
import pickle
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import count
from typing import Any

import ray

from actors.device import BrokenDeviceError, device_errors
from actors.threads import set_threads

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Pulse:
    """A sign of life."""

    idle_seconds: float
    """Since the last batch of a running call, or its beginning; of all calls, the one for which it is longest."""
    rows: int
    """Rows that running calls have computed so far."""


@dataclass
class _Call:
    """A running call."""

    rows: int = 0
    last_sign: float = field(default_factory=time.monotonic)

    def beat(self, num_rows: int) -> None:
        self.rows += num_rows
        self.last_sign = time.monotonic()


@contextmanager
def _portable_errors() -> Iterator[None]:
    """Make the driver read what is raised in the block: an error that cannot be unpickled looks like a death to it."""
    try:
        yield
    except Exception as error:
        if _can_travel(error):
            raise
        kind = OSError if isinstance(error, OSError) else RuntimeError
        raise kind(f"{type(error).__name__}: {error}") from error


def _can_travel(error: Exception) -> bool:
    try:
        pickle.loads(pickle.dumps(error))
    except Exception:  # noqa: BLE001 - whatever it does then, it cannot
        return False
    return True


@dataclass(frozen=True)
class Packed:
    """Builds a worker whose code is not imported before it is built, unlike that of an actor's argument.

    Args:
        build: what makes the worker, pickled.
    """

    build: bytes

    def __call__(self) -> Any:
        """Return the worker."""
        return pickle.loads(self.build)()


class Host:
    """Builds a worker and runs its methods, several calls at a time, while another thread answers ``pulse``.

    The worker is built by the first call, not by the constructor, so that an error in it reaches the driver as it is
    and a restarted actor needs nothing said again.

    Args:
        build: makes the worker.
        num_threads: CPU threads of this process; None leaves them as they are.
    """

    def __init__(self, build: Callable[[], Any], num_threads: int | None = None) -> None:
        if num_threads is not None:
            set_threads(num_threads)
        self._build = build
        self._worker: Any = None
        self._building = threading.Lock()
        self._calls: dict[int, _Call] = {}
        self._numbers = count()

    def start(self) -> str:
        """Build the worker and return where it lives."""
        with _portable_errors():
            self._ready()
        return f"{socket.gethostname()}:{os.getpid()}"

    def run(self, method: str, *args: Any) -> Any:
        """Call ``method`` of the worker; before ``args`` of the second and later comes what reports progress."""
        number, call = next(self._numbers), _Call()
        self._calls[number] = call
        try:
            worker = self._ready()
            call.beat(0)
            first, *rest = args
            with _portable_errors():
                return getattr(worker, method)(first, call.beat, *rest)
        except BrokenDeviceError:
            logger.exception("the device is of no more use to this process, which ends")
            os._exit(1)  # Ray starts another
        finally:
            del self._calls[number]

    @ray.method(concurrency_group="control")
    def pulse(self) -> Pulse:
        """Return a sign of life, even while all other threads are busy."""
        now, calls = time.monotonic(), list(self._calls.values())
        return Pulse(max((now - call.last_sign for call in calls), default=0.0), sum(call.rows for call in calls))

    def end(self) -> None:
        """Let the worker clean up; whoever is killed instead leaves that to the next one."""
        if close := getattr(self._worker, "close", None):
            close()

    def _ready(self) -> Any:
        with self._building:
            if self._worker is None:
                with device_errors():
                    self._worker = self._build()
            return self._worker
