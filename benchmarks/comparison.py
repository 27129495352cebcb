"""Runs the sides of a benchmark in turns and compares them: speed, padding, memory, and what they return."""

import statistics
import tempfile
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from benchmarks.child import Groups, Job
from benchmarks.machine import ModelSizes, gemm_peak
from benchmarks.sides import REFERENCE, Child, Side, SideFailedError

BATCH_SIZES = (8, 16, 32, 64, 128)
"""What a tuned side is tried with."""
FIRST_BATCH_SIZE = 32
"""sentence-transformers' own."""


@dataclass(frozen=True)
class Measured:
    """What a side took, and gave."""

    side: Side
    batch_size: int | None
    seconds: list[float]
    """CPU seconds of each round."""
    peak_bytes: int | None
    """Memory above that of the loaded model, at the peak of a run; None where the system does not tell."""
    lengths: list[int]
    """Tokens of the texts, in any order."""
    num_positions: int
    """Token positions computed, padding included."""
    outputs: NDArray[np.float32]
    versions: Mapping[str, str]

    @property
    def median(self) -> float:
        """Seconds of the median round."""
        return statistics.median(self.seconds)

    @property
    def padded_share(self) -> float:
        """The share of positions computed that are padding."""
        return 1 - sum(self.lengths) / self.num_positions


@dataclass(frozen=True)
class Comparison:
    """All that was measured on some inputs."""

    threads: int
    measured: list[Measured]
    """The reference first."""
    failures: list[str]
    """Why sides are missing."""
    peaks: list[float]
    """float32 operations per CPU second of matrix products alone, of each round."""
    flops: int
    """What the reference's results need."""
    profiles: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    """Of the reference and ours, by name, if asked for."""

    @property
    def reference(self) -> Measured:
        """The side that all are compared with."""
        return self.measured[0]

    @property
    def peak(self) -> float:
        """The peak of the median round."""
        return statistics.median(self.peaks)

    def peak_share(self, measured: Measured) -> float:
        """Return the share of the peak that a side reaches, counting the operations that the results need."""
        return self.flops / measured.median / self.peak

    def bound(self) -> float:
        """Return how much faster than the reference it would be if all but float32 products at the peak were free."""
        return self.reference.median * self.peak / self.flops


@dataclass(frozen=True)
class Contest:
    """The reference and other sides, started and waiting for inputs."""

    job: Job
    children: list[Child]
    """The reference first."""
    failures: list[str]

    def compare(
        self,
        groups: Groups,
        rounds: int,
        sizes: ModelSizes,
        *,
        first_tokens_only: bool = False,
        is_profiled: bool = False,
    ) -> Comparison:
        """Run all in turns, with the peak of matrix products measured in between.

        Args:
            groups: The inputs; each list is given in one call.
            rounds: How often each side runs.
            sizes: Of the model.
            first_tokens_only: Whether results depend on the last layer's first tokens only.
            is_profiled: Whether to profile the reference and ours.

        Raises:
            SideFailedError: The reference fails, or a side that did not fail at first.
        """
        torch.set_num_threads(self.job.threads)
        started, failures = self._warmed_up(groups)
        children = [child for child, _, _ in started]
        batch_sizes = [batch_size for _, batch_size, _ in started]
        peaks, seconds = _rounds(children, batch_sizes, rounds, sizes)
        measured = [
            Measured(child.side, batch_size, times, versions=child.versions, **found)
            for (child, batch_size, found), times in zip(started, seconds, strict=True)
        ]
        profiled = [child for child in children if is_profiled and (child.side.is_ours or child is children[0])]
        return Comparison(
            self.job.threads,
            measured,
            failures,
            peaks,
            sizes.flops(measured[0].lengths, first_tokens_only),
            {child.side.name: child.ask("profile") for child in profiled},
        )

    def _warmed_up(self, groups: Groups) -> tuple[list[tuple[Child, int | None, dict[str, Any]]], list[str]]:
        """Return the sides that can do the work, with their batch size and what they give, and why others cannot."""
        started, failures = [], list(self.failures)
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder, "outputs.npy")
            for child in self.children:
                try:
                    child.ask("give", groups=[groups[0][:FIRST_BATCH_SIZE]])
                    child.run(None)  # so that nobody's first batch size pays for what is done but once
                    child.ask("give", groups=groups)
                    batch_size = tuned(child) if child.side.is_tuned else None
                    found = child.ask("inspect", path=str(path), batch_size=batch_size)
                except SideFailedError as failure:
                    if child is self.children[0]:
                        raise
                    failures.append(str(failure))
                else:
                    started.append((child, batch_size, found | {"outputs": np.load(path)}))
        return started, failures


