"""The Ray cluster that a job runs on, and what its workers get of it."""

import logging
import os
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Annotated, Protocol

import ray
from pydantic import AfterValidator, Field, NonNegativeFloat

from actors.errors import PoolError
from actors.pool import PoolOptions
from jobs.job import StoppedError
from sbert_ray.data.errors import InputError


class WorkerOptions(Protocol):
    """The options of a job that say what its workers get."""

    @property
    def num_workers(self) -> int | None:
        """Actors."""

    @property
    def num_gpus_per_worker(self) -> float | None:
        """GPUs of each."""

    @property
    def num_cpus_per_worker(self) -> float | None:
        """CPUs of each."""

    @property
    def hang_seconds(self) -> float:
        """Time without a sign of life after which a worker is killed."""

    @property
    def max_attempts(self) -> int:
        """How often a unit may fail."""


def part_or_whole(count: float) -> float:
    """Return a number of GPUs as it is.

    Raises:
        ValueError: if it is more than one and no whole number, which Ray cannot give.
    """
    if count > 1 and not count.is_integer():
        raise ValueError("must be at most 1, or a whole number")
    return count


Gpus = Annotated[NonNegativeFloat, AfterValidator(part_or_whole)]
Cpus = Annotated[float, Field(gt=0, allow_inf_nan=False)]


def pool_options(job: WorkerOptions, most: int) -> PoolOptions:
    """Return what the workers of a job get of the cluster, at most so many workers."""
    resources = ray.cluster_resources()
    num_gpus = job.num_gpus_per_worker
    if num_gpus is None:
        num_gpus = 1.0 if resources.get("GPU", 0) >= 1 else 0.0
    num_cpus = job.num_cpus_per_worker or 1.0
    each, total = ("GPU", num_gpus) if num_gpus else ("CPU", num_cpus)
    fitting = max(int(resources.get(each, 0) / total), 1)
    return PoolOptions(
        num_workers=min(job.num_workers or fitting, most),
        num_cpus=num_cpus,
        num_gpus=num_gpus,
        num_threads=_share_of_cpus(num_gpus) if num_gpus and job.num_cpus_per_worker is None else None,
        hang_seconds=job.hang_seconds,
        max_attempts=job.max_attempts,
    )


@contextmanager
def stops_unwrapped() -> Iterator[None]:
    """Let a signal end the block as its handler wants; Ray's compiled code may hide that within an error of its own."""
    try:
        yield
    except SystemError as error:
        if isinstance(error.__cause__, StoppedError):
            raise error.__cause__ from None
        raise


def start_ray(address: str | None) -> None:
    """Connect to the cluster at an address, or start a local one, unless this process has one.

    Raises:
        InputError: if there is no such address.
        PoolError: if it does not answer, which may pass.
    """
    if ray.is_initialized():
        return
    address = address or os.environ.get("RAY_ADDRESS") or "local"
    on_stop = signal.getsignal(signal.SIGTERM)
    dashboard = False if address == "local" else None
    # "local" is not whatever cluster happens to run here, nor one that has ended and left its address behind.
    try:
        ray.init(address=address, logging_level=logging.WARNING, include_dashboard=dashboard)
    except ValueError as error:
        raise InputError(f"cannot use Ray at {address!r}: {error}; see --ray-address") from error
    except StoppedError:
        raise
    except RuntimeError as error:  # a head that restarts, a machine that is overloaded, or a cluster of another version
        raise PoolError(f"cannot use Ray at {address!r}: {error}") from error
    if threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGTERM, on_stop)  # Ray's own handler exits with another code


def _share_of_cpus(num_gpus: float) -> int:
    """Return the CPUs that belong to so many GPUs, on the node that has the fewest for each.

    They are not reserved, since then a driver that holds one would keep the last worker from its node.
    """
    nodes = [node["Resources"] for node in ray.nodes() if node["Alive"] and node["Resources"].get("GPU")]
    share = min((resources.get("CPU", 0.0) / resources["GPU"] for resources in nodes), default=0.0)
    return max(int(share * num_gpus), 1)
