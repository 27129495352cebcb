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
from ray.exceptions import ActorDiedError, RayError, RayTaskError

from actors.bisection import MAX_CULPRITS, Bisection
from actors.host import Host, Pulse
from sbert_ray.data.units import Unit

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
class PoolOptions:
    """How many actors, with what, and how patient the pool is with them.

    Args:
        num_workers: actors.
        num_cpus: CPUs that each actor reserves.
        num_gpus: GPUs that each actor reserves; a fraction shares one.
        in_flight: units inside one actor at a time: one computes, the others are read or written.
        max_attempts: how often a unit may fail or take its process down before the pool looks into it.
        hang_seconds: time without a batch after which an actor is killed.
        start_seconds: time within which the first worker must be ready.
        speculate: let idle actors begin the last units a second time.
    """

    num_workers: int
    num_cpus: float = 1.0
    num_gpus: float = 0.0
    in_flight: int = 2
    max_attempts: int = 3
    hang_seconds: float = 300.0
    start_seconds: float = 1200.0
    speculate: bool = True


@dataclass(frozen=True)
class Done:
    """A finished unit, what its worker returned, and how often it was begun."""

    unit: Unit
    result: Any
    attempts: int


@dataclass(eq=False)
class _Actor:
    """What the driver knows of one actor."""

    handle: Any
    starting: ray.ObjectRef[Any] | None
    """The call that builds the worker; None once it has."""
    running: "list[_Attempt]" = field(default_factory=list)
    pulse: ray.ObjectRef[Any] | None = None
    pulse_sent: float = 0.0
    rows: int = 0


@dataclass(eq=False)
class _Work:
    """A unit on its way."""

    unit: Unit
    attempts: int = 0
    deaths: int = 0
    errors: int = 0
    not_before: float = 0.0
    running: "list[_Attempt]" = field(default_factory=list)
    excluded: dict[int, str] = field(default_factory=dict)
    method: str = "process"
    bisection: Bisection | None = None

    @property
    def alone(self) -> bool:
        """Whether it must not share an actor, so that it is known who took the process down."""
        return self.deaths > 0


