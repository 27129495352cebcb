"""A pool of actors, and the loop that keeps them busy whatever happens to them."""

import logging
import statistics
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any, Self

import ray
from ray.exceptions import RayError, RayTaskError

from actors.bisection import MAX_CULPRITS, Bisection
from actors.member import Member, PoolOptions
from sbert_ray.data.errors import InputError
from sbert_ray.data.units import Unit

__all__ = ["Done", "Pool", "PoolError", "PoolOptions", "UnitFailedError"]

logger = logging.getLogger(__name__)

TICK_SECONDS = 0.5
PULSE_SECONDS = 2.0
PERMANENT = (FileNotFoundError, PermissionError, IsADirectoryError, NotADirectoryError)
"""Errors of the operating system that trying again does not cure."""


class PoolError(RuntimeError):
    """The pool cannot go on; running the same command again may help."""


class UnitFailedError(RuntimeError):
    """A unit cannot be done, for a reason that lies in it or in the code; ``__cause__`` has the worker's traceback."""


@dataclass(frozen=True)
class Done:
    """A finished unit, what its worker returned, and how often it was begun."""

    unit: Unit
    result: Any
    attempts: int


@dataclass(eq=False)
class _Work:
    """A unit on its way, or a call of another method."""

    unit: Unit | None
    method: str = "process"
    """What the worker does next: ``process``, or ``positions`` and ``probe`` while rows that kill are looked for."""
    args: tuple[Any, ...] = ()
    is_done: bool = False
    result: Any = None
    attempts: int = 0
    deaths: int = 0
    errors: int = 0
    not_before: float = 0.0
    running: "list[_Attempt]" = field(default_factory=list)
    search: Bisection | None = None
    excluded: dict[int, str] = field(default_factory=dict)
    was_searched: bool = False

    @property
    def is_suspect(self) -> bool:
        """Whether it must be alone in an actor, so that it is known who took the process down."""
        return self.deaths > 0

    def __str__(self) -> str:
        return self.method if self.unit is None else f"unit {self.unit.index} ({self.unit})"


@dataclass(eq=False)
class _Attempt:
    work: _Work
    member: Member
    begun: float


