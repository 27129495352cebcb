"""The lease: one run at a time, and a dead one does not stand in the way."""

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import pytest

from sbert_ray.data.errors import BusyError, InputError, LeaseLostError
from sbert_ray.data.lease import FOLDER, Lease
from sbert_ray.data.storage import Storage

TTL = 1.5
OUTAGE = 0.3 * TTL
"""Longer than the time between renewals, and much shorter than what costs the lease."""
ROOT = Path(__file__).parents[3]
HOLD = """
import sys, time
from sbert_ray.data.lease import Lease
from sbert_ray.data.storage import Storage
with Lease(Storage(sys.argv[1])):
    print("held", flush=True)
    time.sleep(60)
"""


BOTH_STORES = pytest.mark.parametrize("storage", ["local", "memory"], indirect=True)


@pytest.fixture
def storage(request: pytest.FixtureRequest, tmp_path: Path) -> Storage:
    kind = getattr(request, "param", "local")
    return Storage(str(tmp_path / "out") if kind == "local" else f"memory://{tmp_path.as_posix()}")


def holder(storage: Storage) -> dict[str, Any]:
    """Return what the latest lease tells of its holder."""
    found: dict[str, Any] = json.loads(storage.read(f"{FOLDER}/{max(storage.sizes(FOLDER))}"))
    return found


def is_free(storage: Storage) -> bool:
    return not storage.sizes(FOLDER) or bool(holder(storage)["released"])


def write_holder(storage: Storage, number: int = 1, **values: Any) -> None:
    document = json.loads(Lease(storage, TTL)._document()) | {"owner": "another"} | values
    storage.write(f"{FOLDER}/{number:06d}.json", json.dumps(document).encode())


@contextmanager
def foreign_run(storage: Storage, beats: bool) -> Iterator[None]:
    """Hold the lease as a run on another machine does, which renews it or has died."""
    ended = threading.Event()

    def renew() -> None:
        number = 0
        while not ended.wait(TTL / 4):
            number += 1
            write_holder(storage, machine="elsewhere", host="far", pid=7, renewed=number)

    write_holder(storage, machine="elsewhere", host="far", pid=7, renewed=0)
    thread = threading.Thread(target=renew)
    if beats:
        thread.start()
    yield
    ended.set()
    if beats:
        thread.join()


@BOTH_STORES
def test_a_lease_is_taken_renewed_and_released(storage: Storage) -> None:
    with Lease(storage, TTL) as lease:
        first = holder(storage)
        assert (first["owner"], first["pid"]) == (lease.owner, os.getpid())
        time.sleep(2 * TTL)
        lease.check()
        assert holder(storage)["renewed"] > first["renewed"]
    assert is_free(storage)
    assert not any(thread.name == "lease" for thread in threading.enumerate())
    with Lease(storage, TTL) as again:
        again.check()
        assert (lease.number, again.number) == (1, 2)
        assert list(storage.sizes(FOLDER)) == ["000002.json"]


def test_a_lease_is_released_after_a_failure(storage: Storage) -> None:
    def fail() -> None:
        with Lease(storage, TTL):
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fail()
    assert is_free(storage)


@BOTH_STORES
def test_a_second_run_on_this_machine_is_refused_at_once(storage: Storage) -> None:
    with Lease(storage, ttl=60) as lease:
        begun = time.monotonic()
        with pytest.raises(
            BusyError, match=rf"process {os.getpid()} on .* is writing to .*; wait until it ends, or stop"
        ):
            Lease(storage, ttl=60).__enter__()
        assert time.monotonic() - begun < 1
        assert holder(storage)["owner"] == lease.owner


def test_a_dead_process_is_taken_over_at_once(tmp_path: Path) -> None:
    command = [sys.executable, "-c", HOLD, str(tmp_path)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=ROOT) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "held\n"
        with pytest.raises(BusyError, match=f"process {process.pid} on "):
            Lease(Storage(str(tmp_path)), TTL).__enter__()
        process.send_signal(signal.SIGKILL)
        while not Path(f"/proc/{process.pid}/stat").read_text().rpartition(")")[2].startswith(" Z"):
            time.sleep(0.01)
        begun = time.monotonic()
        with Lease(Storage(str(tmp_path)), ttl=10) as lease:  # it is a zombie until it is waited for
            assert time.monotonic() - begun < 2
            lease.check()