@dataclass(eq=False)
class _Attempt:
    work: _Work
    actor: _Actor
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
        self.retries = 0
        self.speculations = 0
        self._build = build
        self._actors = [self._new_actor() for _ in range(options.num_workers)]
        self._running: dict[ray.ObjectRef[Any], _Attempt] = {}
        self._retry: deque[_Work] = deque()
        self._durations: deque[float] = deque(maxlen=64)
        self._deaths_in_a_row = 0
        self._exhausted = False
        self._created = self._last_pulse = time.monotonic()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for actor in self._actors:
            ray.kill(actor.handle, no_restart=True)

    @property
    def rows_in_flight(self) -> int:
        """Rows of unfinished units that are computed already, as of the last signs of life."""
        return sum(actor.rows for actor in self._actors if actor.running)

    @property
    def num_ready(self) -> int:
        """Actors whose worker is built."""
        return sum(actor.starting is None for actor in self._actors)

    def call(self, method: str, *args: Any) -> Any:
        """Run ``method`` of one worker and return what it returns.

        Raises:
            UnitFailedError: if it raises.
        """
        actor = self._actors[0]
        try:
            return ray.get(actor.handle.run.remote(method, *args))
        except RayTaskError as error:
            raise UnitFailedError(f"{method} failed: {_describe(error.cause)}") from error
        except RayError as error:
            raise PoolError(f"a worker died during {method}: {_first_line(error)}") from error

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
                if not self._running:
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
            for actor in self._actors:
                if actor.starting is not None or len(actor.running) != depth:
                    continue
                if any(attempt.work.alone for attempt in actor.running):
                    continue
                work = self._next(waiting, is_empty=depth == 0)
                if work is not None:
                    self._begin(work, actor)

    def _next(self, waiting: Iterator[Unit], is_empty: bool) -> _Work | None:
        now = time.monotonic()
        for work in self._retry:
            if work.not_before <= now and (is_empty or not work.alone):
                self._retry.remove(work)
                return work
        unit = next(waiting, None)
        self._exhausted = unit is None
        return None if unit is None else _Work(unit)

    def _begin(self, work: _Work, actor: _Actor) -> None:
        attempt = _Attempt(work, actor, time.monotonic())
        args: tuple[Any, ...] = ()
        if work.method == "process":
            work.attempts += 1
            args = (work.excluded,) if work.excluded else ()
        elif work.method == "probe":
            assert work.bisection is not None
            args = (work.bisection.next(),)
        work.running.append(attempt)
        actor.running.append(attempt)
        self._running[actor.handle.run.remote(work.method, work.unit, *args)] = attempt

    def _speculate(self) -> None:
        """Let idle actors begin the unit that is most in need of it a second time."""
        for actor in self._actors:
            if actor.starting is not None or actor.running:
                continue
            candidates = [
                attempt
                for attempt in self._running.values()
                if len(attempt.work.running) == 1 and attempt.work.method == "process" and self._is_late(attempt)
            ]
            if candidates:
                self.speculations += 1
                self._begin(min(candidates, key=lambda attempt: attempt.begun).work, actor)

    def _is_late(self, attempt: _Attempt) -> bool:
        if attempt is not attempt.actor.running[0]:
            return True  # it waits behind another unit
        return bool(self._durations) and time.monotonic() - attempt.begun > 2 * statistics.median(self._durations)

    # Taking results

    def _collect(self) -> Iterator[Done]:
        starting = {actor.starting: actor for actor in self._actors if actor.starting is not None}
        ready, _ = ray.wait([*self._running, *starting], timeout=TICK_SECONDS)
        for ref in ready:
            if ref in starting:
                self._settle_start(starting[ref])
                continue
            attempt = self._running.pop(ref)
            attempt.actor.running.remove(attempt)
            attempt.work.running.remove(attempt)
            try:
                result = ray.get(ref)
            except RayTaskError as error:
                self._settle_error(attempt, error)
            except RayError as error:
                self._settle_death(attempt, error)
            else:
                yield from self._settle_result(attempt, result)

    def _settle_start(self, actor: _Actor) -> None:
        assert actor.starting is not None
        try:
            where = ray.get(actor.starting)
        except RayTaskError as error:
            raise UnitFailedError(f"a worker could not start: {_describe(error.cause)}") from error
        except RayError as error:
            logger.warning("a worker died while it started: %s", _first_line(error))
            self._count_death()
            self._restart(actor, gone=isinstance(error, ActorDiedError))
        else:
            logger.info("worker %s is ready after %.0f s", where, time.monotonic() - self._created)
            actor.starting = None

    def _settle_result(self, attempt: _Attempt, result: Any) -> Iterator[Done]:
        work = attempt.work
        self._deaths_in_a_row = 0
        if work.method == "done":
            return  # another attempt was first
        if work.method == "process":
            work.method = "done"
            self._durations.append(time.monotonic() - attempt.begun)
            self.retries += work.deaths + work.errors
            yield Done(work.unit, result, work.attempts)
        elif work.method == "positions":
            work.bisection, work.method = Bisection(result), "probe"
            self._search_on(work)
        else:
            assert work.bisection is not None
            work.bisection.settle(survived=True)
            self._search_on(work)

    def _settle_error(self, attempt: _Attempt, error: RayTaskError) -> None:
        work, cause = attempt.work, error.cause
        if work.method == "done" or work.running:
            return
        work.errors += 1
        if not isinstance(cause, OSError) or isinstance(cause, PERMANENT) or work.errors >= self.options.max_attempts:
            raise UnitFailedError(f"unit {work.unit.index} ({work.unit}) failed: {_describe(cause)}") from error
        logger.warning("unit %d (%s) failed and is tried again: %s", work.unit.index, work.unit, _describe(cause))
        work.not_before = time.monotonic() + 2.0**work.errors
        self._retry.append(work)

    def _settle_death(self, attempt: _Attempt, error: RayError) -> None:
        work, actor = attempt.work, attempt.actor
        if actor.starting is None:
            logger.warning("a worker died and is restarted: %s", _first_line(error))
            self._count_death(expected=work.method == "probe")
            self._restart(actor, gone=isinstance(error, ActorDiedError))
        if work.method == "done" or work.running:
            return
        work.deaths += 1
        if work.method == "probe":
            assert work.bisection is not None
            work.bisection.settle(survived=False)
            self._search_on(work)
            return
        if work.deaths >= self.options.max_attempts:
            if work.method == "positions" or work.excluded:
                raise UnitFailedError(
                    f"unit {work.unit.index} ({work.unit}) takes its process down, and no single row is to blame;"
                    " look at the input file and at the memory of the workers"
                )
            logger.warning("unit %d (%s) took down %d processes", work.unit.index, work.unit, work.deaths)
            work.method, work.deaths = "positions", 1
        self._retry.append(work)

    def _search_on(self, work: _Work) -> None:
        """Try the next rows of a unit that kills, or exclude those that are found."""
        search = work.bisection
        assert search is not None
        if search.next() is None:
            if not search.culprits or len(search.culprits) > MAX_CULPRITS:
                raise UnitFailedError(
                    f"unit {work.unit.index} ({work.unit}) takes its process down, and no few rows are to blame;"
                    " look at the memory of the workers"
                )
            logger.warning("rows at %s of %s take a process down", search.culprits, work.unit.file)
            work.excluded = dict.fromkeys(search.culprits, "takes the worker's process down")
            work.method, work.deaths = "process", 1
        self._retry.append(work)

    # Looking after the actors

    def _watch(self) -> None:
        now = time.monotonic()
        if self.num_ready == 0 and not self._running and now - self._created > self.options.start_seconds:
            raise PoolError(
                f"no worker was ready within {self.options.start_seconds:.0f} s; each needs"
                f" {self.options.num_cpus} CPUs and {self.options.num_gpus} GPUs,"
                f" and the cluster has {ray.cluster_resources()}"
            )
        if now - self._last_pulse < min(PULSE_SECONDS, self.options.hang_seconds / 2):
            return
        self._last_pulse = now
        for actor in self._actors:
            if actor.starting is None and actor.running:
                self._feel_pulse(actor, now)

    def _feel_pulse(self, actor: _Actor, now: float) -> None:
        silent = 0.0
        if actor.pulse is None:
            actor.pulse, actor.pulse_sent = actor.handle.pulse.remote(), now
        elif ray.wait([actor.pulse], timeout=0)[0]:
            try:
                pulse: Pulse = ray.get(actor.pulse)
                silent, actor.rows = pulse.idle_seconds, pulse.rows
            except RayError as error:
                logger.debug("no pulse: %s", error)  # its units tell what has become of it
            actor.pulse = None
        else:
            silent = now - actor.pulse_sent
        if silent > self.options.hang_seconds:
            units = [str(attempt.work.unit) for attempt in actor.running]
            logger.warning("a worker with %s gave no sign of life for %.0f s and is killed", units, silent)
            actor.pulse = None
            ray.kill(actor.handle, no_restart=False)

    def _new_actor(self) -> _Actor:
        remote = ray.remote(concurrency_groups={"control": 1})(Host)  # type: ignore[call-overload]
        handle = remote.options(
            num_cpus=self.options.num_cpus,
            num_gpus=self.options.num_gpus,
            max_concurrency=self.options.in_flight,
            max_restarts=-1,
            max_task_retries=0,  # who is to blame for a death is for this loop to find out
        ).remote(self._build)
        return _Actor(handle, handle.start.remote())

    def _restart(self, actor: _Actor, gone: bool) -> None:
        """Have the worker built again, in a new actor if Ray has given this one up."""
        actor.pulse, actor.rows = None, 0
        if gone:
            actor.handle = self._new_actor().handle
        actor.starting = actor.handle.start.remote()

    def _count_death(self, expected: bool = False) -> None:
        self._deaths_in_a_row += not expected
        if self._deaths_in_a_row > 2 * self.options.max_attempts + 2 * self.options.num_workers:
            raise PoolError(
                f"{self._deaths_in_a_row} workers died without finishing anything in between; most often they lack"
                " memory: give fewer workers, or smaller batches"
            )


def _describe(error: BaseException | None) -> str:
    return f"{type(error).__name__}: {error}"


def _first_line(error: BaseException) -> str:
    return str(error).strip().partition("\n")[0]
