"""What turns units of work into committed output, in one process and without Ray."""

import logging
import os
import socket
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import numpy as np
import psutil
import pyarrow as pa

from actors.device import BrokenDeviceError, device_errors
from actors.stages import Beat, Stage, Stopwatch, ahead
from sbert_ray.data.dataset import RowReader
from sbert_ray.data.errors import InputError
from sbert_ray.data.rows import BadRow, Rows
from sbert_ray.data.sink import Committed, unit_output
from sbert_ray.data.storage import Storage
from sbert_ray.data.units import Unit

logger = logging.getLogger(__name__)


MAX_FAILURES = 16
"""Rows of a unit that may fail one by one; more mean that something other than the rows is wrong."""
SHOWN = 20
NOT_THE_ROWS = (MemoryError, OSError, InputError, BrokenDeviceError)
"""Failures that are no row's fault."""
LENGTH_EDGES = (*range(0, 128, 8), *range(128, 513, 32), 1024, 2048, 4096, 8192, 16384, 32768, 2**30)
"""Bounds of the token-length histograms in reports."""


@dataclass(frozen=True, order=True)
class Usage:
    """What a worker's process has used so far; of several reports of one process the latest holds."""

    cpu_seconds: float
    """Of all its threads, since its first unit was begun."""
    device_seconds: float
    """In which its device computed, whatever became of the results."""
    device_span: float
    """Since its device computed for the first time."""


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
    usage: Usage
    begun: float
    """Seconds since the epoch, as ``finished``."""
    finished: float


@dataclass(frozen=True)
class _Chunk:
    """Rows of a unit on their way: what was read of them, and then what was made of those that are good."""

    num_rows: int
    """Rows that the input has, good and bad."""
    rows: Rows
    prepared: Any = None
    result: Any = None
    error: Exception | None = None
    """Why they could not be prepared."""


class UnitWorker(ABC):
    """Reads a unit, turns its rows into a table, writes and commits it.

    Several units may be inside one worker at a time: while one computes, others are read, prepared and written. So are
    the parts of a unit that is read in parts. One at a time is prepared, and one computed, in the order in which they
    come.

    Args:
        reader: gives the rows of a unit.
        output: folder that units are committed to.
    """

    def __init__(self, reader: RowReader, output: str) -> None:
        self.reader = reader
        self.storage = Storage(output)
        self.name = f"{socket.gethostname()}:{os.getpid()}"
        self._preparing, self._device = Stage("prepare"), Stage("device")
        self._cpu_begun: float | None = None

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
        begun, watch = time.time(), Stopwatch()
        if self._cpu_begun is None:
            self._cpu_begun = time.process_time()
        totals: dict[str, Any] = {}
        with unit_output(self.storage, unit) as output:
            # Each stage has a thread, so that it works on one part of the unit while the next stage has the one before.
            read = ahead(self._read(unit, excluded or {}, beat, watch))
            computed = ahead(self._computed(ahead(self._prepared(read, beat, watch)), beat, watch))
            with closing(computed):
                for chunk in computed:
                    totals = _add(totals, {"rows": chunk.num_rows})
                    totals = _add(totals, self.stats(chunk.rows, chunk.prepared, chunk.result))
                    with watch.stage("write"):
                        output.write(self.table(unit, chunk.rows, chunk.result))
                    output.bad.extend(chunk.rows.bad)
            with watch.stage("write"):
                committed = output.commit()
        totals["seconds"] = dict(watch.seconds)
        return UnitReport(
            committed=committed,
            stats=totals,
            bad=output.bad[:SHOWN],
            environment=self.environment,
            worker=self.name,
            peak_memory_bytes=peak_memory_bytes(),
            usage=Usage(time.process_time() - self._cpu_begun, *self._device.usage()),
            begun=begun,
            finished=time.time(),
        )

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

    def result_of(self, rows: Rows, beat: Beat) -> Any:
        """Return what is computed of ``rows``, less those that the model fails at."""
        watch = Stopwatch()
        chunks = iter([_Chunk(len(rows), rows)])
        [chunk] = self._computed(self._prepared(chunks, beat, watch), beat, watch)
        return chunk.result

    # The stages of a unit

    def _read(self, unit: Unit, excluded: Mapping[int, str], beat: Beat, watch: Stopwatch) -> Iterator[_Chunk]:
        for rows in watch.each("read", self.reader.read(unit, self.columns)):
            with watch.stage("read"):
                good = self.check(rows, excluded, beat)
            yield _Chunk(len(rows) + len(rows.bad), good)

    def _prepared(self, chunks: Iterator[_Chunk], beat: Beat, watch: Stopwatch) -> Iterator[_Chunk]:
        for chunk in chunks:
            yield self._try_to_prepare(chunk, beat, watch)

    def _try_to_prepare(self, chunk: _Chunk, beat: Beat, watch: Stopwatch) -> _Chunk:
        try:
            return replace(chunk, prepared=self._prepare(chunk.rows, beat, watch))
        except NOT_THE_ROWS:
            raise
        except Exception as error:  # noqa: BLE001 - the rows to blame are looked for when it is their turn
            return replace(chunk, error=error)

    def _computed(self, chunks: Iterator[_Chunk], beat: Beat, watch: Stopwatch) -> Iterator[_Chunk]:
        for chunk in chunks:
            yield self._transform(chunk, beat, watch)

    def _prepare(self, rows: Rows, beat: Beat, watch: Stopwatch) -> Any:
        return self._preparing.run(partial(self.prepare, rows, beat, watch), beat, watch)

    def _compute(self, prepared: Any, beat: Beat, watch: Stopwatch) -> Any:
        def compute() -> Any:
            with watch.stage("compute"), device_errors():
                return self.compute(prepared, beat)

        return self._device.run(compute, beat, watch)

    def _run(self, rows: Rows, beat: Beat, watch: Stopwatch) -> tuple[Any, Any]:
        prepared = self._prepare(rows, beat, watch)
        return prepared, self._compute(prepared, beat, watch)

    def _transform(self, chunk: _Chunk, beat: Beat, watch: Stopwatch) -> _Chunk:
        """Compute what is prepared, of the rows that the model does not fail at."""
        rows, prepared = chunk.rows, chunk.prepared
        try:
            if chunk.error is not None:
                raise chunk.error
            result = self._compute(prepared, beat, watch)
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
        return replace(chunk, rows=rows, prepared=prepared, result=result)

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
