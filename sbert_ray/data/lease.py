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

from sbert_ray.data.errors import BusyError, LeaseLostError
from sbert_ray.data.storage import Storage, redacted

logger = logging.getLogger(__name__)

NAME = "_manifest/lease.json"
TTL_SECONDS = 20.0
SETTLING = 0.05
"""Part of its time to live for which a lease that was taken over is looked at before it counts."""
PATIENCE = 1.5
"""Times to live without renewal after which a run elsewhere is taken for dead."""


class Lease:
    """Holds an output while the ``with`` block runs, renewed by a thread.

    A lease whose holder is a dead process of this machine is taken over at once; that of a run elsewhere when it was
    not renewed for ``ttl`` seconds by our own clock, so that clocks need not agree. A holder that was cut off finds
    another's name in the lease and must stop.

    Args:
        storage: the output.
        ttl: seconds without renewal after which a lease is void.
    """

    def __init__(self, storage: Storage, ttl: float = TTL_SECONDS) -> None:
        self.storage = storage
        self.ttl = ttl
        self.owner = uuid.uuid4().hex
        self._where = redacted(storage.url)
        self._renewed = time.monotonic()
        self._lost = False
        self._took_over = False
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._renew, name="lease", daemon=True)

    def __enter__(self) -> Self:
        """Take the lease.

        Raises:
            BusyError: if another run holds it.
        """
        while not self.storage.create(NAME, self._document()):
            holder = self._read()
            if holder is not None and holder["owner"] == self.owner:
                break  # the store took the file, but its answer was lost
            if holder is not None:
                self._take_over(holder)
        if self._took_over:
            time.sleep(self.ttl * SETTLING)  # whoever took it over at the same time has removed what it saw by now
            self._check_owner()
        self._renewed = time.monotonic()
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stop.set()
        self._thread.join()
        holder = None if self._lost else self._read()
        if holder is not None and holder["owner"] == self.owner:
            self.storage.remove(NAME)

    def check(self) -> None:
        """Make sure that this run still holds the output; call before each commit.

        Raises:
            LeaseLostError: if it does not.
        """
        if self._lost or time.monotonic() - self._renewed > self.ttl:
            raise LeaseLostError(f"another run may have taken over {self._where}; this one stops writing")

    def _document(self) -> bytes:
        holder = {"owner": self.owner, "renewed": time.time(), "ttl": self.ttl, **_process()}
        return json.dumps(holder).encode()

    def _take_over(self, holder: dict[str, Any]) -> None:
        """Remove the lease of ``holder`` once it is void."""
        who = f"process {holder['pid']} on {holder['host']}"
        if not _has_died(holder):
            busy = BusyError(f"{who} is writing to {self._where}; wait until it ends, or stop it")
            if holder["machine"] == _machine():
                raise busy
            logger.warning("%s may be writing to %s; looking for a sign of life", who, self._where)
            time.sleep(max(self.ttl, holder["ttl"]) * PATIENCE)
            again = self._read()
            if again is None:
                return
            if again != holder:
                raise busy
        logger.warning("taking over %s from %s, which has died", self._where, who)
        self._took_over = True
        if self._read() == holder:
            self.storage.remove(NAME)

    def _check_owner(self) -> None:
        holder = self._read()
        if holder is None or holder["owner"] != self.owner:
            raise BusyError(f"another run began to write to {self._where} at the same time; wait until it ends")

    def _read(self) -> dict[str, Any] | None:
        try:
            holder: dict[str, Any] = json.loads(self.storage.read(NAME))
        except FileNotFoundError:
            return None
        return holder

    def _renew(self) -> None:
        while not self._stop.wait(self.ttl / 4):
            try:
                holder = self._read()
                if holder is None or holder["owner"] != self.owner:
                    self._lost = True
                    return
                self.storage.write(NAME, self._document())
                self._renewed = time.monotonic()
            except Exception as error:  # noqa: BLE001 - any error of a store may pass; check() tells if not
                logger.warning("could not renew the lease on %s: %s", self._where, redacted(str(error)))


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
