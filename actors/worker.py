"""What turns units of work into committed output, in one process and without Ray."""

import logging
import os
import socket
import threading
import time
from abc import ABC, abstractmethod
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import psutil
import pyarrow as pa

from sbert_ray.data.dataset import RowReader
from sbert_ray.data.errors import InputError
from sbert_ray.data.rows import BadRow, Rows
from sbert_ray.data.sink import Committed, unit_output
from sbert_ray.data.storage import Storage
from sbert_ray.data.units import Unit

logger = logging.getLogger(__name__)


class BrokenDeviceError(RuntimeError):
    """The device fails every call of this process from now on, as after an assertion in a CUDA kernel."""


class DeviceMemoryError(OSError):
    """The device has no memory left, be it for a while, since others may share it; that is for the pool to find out."""


Beat = Callable[[int], None]
"""Called after each batch with its rows: a sign of life, and progress."""

MAX_FAILURES = 16
"""Rows of a unit that may fail one by one; more mean that something other than the rows is wrong."""
SHOWN = 20
NOT_THE_ROWS = (MemoryError, OSError, InputError, BrokenDeviceError)
"""Failures that are no row's fault."""
FULL_DEVICE = ("CUDA error: out of memory", "CUBLAS_STATUS_ALLOC_FAILED")
"""How libraries of CUDA say that memory runs out, where it is not torch that allocates."""
WAIT_SECONDS = 0.5
"""Between signs of life of a unit that waits for the device."""
LENGTH_EDGES = (*range(0, 128, 8), *range(128, 513, 32), 1024, 2048, 4096, 8192, 16384, 32768, 2**30)
"""Bounds of the token-length histograms in reports."""


@dataclass
class Stopwatch:
    """Adds up the seconds of named stages."""

    seconds: dict[str, float] = field(default_factory=lambda: defaultdict(float))

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        """Count the time in the block under ``name``."""
        start = time.perf_counter()
        try:
            yield
        finally:
            self.seconds[name] += time.perf_counter() - start

    def each(self, name: str, items: Iterator[Any]) -> Iterator[Any]:
        """Yield ``items``, counting the time that each takes to come under ``name``."""
        while True:
            with self.stage(name):
                item = next(items, None)
            if item is None:
                return
            yield item


@dataclass(frozen=True)
class UnitReport:
    """One finished unit. The data went to the output; only this small record travels back to the driver."""

    committed: Committed
    stats: dict[str, Any]
    """Numbers that may be added up over units, and ``seconds`` by stage; see ``jobs.summary``."""
    bad: list[BadRow]
    """The first bad rows, to be shown."""
    environment: str
    """What else decides the last bits, such as the device's kind; the same in all units of an output."""
    worker: str
    peak_memory_bytes: int
    finished: float


