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
from actors.crew import Crew
from actors.errors import MEMORY, PoolError, UnitFailedError, describe, is_passing
from actors.member import Member, PoolOptions
from sbert_ray.data.units import Unit

__all__ = ["Done", "Pool", "PoolError", "PoolOptions", "UnitFailedError"]

logger = logging.getLogger(__name__)

TICK_SECONDS = 0.5


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

    def __str__(self) -> str:
        return str(self.work)


class Pool:
    """Actors that each hold one worker, fed by the driver with a bounded number of units.

    Ray restarts an actor that dies. Its units are begun again, each alone in an actor. One that has taken down
    ``max_attempts`` processes is searched by halving for the rows to blame, which are excluded. An actor with a unit
    without a sign of life is killed, and one that cannot start is given up while there are others. Idle actors run the
    last units a second time: workers commit a unit once, whoever is first. On leaving the ``with`` block all calls end.

    Args:
        build: makes the worker, inside the actor.
        options: how many actors, with what.
    """

    def __init__(self, build: Callable[[], Any], options: PoolOptions) -> None:
        self.options = options
        self.speculations = 0
        """Units that were begun a second time by an idle actor."""
        self._crew = Crew(build, options)
        self._running: dict[ray.ObjectRef[Any], _Attempt] = {}
        self._retry: deque[_Work] = deque()
        self._exhausted = False
        self._durations: deque[float] = deque(maxlen=64)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._crew.close(self._running)

    @property
    def rows_in_flight(self) -> int:
        """Rows of unfinished units that are computed already, as of the last signs of life."""
        return sum(member.rows for member in self._crew.members if member.running)

    def call(self, method: str, *args: Any, on_tick: Callable[[], None] = lambda: None) -> Any:
        """Run ``method`` of one worker and return what it returns.

        Args:
            method: its name.
            args: what it is given; between the first and the others comes what reports progress.
            on_tick: called now and then while it runs, so that the caller can show progress.

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
            self._crew.watch()
            on_tick()
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
            self._crew.watch()
            yield None

    # Giving out work

    def _feed(self, waiting: Iterator[Unit]) -> None:
        """Give work to actors with room, to those with the least first."""
        for depth in range(self.options.in_flight):
            for member in self._crew.members:
                if not member.is_ready or len(member.running) != depth:
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
        for member in self._crew.members:
            if not member.is_ready or member.running:
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
        starting = self._crew.starting
        if not self._running and not starting:
            time.sleep(TICK_SECONDS)  # all that is left waits for its next try
            return
        ready, _ = ray.wait([*self._running, *starting], timeout=TICK_SECONDS)
        for ref in ready:
            if ref in starting:
                self._crew.settle_start(starting[ref])
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
                self._crew.deaths_in_a_row = 0
                yield from self._settle_result(attempt, result)

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
        if not is_passing(error.cause):
            raise UnitFailedError(f"{work} failed: {describe(error)}") from error
        if work.errors >= self.options.max_attempts:
            raise PoolError(f"{work} failed {work.errors} times: {describe(error)}") from error
        logger.warning("%s failed and is tried again: %s", work, describe(error))
        work.not_before = time.monotonic() + 2.0**work.errors
        self._retry.append(work)

    def _settle_death(self, attempt: _Attempt, error: RayError) -> None:
        work = attempt.work
        if attempt.member.is_ready:  # the first call that tells of this death
            self._crew.settle_death(attempt.member, error, is_expected=work.method == "probe")
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
