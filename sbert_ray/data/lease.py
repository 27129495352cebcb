"""A lease on an output: one run at a time may write to it."""

import json
import logging
import os
import socket
import threading
import time
import uuid
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import psutil

from sbert_ray.data.errors import BusyError, InputError, LeaseLostError
from sbert_ray.data.storage import Storage, redacted

logger = logging.getLogger(__name__)

FOLDER = "_manifest/lease"
TTL_SECONDS = 20.0
PATIENCE = 1.5
"""Times to live without renewal after which a run elsewhere is taken for dead."""
READ_PAUSES = (0.1, 0.5, 1.0)
"""Seconds between looks at a lease that cannot be read."""


class Lease:
    """Holds an output while the ``with`` block runs, renewed by a thread.

    A lease whose holder is a dead process of this machine is taken over at once; that of a run elsewhere when it was
    not renewed for ``ttl`` seconds by our own clock, so that clocks need not agree. A holder that was cut off finds
    a later lease and must stop.

    Leases are numbered files of which the latest counts. Taking over is creating the next number, which only one run
    can do: a lease is never removed to make room, since it might be the one that another run has just taken. The
    latest file stays when it is released, so that numbers only rise. Where a store cannot create a file on the
    condition that there is none, two runs may write the same number; the one that was first then finds the other's
    name with its next renewal, and stops.

    Args:
        storage: the output.
        ttl: seconds without renewal after which a lease is void.
    """

    def __init__(self, storage: Storage, ttl: float = TTL_SECONDS) -> None:
        self.storage = storage
        self.ttl = ttl
        self.owner = uuid.uuid4().hex
        self.number = 0
        self._where = redacted(storage.url)
        self._renewed = time.monotonic()
        self._lost = False
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._renew, name="lease", daemon=True)

    def __enter__(self) -> Self:
        """Take the lease.

        Raises:
            BusyError: if another run holds it.
        """
        while not self._take():
            pass  # another run was faster: look again
        self._renewed = time.monotonic()
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stop.set()
        self._thread.join()
        if not self._lost and self._is_ours():
            self.storage.write(_name(self.number), self._document(is_released=True))

    def check(self) -> None:
        """Make sure that this run still holds the output; call before each commit.

        Raises:
            LeaseLostError: if it does not.
        """
        if self._lost or time.monotonic() - self._renewed > self.ttl:
            raise LeaseLostError(f"another run may have taken over {self._where}; this one stops writing")

    def _document(self, is_released: bool = False) -> bytes:
        holder = {"owner": self.owner, "renewed": time.time(), "ttl": self.ttl, **_process(), "released": is_released}
        return json.dumps(holder).encode()

    def _take(self) -> bool:
        """Create the lease that follows the latest, once that is void; return whether it is ours."""
        latest = _latest(self.storage)
        if latest:
            holder = _read(self.storage, latest)
            if holder is None:
                return False
            if holder["owner"] == self.owner:
                return True  # the store took the file, but its answer was lost
            if not self._is_void(latest, holder):
                return False
        self.number = latest + 1
        if not self.storage.create(_name(self.number), self._document()) or not self._is_ours():
            return False
        for number in _numbers(self.storage) - {self.number}:
            self.storage.remove(_name(number))
        return True

    def _is_ours(self) -> bool:
        """Whether our lease is the latest, and nobody has written over it, which stores without conditions allow."""
        if _latest(self.storage) != self.number:
            return False
        holder = _read(self.storage, self.number)
        return holder is not None and holder["owner"] == self.owner

    def _is_void(self, number: int, holder: dict[str, Any]) -> bool:
        """Tell whether the lease that ``holder`` has is void, waiting for a sign of life from elsewhere if need be.

        Raises:
            BusyError: if it is not.
        """
        if holder["released"]:
            return True
        who = f"process {holder['pid']} on {holder['host']}"
        if not _has_died(holder):
            busy = BusyError(f"{who} is writing to {self._where}; wait until it ends, or stop it")
            if holder["machine"] == _machine():
                raise busy
            logger.warning("%s may be writing to %s; looking for a sign of life", who, self._where)
            time.sleep(max(self.ttl, holder["ttl"]) * PATIENCE)
            again = _read(self.storage, number)
            if again is None or again["released"]:
                return False
            if again != holder:
                raise busy
        logger.warning("taking over %s from %s, which has died", self._where, who)
        return True

    def _renew(self) -> None:
        while not self._stop.wait(self.ttl / 4):
            try:
                if not self._is_ours():
                    self._lost = True
                    return
                self.storage.write(_name(self.number), self._document())
                self._renewed = time.monotonic()
            except Exception as error:  # noqa: BLE001 - any error of a store may pass; check() tells if not
                logger.warning("could not renew the lease on %s: %s", self._where, redacted(str(error)))


def _name(number: int) -> str:
    return f"{FOLDER}/{number:06d}.json"


def _numbers(storage: Storage) -> set[int]:
    names = (name.partition(".") for name in storage.sizes(FOLDER))
    return {int(stem) for stem, _, suffix in names if stem.isdecimal() and suffix == "json"}


def _latest(storage: Storage) -> int:
    """Return the number of the lease that counts, or 0."""
    return max(_numbers(storage), default=0)


def _read(storage: Storage, number: int) -> dict[str, Any] | None:
    """Return what a lease tells of its holder, or None if it is gone.

    Raises:
        InputError: if it cannot be read as one.
    """
    for pause in READ_PAUSES:
        try:
            holder: dict[str, Any] = json.loads(storage.read(_name(number)))
        except FileNotFoundError:
            return None
        except ValueError as error:
            problem = error
            time.sleep(pause)  # not every store shows a file only when it is whole
        else:
            return holder
    where = redacted(storage.locate(_name(number)))
    raise InputError(f"{where} is damaged: {problem}; remove it if no run writes to this output") from problem


def _machine() -> str:
    """Name this boot of this machine, and the process numbers that count in it."""
    boot, namespace = Path("/proc/sys/kernel/random/boot_id"), Path("/proc/self/ns/pid")
    return ":".join(
        [
            socket.gethostname(),
            boot.read_text().strip() if boot.exists() else str(psutil.boot_time()),
            os.readlink(namespace) if namespace.exists() else "",
        ]
    )


def _process() -> dict[str, Any]:
    return {
        "host": socket.gethostname(),
        "machine": _machine(),
        "pid": os.getpid(),
        "started": _started(os.getpid()),
    }


def _started(pid: int) -> float:
    """Return when a process began: in ticks since the machine did where that is known, as clocks are set now and then.

    Raises:
        NoSuchProcess: if there is none.
    """
    status = Path(f"/proc/{pid}/stat")
    try:
        return float(status.read_text().rpartition(")")[2].split()[19])
    except OSError:
        return float(psutil.Process(pid).create_time())


def _has_died(holder: dict[str, Any]) -> bool:
    if holder["machine"] != _machine():
        return False
    try:
        is_zombie = psutil.Process(holder["pid"]).status() == psutil.STATUS_ZOMBIE
        return is_zombie or bool(_started(holder["pid"]) != holder["started"])
    except psutil.NoSuchProcess:
        return True