class UnitWorker(ABC):
    """Reads a unit, turns its rows into a table, writes and commits it.

    Two units may be inside one worker at a time: while one computes, the other is read and prepared, or written. Only
    one computes.

    Args:
        reader: gives the rows of a unit.
        output: folder that units are committed to.
    """

    def __init__(self, reader: RowReader, output: str) -> None:
        self.reader = reader
        self.storage = Storage(output)
        self.name = f"{socket.gethostname()}:{os.getpid()}"
        self._device = threading.Lock()

    @property
    @abstractmethod
    def columns(self) -> Sequence[str]:
        """Input columns that are needed."""

    @abstractmethod
    def check(self, rows: Rows, excluded: Mapping[int, str], beat: Beat) -> Rows:
        """Return ``rows`` less those that cannot be processed, and those at ``excluded`` positions.

        It may fetch what rows name, and give it in their place.
        """

    @abstractmethod
    def prepare(self, rows: Rows, beat: Beat, watch: Stopwatch) -> Any:
        """Do what needs no device, such as tokenizing."""

    @abstractmethod
    def compute(self, prepared: Any, beat: Beat) -> Any:
        """Do what needs the device."""

    @abstractmethod
    def table(self, unit: Unit, rows: Rows, result: Any) -> pa.Table:
        """Return what is written of ``rows``, in their order."""

    @abstractmethod
    def stats(self, rows: Rows, prepared: Any, result: Any) -> dict[str, Any]:
        """Return what the report tells of ``rows``: numbers, or arrays of a fixed length."""

    def process(self, unit: Unit, beat: Beat, excluded: Mapping[int, str] | None = None) -> UnitReport:
        """Turn ``unit`` into committed output.

        Args:
            unit: what to do.
            beat: called after each batch.
            excluded: rows that must not be tried, by position, and why.

        Raises:
            InputError: if the input is damaged.
        """
        watch = Stopwatch()
        totals: dict[str, Any] = {}
        with unit_output(self.storage, unit) as output:
            for rows in watch.each("read", self.reader.read(unit, self.columns)):
                totals = _add(totals, {"rows": len(rows) + len(rows.bad)})
                good, prepared, result = self._transform(self._checked(rows, excluded or {}, beat, watch), beat, watch)
                totals = _add(totals, self.stats(good, prepared, result))
                with watch.stage("write"):
                    output.write(self.table(unit, good, result))
                output.bad.extend(good.bad)
            with watch.stage("write"):
                committed = output.commit()
        totals["seconds"] = dict(watch.seconds)
        memory = peak_memory_bytes()
        return UnitReport(committed, totals, output.bad[:SHOWN], self.environment, self.name, memory, time.time())

    def positions(self, unit: Unit, beat: Beat) -> list[int]:
        """Return the positions of the rows of ``unit`` that can be read, for ``probe``."""
        found: list[int] = []
        for rows in self.reader.read(unit, self.columns):
            found.extend(int(position) for position in rows.positions)
            beat(0)
        return found

    def probe(self, unit: Unit, beat: Beat, positions: Sequence[int]) -> None:
        """Compute some rows of ``unit`` and write nothing, to see whether the process lives through it."""
        wanted = set(positions)
        for rows in self.reader.read(unit, self.columns):
            beat(0)
            others = {int(p): "not probed" for p in rows.positions if int(p) not in wanted}
            subset = self.check(rows, others, beat)
            try:
                if len(subset):
                    self._run(subset, beat, Stopwatch())
            except NOT_THE_ROWS:
                raise
            except Exception as error:  # noqa: BLE001 - the process lives, and that is the question
                logger.debug("rows of %s fail without harm: %s", unit, error)

    def _checked(self, rows: Rows, excluded: Mapping[int, str], beat: Beat, watch: Stopwatch) -> Rows:
        with watch.stage("read"):
            return self.check(rows, excluded, beat)

    def _run(self, rows: Rows, beat: Beat, watch: Stopwatch) -> tuple[Any, Any]:
        prepared = self.prepare(rows, beat, watch)
        with self._turn(beat, watch), watch.stage("compute"), device_errors():
            return prepared, self.compute(prepared, beat)

    @contextmanager
    def _turn(self, beat: Beat, watch: Stopwatch) -> Iterator[None]:
        """Wait for the device, and have it alone in the block.

        Whoever waits is alive: if the one that computes hangs, it is that one which gives no sign.
        """
        with watch.stage("wait"):
            while not self._device.acquire(timeout=WAIT_SECONDS):
                beat(0)
        try:
            yield
        finally:
            self._device.release()

    def _transform(self, rows: Rows, beat: Beat, watch: Stopwatch) -> tuple[Rows, Any, Any]:
        try:
            prepared, result = self._run(rows, beat, watch)
        except NOT_THE_ROWS:
            raise
        except Exception as error:  # noqa: BLE001 - whatever one row does to the model, the others shall not suffer
            reasons = self.blame(rows, error, beat)
            if not reasons:
                reasons = find_failures(lambda part: self._run(rows.take(part), beat, watch), range(len(rows)), error)
            rows = self.quarantine(rows, reasons)
            prepared, result = self._run(rows, beat, watch)
        while reasons := self.invalid(result):
            rows = self.quarantine(rows, reasons)
            prepared, result = self._run(rows, beat, watch)
        return rows, prepared, result

    def close(self) -> None:  # noqa: B027 - most have nothing to do
        """Let go of what outlives the process, if there is such a thing."""

    @property
    def environment(self) -> str:
        """What else decides the last bits of a result, such as the device's kind."""
        return ""

    def blame(self, rows: Rows, error: Exception, beat: Beat) -> dict[int, str]:  # noqa: ARG002 - as ``invalid``
        """Return why rows are to blame for ``error``, by index, where that is known without trying them one by one."""
        return {}

    def invalid(self, result: Any) -> dict[int, str]:  # noqa: ARG002 - for those that can tell
        """Return why rows of ``result`` must not be written, by index."""
        return {}

    @abstractmethod
    def quarantine(self, rows: Rows, reasons: Mapping[int, str]) -> Rows:
        """Return ``rows`` less those at the given indices, which become bad rows."""


