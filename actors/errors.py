"""How a pool fails, and what errors of its actors mean."""

from ray.exceptions import OutOfMemoryError, RayActorError, RayError, RayTaskError

MEMORY = "most often memory runs out: give fewer workers on a machine, or a smaller --max-batch-tokens"
PERMANENT = (FileNotFoundError, PermissionError, IsADirectoryError, NotADirectoryError)
"""Errors of the operating system that trying again does not cure."""


class PoolError(RuntimeError):
    """The pool cannot go on; running the same command again may help."""


class UnitFailedError(RuntimeError):
    """A unit cannot be done, for a reason that lies in it or in the code; ``__cause__`` has the worker's traceback."""


def is_passing(cause: BaseException | None) -> bool:
    """Whether trying again may cure what a worker raised."""
    return isinstance(cause, OSError) and not isinstance(cause, PERMANENT)


def describe(error: RayError) -> str:
    """Return what happened to a call in one line."""
    if isinstance(error, RayTaskError):
        return f"{type(error.cause).__name__}: {error.cause}"
    lines = [line for line in str(error).strip().split("\n") if not line.startswith("\t")]
    if is_death(error):
        return " ".join(lines[:2])  # that it died, and of what
    return lines[-1]  # of a traceback


def is_death(error: RayError) -> bool:
    """Whether a process died, rather than that it raised something or could not come to life."""
    return isinstance(error, OutOfMemoryError) or (isinstance(error, RayActorError) and not error.actor_init_failed)


def failed_start(error: RayError) -> PoolError | UnitFailedError:
    """Return what a pool ends with whose last worker cannot start.

    What is wrong with the node or the network may pass; what is wrong with the code or the input does not.
    """
    may_pass = is_death(error) or (isinstance(error, RayTaskError) and is_passing(error.cause))
    return (PoolError if may_pass else UnitFailedError)(f"a worker could not start: {describe(error)}")