class Pool:
    """Actors that each hold one worker, fed by the driver with a bounded number of units.

    Ray restarts an actor that dies. Its units are begun again, each alone in an actor. One that has taken down
    ``max_attempts`` processes is searched by halving for the rows to blame, which are excluded. An actor without a sign
    of life is killed, and idle actors run the last units a second time: workers commit a unit once, whoever is first.

    Args:
        build: makes the worker, inside the actor.
        options: how many actors, with what.
    """

    def __init__(self, build: Callable[[], Any], options: PoolOptions) -> None:
        self.options = options
        self.speculations = 0
        """Units that were begun a second time by an idle actor."""
        self._members = [Member(build, options) for _ in range(options.num_workers)]
        self._running: dict[ray.ObjectRef[Any], _Attempt] = {}
        self._retry: deque[_Work] = deque()
        self._exhausted = False
        self._durations: deque[float] = deque(maxlen=64)
        self._deaths_in_a_row = 0
        self._created = self._last_ready = self._last_pulse = time.monotonic()
        self._was_ready = False

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for member in self._members:
            member.kill(for_good=True)

    @property
    def rows_in_flight(self) -> int:
        """Rows of unfinished units that are computed already, as of the last signs of life."""
        return sum(member.rows for member in self._members if member.running)

    def call(self, method: str, *args: Any) -> Any:
        """Run ``method`` of one worker and return what it returns.

        Raises:
            UnitFailedError: if it fails for a reason that does not pass.
            PoolError: if workers do not start, or it keeps taking its process down.
        """
        work = _Work(None, method, args)
        self._retry.append(work)
        while not work.is_done:
            self._feed(iter(()))
            for _ in self._collect():
                raise AssertionError("a call has finished a unit")
            self._watch()
        return work.result

    def run(self, units: Iterable[Unit]) -> Iterator[Done | None]:
        """Process units, yielding them in the order in which they finish.

        Units are taken as actors become free, so they may be a stream without end. None is yielded now and then, so
        that the caller can show progress.

        Raises:
            UnitFailedError: if a unit fails for a reason that does not pass.
            PoolError: if workers do not start, or keep dying.
        """
        self._exhausted = False
        waiting = iter(units)
        while True:
            self._feed(waiting)
            if self._exhausted and not self._retry:
                if all(attempt.work.is_done for attempt in self._running.values()):
                    return
                if self.options.speculate:
                    self._speculate()
            yield from self._collect()
            self._watch()
            yield None

    # Giving out work

    def _feed(self, waiting: Iterator[Unit]) -> None:
        """Give work to actors with room, to those with the least first."""
        for depth in range(self.options.in_flight):
            for member in self._members:
                if member.starting is not None or len(member.running) != depth:
                    continue
                if any(attempt.work.is_suspect for attempt in member.running):
                    continue
                work = self._next(waiting, is_empty=depth == 0)
                if work is not None:
                    self._begin(work, member)

    def _next(self, waiting: Iterator[Unit], is_empty: bool) -> _Work | None:
        now = time.monotonic()
        for work in self._retry:
            if work.not_before <= now and (is_empty or not work.is_suspect):
                self._retry.remove(work)
                return work
        unit = next(waiting, None)
        self._exhausted = unit is None
        return None if unit is None else _Work(unit)

    def _begin(self, work: _Work, member: Member) -> None:
        attempt = _Attempt(work, member, time.monotonic())
        args = work.args
        if work.method == "process":
            work.attempts += 1
            args = (work.unit, work.excluded) if work.excluded else (work.unit,)
        elif work.method == "positions":
            args = (work.unit,)
        elif work.method == "probe":
            assert work.search is not None
            args = (work.unit, work.search.next())
        work.running.append(attempt)
        member.running.append(attempt)
        self._running[member.call(work.method, *args)] = attempt

    def _speculate(self) -> None:
        """Let idle actors begin the units that are latest a second time."""
        for member in self._members:
            if member.starting is not None or member.running:
                continue
            late = [attempt for attempt in self._running.values() if self._is_late(attempt)]
            if late:
                self.speculations += 1
                self._begin(min(late, key=lambda attempt: attempt.begun).work, member)

    def _is_late(self, attempt: _Attempt) -> bool:
        work = attempt.work
        if work.is_done or work.method != "process" or work.is_suspect or len(work.running) > 1:
            return False
        if attempt is not attempt.member.running[0]:
            return True  # it waits behind another unit
        return bool(self._durations) and time.monotonic() - attempt.begun > 2 * statistics.median(self._durations)

    # Taking results

    def _collect(self) -> Iterator[Done]:
        starting = {member.starting: member for member in self._members if member.starting is not None}
        if not self._running and not starting:
            time.sleep(TICK_SECONDS)  # all that is left waits for its next try
            return
        ready, _ = ray.wait([*self._running, *starting], timeout=TICK_SECONDS)
        for ref in ready:
            if ref in starting:
                self._settle_start(starting[ref])
                continue
            attempt = self._running.pop(ref)
            attempt.member.running.remove(attempt)
            attempt.work.running.remove(attempt)
            try:
                result = ray.get(ref)
            except RayTaskError as error:
                self._settle_error(attempt.work, error)
            except RayError as error:
                self._settle_death(attempt, error)
            else:
                self._deaths_in_a_row = 0
                yield from self._settle_result(attempt, result)

    def _settle_start(self, member: Member) -> None:
        try:
            where = member.settle_start()
        except RayTaskError as error:
            member.start_errors += 1
            lasts = isinstance(error.cause, (InputError, TypeError, ValueError)) and not self._was_ready
            if lasts or member.start_errors >= self.options.max_attempts:
                raise UnitFailedError(f"a worker could not start: {_describe(error)}") from error
            logger.warning("a worker could not start and is tried again: %s", _describe(error))
            member.kill(for_good=False)
            member.restart(error)
        except RayError as error:
            logger.warning("a worker died while it started: %s", _first_line(error))
            self._count_death()
            member.restart(error)
        else:
            if where is not None:
                self._was_ready = True
                logger.info("worker %s is ready, %.0f s after the start", where, time.monotonic() - self._created)

    def _settle_result(self, attempt: _Attempt, result: Any) -> Iterator[Done]:
        work = attempt.work
        if work.is_done:
            return  # another attempt was first
        if work.unit is None:
            work.is_done, work.result = True, result
        elif work.method == "process":
            work.is_done = True
            self._durations.append(time.monotonic() - attempt.begun)
            yield Done(work.unit, result, work.attempts)
        elif work.method == "positions":
            work.search, work.method = Bisection(result), "probe"
            self._search_on(work)
        else:
            assert work.search is not None
            work.search.settle(survived=True)
            self._search_on(work)

    def _settle_error(self, work: _Work, error: RayTaskError) -> None:
        if work.is_done or work.running:
            return
        work.errors += 1
        cause = error.cause
        if not isinstance(cause, OSError) or isinstance(cause, PERMANENT):
            raise UnitFailedError(f"{work} failed: {_describe(error)}") from error
        if work.errors >= self.options.max_attempts:
            raise PoolError(f"{work} failed {work.errors} times: {_describe(error)}") from error
        logger.warning("%s failed and is tried again: %s", work, _describe(error))
        work.not_before = time.monotonic() + 2.0**work.errors
        self._retry.append(work)

    def _settle_death(self, attempt: _Attempt, error: RayError) -> None:
        work = attempt.work
        if attempt.member.starting is None:  # the first call that tells of this death
            logger.warning("a worker died and is restarted: %s", _first_line(error))
            if work.method != "probe":
                self._count_death()
            attempt.member.restart(error)
        work.deaths += 1
        if work.is_done or work.running:
            return
        if work.method == "probe":
            assert work.search is not None
            work.search.settle(survived=False)
            self._search_on(work)
            return
        if work.deaths >= self.options.max_attempts:
            if work.unit is None or work.was_searched:
                raise PoolError(f"{work} keeps taking its process down, and no row is to blame; {MEMORY}")
            if work.method == "positions":
                raise UnitFailedError(f"{work} takes its process down when it is read; look at the input file")
            logger.warning("%s took down %d processes; looking for the rows to blame", work, work.deaths)
            work.method, work.deaths = "positions", 1
        self._retry.append(work)

    def _search_on(self, work: _Work) -> None:
        """Try the next rows of a unit that kills, or begin it again without those that are found."""
        search = work.search
        assert search is not None
        if search.next() is None:
            if len(search.culprits) > MAX_CULPRITS:
                raise UnitFailedError(f"more than {MAX_CULPRITS} rows of {work} take its process down; {MEMORY}")
            found = f"rows at {search.culprits} take the process down and go to quarantine"
            logger.warning("%s: %s", work, found if search.culprits else "no row is to blame; trying again")
            work.excluded = dict.fromkeys(search.culprits, "takes the worker's process down")
            work.method, work.deaths, work.was_searched = "process", 1, True
        self._retry.append(work)

    # Looking after the actors

    def _watch(self) -> None:
        now = time.monotonic()
        if any(member.starting is None for member in self._members):
            self._last_ready = now
        elif now - self._last_ready > self.options.start_seconds:
            raise PoolError(
                f"no worker was ready for {self.options.start_seconds:.0f} s; each needs"
                f" {self.options.num_cpus} CPUs and {self.options.num_gpus} GPUs,"
                f" and the cluster has {ray.cluster_resources()}"
            )
        if now - self._last_pulse < min(PULSE_SECONDS, self.options.hang_seconds / 2):
            return
        self._last_pulse = now
        for member in self._members:
            if member.starting is not None or not member.running:
                continue
            if (silence := member.silence()) > self.options.hang_seconds:
                works = ", ".join(str(attempt.work) for attempt in member.running)
                logger.warning("a worker with %s gave no sign of life for %.0f s and is killed", works, silence)
                member.kill(for_good=False)

    def _count_death(self) -> None:
        self._deaths_in_a_row += 1
        if self._deaths_in_a_row > 2 * self.options.max_attempts + 2 * self.options.num_workers:
            raise PoolError(f"{self._deaths_in_a_row} workers died without finishing anything in between; {MEMORY}")


MEMORY = "most often memory runs out: give fewer workers on a machine, or a smaller --max-batch-tokens"


def _describe(error: RayTaskError) -> str:
    return f"{type(error.cause).__name__}: {error.cause}"


def _first_line(error: BaseException) -> str:
    return str(error).strip().partition("\n")[0]