@contextmanager
def device_errors() -> Iterator[None]:
    """Tell failures of the device in the block from those of what it computes.

    Raises:
        DeviceMemoryError: instead of an error that says that its memory runs out.
        BrokenDeviceError: instead of one after which it is of no more use.
    """
    try:
        yield
    except Exception as error:
        if _is_out_of_memory(error):
            hint = "lower --max-batch-tokens, or give the worker a device of its own"
            raise DeviceMemoryError(f"the device is out of memory; {hint}: {error}") from error
        if "CUDA error" in str(error):
            raise BrokenDeviceError(str(error)) from error
        raise


def _is_out_of_memory(error: Exception) -> bool:
    kinds = {kind.__name__ for kind in type(error).__mro__}  # by name, since drivers know no torch
    return "OutOfMemoryError" in kinds or any(sign in str(error) for sign in FULL_DEVICE)


def find_failures(run: Callable[[range], object], rows: range, error: Exception) -> dict[int, str]:
    """Find the rows that make ``run`` fail, by halving.

    Args:
        run: is tried on ever smaller ranges.
        rows: range that fails as a whole.
        error: how it fails.

    Returns:
        The reason for each row that fails alone.

    Raises:
        Exception: ``error``, if no row fails alone, or all or too many do: then it is not the rows' fault; or what
            ``run`` raises on the way that is no row's fault either.
    """
    found = _failures(run, rows, error)
    if not found or len(found) > MAX_FAILURES or len(found) == len(rows) > 1:
        raise error
    return found


def _failures(run: Callable[[range], object], rows: range, error: Exception) -> dict[int, str]:
    if len(rows) == 1:
        return {rows[0]: f"{type(error).__name__}: {error}"}
    found: dict[int, str] = {}
    middle = len(rows) // 2
    for half in (rows[:middle], rows[middle:]):
        try:
            run(half)
        except NOT_THE_ROWS:
            raise
        except Exception as half_error:  # noqa: BLE001 - see UnitWorker._transform
            found |= _failures(run, half, half_error)
        if len(found) > MAX_FAILURES:
            break
    return found


def _add(totals: dict[str, Any], more: Mapping[str, Any]) -> dict[str, Any]:
    return totals | {name: _sum(totals[name], value) if name in totals else value for name, value in more.items()}


def _sum(a: Any, b: Any) -> Any:
    return np.add(a, b).tolist() if isinstance(a, list) else a + b


def peak_memory_bytes() -> int:
    """Return the most memory that this process has held, in bytes."""
    info = psutil.Process().memory_info()
    if hasattr(info, "peak_wset"):
        return int(info.peak_wset)
    import resource

    usage = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return int(usage if psutil.MACOS else usage * 1024)