@pytest.mark.parametrize("change", [{"pid": 2**22 - 1}, {"started": -1.0}])
def test_a_process_that_is_gone_or_another_by_now_is_taken_over(change: dict[str, Any], storage: Storage) -> None:
    write_holder(storage, **change)
    with Lease(storage, TTL) as lease:
        lease.check()
        assert holder(storage)["owner"] == lease.owner


def test_a_run_elsewhere_that_shows_life_is_left_alone(storage: Storage) -> None:
    with (
        foreign_run(storage, beats=True),
        pytest.raises(BusyError, match=r"process 7 on far is writing to .*; wait until it ends, or stop it"),
    ):
        Lease(storage, TTL).__enter__()
    assert holder(storage)["owner"] == "another"


@BOTH_STORES
def test_a_run_elsewhere_that_is_silent_is_taken_over(storage: Storage) -> None:
    begun = time.monotonic()
    with foreign_run(storage, beats=False), Lease(storage, TTL) as lease:
        assert time.monotonic() - begun > TTL
        lease.check()  # the time it waited does not count
        assert holder(storage)["owner"] == lease.owner


def test_the_time_to_live_of_the_holder_counts(storage: Storage) -> None:
    write_holder(storage, machine="elsewhere", ttl=1.0)
    begun = time.monotonic()
    with Lease(storage, ttl=0.01):
        assert time.monotonic() - begun > 1.0


def test_a_run_elsewhere_that_ends_meanwhile_makes_room(storage: Storage) -> None:
    write_holder(storage, machine="elsewhere")
    timer = threading.Timer(TTL / 2, write_holder, [storage], {"machine": "elsewhere", "released": True})
    timer.start()
    with Lease(storage, TTL) as lease:
        lease.check()
    timer.join()


@BOTH_STORES
def test_a_holder_notices_that_it_was_cut_off_and_leaves_the_lease_alone(storage: Storage) -> None:
    with Lease(storage, TTL) as lease:
        write_holder(storage, number=2, machine="elsewhere")
        time.sleep(TTL)
        with pytest.raises(LeaseLostError, match=r"another run may have taken over .*; this one stops writing"):
            lease.check()
    assert holder(storage)["owner"] == "another"


def test_a_holder_that_was_cut_off_just_now_leaves_the_lease_alone(storage: Storage) -> None:
    with Lease(storage, ttl=60):
        write_holder(storage, number=2, machine="elsewhere")
    assert holder(storage)["owner"] == "another"


def test_a_holder_whose_lease_was_removed_stops(storage: Storage) -> None:
    with Lease(storage, TTL) as lease:
        storage.remove(f"{FOLDER}/000001.json")
        time.sleep(TTL)
        with pytest.raises(LeaseLostError, match="this one stops writing"):
            lease.check()
    assert storage.sizes(FOLDER) == {}


