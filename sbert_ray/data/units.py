"""Units of work: ranges of one input file, cut from metadata only."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise

MIN_ROWS, MAX_ROWS, TARGET_UNITS = 256, 16_384, 256


@dataclass(frozen=True, slots=True)
class Unit:
    """A range of one input file, and the name of what comes out of it.

    Units are numbered in the order of the input, so that the names of their outputs sort in that order.
    """

    index: int
    file: str
    """Name of the input file, relative to the dataset."""
    start: int
    """First row of a Parquet file; first byte of a JSONL file, where a line belongs to the unit that it begins in."""
    stop: int | None
    """Row or byte after the last; None for a compressed file, which has no known end."""

    @property
    def name(self) -> str:
        """Name of the unit's output, without a suffix."""
        return f"part-{self.index:08d}"

    def __str__(self) -> str:
        return f"{self.file} [{self.start}:{'' if self.stop is None else self.stop}]"


def quarantine_file(name: str) -> str:
    """Return the name of the file with the bad rows of the unit whose output has that name, without a suffix."""
    return f"_quarantine/{name}.jsonl"


def default_rows_per_unit(num_rows: int) -> int:
    """Return a power of two that makes some hundreds of units of ``num_rows`` rows.

    Enough units that many workers end together and little is lost with a worker, few enough that files stay large.
    It depends on the input alone, never on the cluster.
    """
    rows = MIN_ROWS
    while rows < MAX_ROWS and rows * TARGET_UNITS < num_rows:
        rows *= 2
    return rows


def row_ranges(row_groups: Sequence[int], rows_per_unit: int) -> Iterator[tuple[int, int]]:
    """Cut a Parquet file into row ranges of at most ``rows_per_unit`` rows.

    Row groups stay whole where they fit, and larger ones are cut evenly, so that no range reads more than it must.
    """
    start = stop = 0
    for rows in row_groups:
        if stop > start and stop + rows - start > rows_per_unit:
            yield start, stop
            start = stop
        stop += rows
        if rows > rows_per_unit:
            pieces = -(-rows // rows_per_unit)
            bounds = [start + rows * piece // pieces for piece in range(pieces + 1)]
            yield from pairwise(bounds)
            start = stop
    if stop > start:
        yield start, stop


def byte_ranges(size: int, bytes_per_unit: int) -> Iterator[tuple[int, int]]:
    """Cut a text file of ``size`` bytes into ranges of about ``bytes_per_unit`` bytes."""
    for start in range(0, size, bytes_per_unit):
        yield start, min(start + bytes_per_unit, size)


def numbered(units: Iterator[Unit]) -> Iterator[Unit]:
    """Number units in their order."""
    for index, unit in enumerate(units):
        yield replace(unit, index=index)
