"""The actor round a worker, without Ray: signs of life."""

import pickle
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch

from actors.device import DeviceMemoryError
from actors.host import Host
from tests.actors.unreadable import TwoPartError, TwoPartOSError

SECONDS = 30
"""More than anything here takes."""


class Worker:
    """Beats when it is told to."""

    def obey(self, orders: "Orders", beat: Callable[[int], None]) -> None:
        while orders.next():
            beat(5)
            orders.obeyed.release()


class Orders:
    """What a call shall do."""

    def __init__(self) -> None:
        self.given = threading.Semaphore(0)
        self.obeyed = threading.Semaphore(0)
        self.is_over = False

    def next(self) -> bool:
        assert self.given.acquire(timeout=SECONDS)
        return not self.is_over

    def beat(self) -> None:
        self.given.release()
        assert self.obeyed.acquire(timeout=SECONDS)

    def end(self) -> None:
        self.is_over = True
        self.given.release()


@pytest.fixture
def host() -> Host:
    host = Host(Worker)
    host.start()
    return host


def test_a_host_without_a_call_is_not_idle(host: Host) -> None:
    pulse = host.pulse()
    assert (pulse.idle_seconds, pulse.rows) == (0.0, 0)


def test_the_call_that_is_silent_for_longest_counts(host: Host) -> None:
    silent, lively = Orders(), Orders()
    with ThreadPoolExecutor() as threads:
        calls = [threads.submit(host.run, "obey", orders) for orders in (silent, lively)]
        silent.beat()
        since = time.monotonic()
        time.sleep(0.05)
        lively.beat()
        now, pulse = time.monotonic(), host.pulse()
        assert (pulse.idle_seconds >= now - since, pulse.rows) == (True, 10)
        silent.end()
        calls[0].result(SECONDS)
        since = time.monotonic()
        lively.beat()
        pulse, now = host.pulse(), time.monotonic()
        assert (pulse.idle_seconds <= now - since, pulse.rows) == (True, 10)  # of the call that goes on
        lively.end()
        calls[1].result(SECONDS)


class Failing:
    """Raises what it is given."""

    def fail(self, error: Exception, beat: Callable[[int], None]) -> None:
        raise error


@pytest.mark.parametrize(
    ("error", "kind", "message"),
    [
        (TwoPartError("no model", "a bug"), RuntimeError, "^TwoPartError: no model: a bug$"),
        (TwoPartOSError("no hub", "503"), OSError, "^TwoPartOSError: no hub: 503$"),
        (KeyError("a bug"), KeyError, "a bug"),
    ],
)
def test_errors_are_such_as_the_driver_can_read(error: Exception, kind: type[Exception], message: str) -> None:
    with pytest.raises(kind, match=message) as raised:
        Host(Failing).run("fail", error)
    assert type(pickle.loads(pickle.dumps(raised.value))) is kind


def test_a_device_that_is_full_while_the_worker_is_built_may_have_room_later() -> None:
    def build() -> None:
        raise torch.OutOfMemoryError("CUDA out of memory")

    with pytest.raises(DeviceMemoryError, match=r"the device is out of memory; .*: CUDA out of memory"):
        Host(build).start()