def _rounds(
    children: Sequence[Child], batch_sizes: Sequence[int | None], rounds: int, sizes: ModelSizes
) -> tuple[list[float], list[list[float]]]:
    """Return the peak of matrix products in each round, and the CPU seconds of each side in each round."""
    gemms = sizes.gemms()
    peaks, seconds = [], [[0.0] * rounds for _ in children]
    for number in range(rounds):
        peaks.append(gemm_peak(gemms))
        for place in range(len(children)):
            turn = (place + number) % len(children)  # nobody always follows the same one
            seconds[turn][number] = children[turn].run(batch_sizes[turn])
    return peaks, seconds


@contextmanager
def contest(job: Job, sides: Sequence[Side], reference: Side = REFERENCE) -> Iterator[Contest]:
    """Start the reference and other sides; one that is not installed or does not load is left out, with its reason.

    Args:
        job: What all do.
        sides: Those besides the reference.
        reference: What all are compared with.

    Raises:
        SideFailedError: The reference is the one that does not load.
    """
    failures: list[str] = []
    with ExitStack() as stack:
        children = [stack.enter_context(Child(reference, job))]
        for side in sides:
            try:
                children.append(stack.enter_context(Child(side, job)))
            except SideFailedError as failure:
                failures.append(str(failure))
        yield Contest(job, children, failures)


def tuned(child: Child) -> int:
    """Return the batch size of `BATCH_SIZES` that a side is fastest with."""
    seconds: dict[int, float] = {}

    def measure(batch_size: int) -> float:
        if batch_size not in seconds:
            seconds[batch_size] = child.run(batch_size)
        return seconds[batch_size]

    return fastest(measure)


def fastest(measure: Callable[[int], float]) -> int:
    """Return the one of `BATCH_SIZES` that takes least, going away from the first one tried until it gets worse."""
    best = FIRST_BATCH_SIZE
    start = BATCH_SIZES.index(best)
    for candidates in (BATCH_SIZES[:start][::-1], BATCH_SIZES[start + 1 :]):
        for batch_size in candidates:
            if measure(batch_size) >= measure(best):
                break
            best = batch_size
        if best != FIRST_BATCH_SIZE:
            break  # what gets better with fewer rows does not with more
    return best


def ratios(slower: Measured, faster: Measured) -> list[float]:
    """Return by how much one side is faster than another, round by round."""
    return [theirs / mine for theirs, mine in zip(slower.seconds, faster.seconds, strict=True)]


def spread(values: Iterable[float], digits: int = 2) -> str:
    """Return the median and the range of values, for a table."""
    found = sorted(values)
    return f"{statistics.median(found):.{digits}f} ({found[0]:.{digits}f}-{found[-1]:.{digits}f})"


def cosines(mine: NDArray[np.float32], theirs: NDArray[np.float32]) -> NDArray[np.float64]:
    """Return the cosine of each row with its counterpart."""
    a, b = mine.astype(np.float64), theirs.astype(np.float64)
    return (a * b).sum(axis=1) / (np.linalg.norm(a, axis=1) * np.linalg.norm(b, axis=1))


def max_abs_diff(mine: NDArray[np.float32], theirs: NDArray[np.float32]) -> float:
    """Return the largest difference of any number."""
    return float(np.abs(mine - theirs).max())
