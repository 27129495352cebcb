"""One actor of a pool, as the driver sees it."""

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import ray
from ray.exceptions import ActorDiedError, ActorUnavailableError, RayError

from actors.host import Host, Packed, Pulse

MAX_PAUSE_SECONDS = 60


@dataclass(frozen=True)
class PoolOptions:
    """How many actors, with what, and how patient the pool is with them.

    Args:
        num_workers: actors.
        num_cpus: CPUs that each actor reserves.
        num_gpus: GPUs that each actor reserves; a fraction shares one.
        num_threads: CPU threads of each actor; None: as many as CPUs, at least one.
        in_flight: units inside one actor at a time: one is prepared, one computed, and one written and handed back.
        max_attempts: how often a unit may fail or take its process down before the pool looks into it, and how often
            in a row an actor may fail to start before it is given up.
        hang_seconds: time without a batch after which an actor is killed.
        start_seconds: time that may pass without a single worker that is ready.
        speculate: let idle actors begin the last units a second time.
    """

    num_workers: int
    num_cpus: float = 1.0
    num_gpus: float = 0.0
    num_threads: int | None = None
    in_flight: int = 3
    max_attempts: int = 3
    hang_seconds: float = 300.0
    start_seconds: float = 1200.0
    speculate: bool = True

    @property
    def threads(self) -> int:
        """CPU threads of each actor."""
        return self.num_threads or max(int(self.num_cpus), 1)


@dataclass(eq=False)
class Member:
    """One actor of a pool. Ray restarts it when its process dies; the worker inside is then built again.

    Args:
        build: makes the worker.
        options: what the actor needs.
    """

    build: Callable[[], Any]
    options: PoolOptions
    running: list[Any] = field(default_factory=list)
    """Attempts inside the actor, the oldest first."""
    rows: int = 0
    """Rows that running calls had computed when it last gave a sign of life."""
    start_errors: int = 0
    """How often its worker could not be built since there was one."""

    def __post_init__(self) -> None:
        self._create()

    def _create(self) -> None:
        remote = ray.remote(concurrency_groups={"control": 1})(Host)  # type: ignore[call-overload]
        self.handle = remote.options(
            num_cpus=self.options.num_cpus,
            num_gpus=self.options.num_gpus,
            max_concurrency=self.options.in_flight,
            max_restarts=-1,
            max_task_retries=0,  # who is to blame for a death is for the pool to find out
        ).remote(Packed(ray.cloudpickle.dumps(self.build)), self.options.threads)
        self._place()

    def _place(self) -> None:
        self.starting: ray.ObjectRef[Any] | None = self.handle.pulse.remote()
        """What tells that the actor has a process, then that the worker is built; None from then on, or in a pause."""
        self.is_placed = self.is_ready = False
        self._pulse: ray.ObjectRef[Any] | None = None
        self._pulse_sent = 0.0
        self.rows = 0

    def settle_start(self) -> str | None:
        """Take the next step towards a worker, once ``starting`` is ready; return where it lives after the last.

        Raises:
            RayTaskError: if the worker cannot be built.
            RayError: if the actor cannot be made, or dies while it builds the worker.
        """
        assert self.starting is not None
        if self.is_placed:
            where: str = ray.get(self.starting)
            self.starting, self.is_ready, self.start_errors = None, True, 0
            return where
        try:
            ray.get(self.starting)
        except ActorUnavailableError:
            self._place()  # Ray has no place for it at present, which may last: a lost node, another's job
        else:
            self.is_placed, self.starting = True, self.handle.start.remote()
        return None

    def pause(self) -> float:
        """Give up the actor, which cannot start, and return for how many seconds ``resume`` makes no other."""
        self.kill(for_good=True)
        self.starting = None
        seconds = float(min(2**self.start_errors, MAX_PAUSE_SECONDS))
        self._not_before = time.monotonic() + seconds
        return seconds

    def resume(self) -> None:
        """Make another actor if there is none and the pause is over."""
        if self.starting is None and not self.is_ready and time.monotonic() >= self._not_before:
            self._create()

    def restart(self, error: RayError) -> None:
        """Have the worker built again after its process died, in a new actor if Ray has given this one up."""
        if isinstance(error, ActorDiedError):
            self._create()
        else:
            self._place()

    def call(self, method: str, *args: Any) -> "ray.ObjectRef[Any]":
        """Run ``method`` of the worker."""
        ref: ray.ObjectRef[Any] = self.handle.run.remote(method, *args)
        return ref

    def silence(self) -> float:
        """Ask for a sign of life, and return for how many seconds there was none."""
        now = time.monotonic()
        if self._pulse is None:
            self._pulse, self._pulse_sent = self.handle.pulse.remote(), now
            return 0.0
        if not ray.wait([self._pulse], timeout=0)[0]:
            return now - self._pulse_sent
        answer, self._pulse = self._pulse, None
        try:
            pulse: Pulse = ray.get(answer)
        except RayError:
            return 0.0  # it died: its running calls tell
        self.rows = pulse.rows
        return pulse.idle_seconds

    def kill(self, for_good: bool) -> None:
        """Kill the process; Ray starts another unless it is ``for_good``."""
        self._pulse = None
        ray.kill(self.handle, no_restart=for_good)