def test_a_store_that_is_down_for_a_moment_costs_nothing_and_for_long_the_lease(
    storage: Storage, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def sizes(self: Storage, folder: str) -> dict[str, int]:
        raise ConnectionError("no route to host")

    with Lease(storage, TTL) as lease:
        with monkeypatch.context() as patch:
            patch.setattr(Storage, "sizes", sizes)
            time.sleep(OUTAGE)
        lease.check()
        assert "could not renew the lease on" in caplog.text
        time.sleep(TTL)
        lease.check()
        with monkeypatch.context() as patch:
            patch.setattr(Storage, "sizes", sizes)
            time.sleep(TTL * 1.5)
            with pytest.raises(LeaseLostError, match="this one stops writing"):
                lease.check()
        time.sleep(TTL / 2)


def test_a_busy_output_is_named_without_credentials(tmp_path: Path) -> None:
    storage = Storage(f"memory://me:secret@{tmp_path.name}")
    with Lease(storage, ttl=60), pytest.raises(BusyError, match=rf"writing to memory://\*\*\*@{tmp_path.name};"):
        Lease(storage, ttl=60).__enter__()


def test_an_error_of_the_stores_own_does_not_end_the_renewal(
    storage: Storage, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    class HttpError(Exception):
        pass

    def sizes(self: Storage, folder: str) -> dict[str, int]:
        raise HttpError("503, slow down")

    with Lease(storage, TTL) as lease:
        with monkeypatch.context() as patch:
            patch.setattr(Storage, "sizes", sizes)
            time.sleep(OUTAGE)
        assert "503, slow down" in caplog.text
        time.sleep(TTL)
        lease.check()


def test_a_lost_answer_is_no_other_run(storage: Storage, monkeypatch: pytest.MonkeyPatch) -> None:
    original = Storage.create

    def create(self: Storage, name: str, data: bytes) -> bool:
        original(self, name, data)
        return False  # tried anew after a time-out, the upload finds its own file

    monkeypatch.setattr(Storage, "create", create)
    with Lease(storage, TTL) as lease:
        lease.check()


def test_of_many_runs_one_gets_a_free_lease(tmp_path: Path) -> None:
    assert contend(Storage(str(tmp_path))) == 1


def test_two_that_wrote_the_same_number_do_not_both_go_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A store that looks whether a file is there, and then writes it."""
    both = threading.Barrier(2)

    def create(self: Storage, name: str, data: bytes) -> bool:
        is_there = self.exists(name)
        with suppress(threading.BrokenBarrierError):
            both.wait(timeout=1)
        if not is_there:
            self.write(name, data)
        return not is_there

    def run(_: int) -> bool:
        try:
            with Lease(Storage(str(tmp_path)), TTL) as lease:
                time.sleep(3 * TTL)
                lease.check()
                return True
        except (BusyError, LeaseLostError):
            return False

    monkeypatch.setattr(Storage, "create", create)
    with ThreadPoolExecutor(2) as threads:
        assert sum(threads.map(run, range(2))) == 1


def test_a_lease_that_is_being_written_is_read_again(storage: Storage, monkeypatch: pytest.MonkeyPatch) -> None:
    write_holder(storage)
    original, seen = Storage.read, []

    def read(self: Storage, name: str) -> bytes:
        seen.append(name)
        return original(self, name)[: 5 if len(seen) == 1 else None]

    monkeypatch.setattr(Storage, "read", read)
    with pytest.raises(BusyError, match="is writing to"):
        Lease(storage, TTL).__enter__()
    assert len(seen) == 2


def test_of_many_runs_one_takes_over_a_dead_one(tmp_path: Path) -> None:
    for turn in range(10):
        storage = Storage(str(tmp_path / str(turn)))
        write_holder(storage, pid=2**22 - 1)
        assert contend(storage) == 1


def contend(storage: Storage) -> int:
    """Return how many of eight runs get the lease."""
    barrier, ended = threading.Barrier(8), threading.Barrier(8)

    def run(_: int) -> bool:
        barrier.wait()
        try:
            with Lease(Storage(storage.url), ttl=20):
                ended.wait(60)
                return True
        except BusyError:
            ended.wait(60)
            return False

    with ThreadPoolExecutor(8) as threads:
        return sum(threads.map(run, range(8)))


@pytest.mark.parametrize("seen", [0, 1, 2])
def test_a_run_that_saw_an_old_lease_does_not_get_the_next(
    seen: int, storage: Storage, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Between our look and our try leases came and went, and another run holds the third."""
    if seen:
        write_holder(storage, number=seen, pid=2**22 - 1)
    original, tried = Storage.create, []

    def create(self: Storage, name: str, data: bytes) -> bool:
        if not tried:
            storage.remove(f"{FOLDER}/{seen:06d}.json")
            write_holder(storage, number=3)
        tried.append(name)
        return original(self, name, data)

    monkeypatch.setattr(Storage, "create", create)
    with pytest.raises(BusyError, match="is writing to"):
        Lease(storage, TTL).__enter__()
    assert tried == [f"{FOLDER}/{seen + 1:06d}.json"]
    assert holder(storage)["owner"] == "another"


def test_a_damaged_lease_is_named(storage: Storage) -> None:
    storage.write(f"{FOLDER}/000001.json", b"{")
    with pytest.raises(InputError, match=r"_manifest/lease/000001.json is damaged: .*; remove it if no run writes"):
        Lease(storage, TTL).__enter__()
