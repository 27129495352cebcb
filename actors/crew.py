"""The actors of a pool: how they come to life, and what becomes of those that do not, that hang or that die."""

import logging
import time
from collections.abc import Callable, Collection
from typing import Any

import ray
from ray.exceptions import RayError

from actors.errors import MEMORY, PoolError, describe, failed_start
from actors.member import Member, PoolOptions
from sbert_ray.data.errors import InputError

logger = logging.getLogger(__name__)

PULSE_SECONDS = 2.0
END_SECONDS = 5.0
"""How long a process that is killed is waited for."""


class Crew:
    """The members of a pool. One whose worker cannot be built again and again is given up, the others go on.

    Args:
        build: makes the worker, inside the actor.
        options: how many actors, with what.
    """

    def __init__(self, build: Callable[[], Any], options: PoolOptions) -> None:
        self.options = options
        self.members = [Member(build, options) for _ in range(options.num_workers)]
        self.deaths_in_a_row = 0
        """Members that died since the last call that ended well."""
        self._created = self._last_ready = self._last_pulse = time.monotonic()
        self._was_ready = False
        self._last_failure = ""

    @property
    def starting(self) -> "dict[ray.ObjectRef[Any], Member]":
        """The members on their way to a worker, each by what tells that it can take its next step."""
        return {member.starting: member for member in self.members if member.starting is not None}

    def settle_start(self, member: Member) -> None:
        """Let a member take its next step towards a worker.

        Raises:
            UnitFailedError: if the last member cannot, or no worker ever will.
            PoolError: if the last member cannot, for a reason that may pass.
        """
        try:
            where = member.settle_start()
        except RayError as error:
            self._last_failure = describe(error)
            self._settle_start_error(member, error)
            return
        if where is not None:
            self._was_ready, self._last_failure = True, ""
            logger.info("worker %s is ready, %.0f s after the start", where, time.monotonic() - self._created)

    def _settle_start_error(self, member: Member, error: RayError) -> None:
        lasts = isinstance(getattr(error, "cause", None), (InputError, TypeError, ValueError)) and not self._was_ready
        member.start_errors += 1
        if not lasts and member.start_errors < self.options.max_attempts:
            seconds = member.pause()
            logger.warning("a worker could not start and is tried again in %.0f s: %s", seconds, describe(error))
            return
        if lasts or self.members == [member]:
            raise failed_start(error) from error
        self.members.remove(member)
        member.kill(for_good=True)
        logger.error(
            "a worker that could not start %d times is given up, and the pool goes on with %d: %s",
            member.start_errors,
            len(self.members),
            describe(error),
        )

    def settle_death(self, member: Member, error: RayError, is_expected: bool = False) -> None:
        """Have the worker of a member that died built again.

        Args:
            member: has died.
            error: how a call tells of it.
            is_expected: whether it was tried what kills; then it does not count.

        Raises:
            PoolError: if members keep dying without finishing anything in between.
        """
        logger.warning("a worker died and is restarted: %s", describe(error))
        if not is_expected:
            self.deaths_in_a_row += 1
        if self.deaths_in_a_row > 2 * self.options.max_attempts + 2 * self.options.num_workers:
            raise PoolError(f"{self.deaths_in_a_row} workers died without finishing anything in between; {MEMORY}")
        member.restart(error)

    def watch(self) -> None:
        """Start members whose pause is over, and kill those that give no sign of life.

        Raises:
            PoolError: if there was no worker for too long.
        """
        now = time.monotonic()
        if any(member.is_ready for member in self.members):
            self._last_ready = now
        elif now - self._last_ready > self.options.start_seconds:
            raise PoolError(self._describe_wait())
        for member in self.members:
            member.resume()
        if now - self._last_pulse < min(PULSE_SECONDS, self.options.hang_seconds / 2):
            return
        self._last_pulse = now
        for member in self.members:
            if not member.is_ready or not member.running:
                continue
            if (silence := member.silence()) > self.options.hang_seconds:
                calls = ", ".join(map(str, member.running))
                logger.warning("a worker with %s gave no sign of life for %.0f s and is killed", calls, silence)
                member.kill(for_good=False)

    def _describe_wait(self) -> str:
        options = self.options
        last = f"; the last one that tried to start failed: {self._last_failure}" if self._last_failure else ""
        return (
            f"no worker was ready for {options.start_seconds:.0f} s; each needs {options.num_cpus} CPUs and"
            f" {options.num_gpus} GPUs, and the cluster has {ray.cluster_resources()}{last}"
        )

    def close(self, running: "Collection[ray.ObjectRef[Any]]") -> None:
        """End all actors, and return when their ``running`` calls have ended, so that they write nothing any more."""
        try:
            for member in self.members:
                if member.running:
                    # Killed for good, its calls would fail at once, while the process still lives for a moment.
                    member.kill(for_good=False)
            idle = [member.handle.end.remote() for member in self.members if member.is_ready and not member.running]
            if calls := [*running, *idle]:
                ray.wait(calls, num_returns=len(calls), timeout=END_SECONDS)
        finally:
            for member in self.members:
                member.kill(for_good=True)
