"""The Ray actor round a plain worker."""

import logging
import os
import socket
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from itertools import count
from typing import Any

import ray

from actors.worker import BrokenDeviceError

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Pulse:
    """A sign of life."""

    idle_seconds: float
    """Since the last batch of any call, or the last beginning or end of one."""
    rows: int
    """Rows that running calls have computed so far."""


class Host:
    """Builds a worker and runs its methods, several calls at a time, while another thread answers ``pulse``.

    The worker is built by the first call, not by the constructor, so that an error in it reaches the driver as it is
    and a restarted actor needs nothing said again.

    Args:
        build: makes the worker.
    """

    def __init__(self, build: Callable[[], Any]) -> None:
        self._build = build
        self._worker: Any = None
        self._building = threading.Lock()
        self._last_sign = time.monotonic()
        self._rows: dict[int, int] = {}
        self._calls = count()

    def start(self) -> str:
        """Build the worker and return where it lives."""
        self._ready()
        return f"{socket.gethostname()}:{os.getpid()}"

    def run(self, method: str, *args: Any) -> Any:
        """Call ``method`` of the worker; before ``args`` of the second and later comes what reports progress."""
        worker, call = self._ready(), next(self._calls)
        self._rows[call] = 0
        self._sign()

        def beat(num_rows: int) -> None:
            self._rows[call] += num_rows
            self._sign()

        try:
            first, *rest = args
            return getattr(worker, method)(first, beat, *rest)
        except BrokenDeviceError:
            logger.exception("the device is of no more use to this process, which ends")
            os._exit(1)  # Ray starts another
        finally:
            del self._rows[call]
            self._sign()

    @ray.method(concurrency_group="control")
    def pulse(self) -> Pulse:
        """Return a sign of life, even while all other threads are busy."""
        return Pulse(time.monotonic() - self._last_sign, sum(list(self._rows.values())))

    def _ready(self) -> Any:
        with self._building:
            if self._worker is None:
                self._worker = self._build()
                self._sign()
            return self._worker

    def _sign(self) -> None:
        self._last_sign = time.monotonic()
