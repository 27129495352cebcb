"""A run's records, added up one by one into its report, in memory that does not grow with them."""

import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from platform import python_version
from typing import Any

from actors.worker import LENGTH_EDGES, UnitReport, Usage, peak_memory_bytes
from sbert_ray.data.manifest import Record
from sbert_ray.data.rows import BadRow

MAX_BINS = 200
MAX_SHOWN = 100
MAX_WORKERS = 1000
OTHERS = "others"
"""The line of workers beyond those."""
PAIR_COUNTS = ("pairs", "queries")
"""What only jobs that score pairs count."""
TEXT_COUNTS = ("empty_texts", "truncated_texts", "duplicate_texts", "duplicate_ids")
RARE_COUNTS = (*PAIR_COUNTS, "halvings")
"""What a report tells only where it is not zero."""
COUNTS = ("rows", "tokens", "computed_tokens", "padded_tokens", *TEXT_COUNTS, *RARE_COUNTS)
VERSIONS = ("sbert-ray", "ray", "torch", "transformers", "tokenizers", "pyarrow", "numpy", "fsspec")
PHASES = ("read", "tokenize", "wait", "compute", "write")


def record_of(unit: int, report: UnitReport, run: int, attempts: int) -> Record:
    """Return the manifest's record of a finished unit."""
    stats = report.stats | {
        "worker": report.worker,
        "environment": report.environment,
        "peak_memory_bytes": report.peak_memory_bytes,
        "usage": asdict(report.usage),
        "begun": report.begun,
        "finished": report.finished,
        "bad": [asdict(row) for row in report.bad],
    }
    return Record(unit, **asdict(report.committed), run=run, attempts=attempts, stats=stats)


@dataclass
class Timeline:
    """Counts over time, in bins that double in width when there are too many."""

    width: float = 1.0
    bins: dict[int, tuple[float, ...]] = field(default_factory=dict)

    def add(self, begin: float, end: float, counts: Sequence[float]) -> None:
        """Spread counts evenly over the time in which they were made, in seconds since the start."""
        begin, end = max(begin, 0.0), max(end, begin, 0.0) + 1e-6
        while end / self.width >= MAX_BINS:
            self.bins, self.width = self._merged(), self.width * 2
        for index in range(int(begin / self.width), int(end / self.width) + 1):
            overlap = min(end, (index + 1) * self.width) - max(begin, index * self.width)
            self._put(self.bins, index, [count * overlap / (end - begin) for count in counts])

    def _merged(self) -> dict[int, tuple[float, ...]]:
        merged: dict[int, tuple[float, ...]] = {}
        for index, counts in self.bins.items():
            self._put(merged, index // 2, counts)
        return merged

    @staticmethod
    def _put(bins: dict[int, tuple[float, ...]], index: int, counts: Sequence[float]) -> None:
        old = bins.get(index, (0.0,) * len(counts))
        bins[index] = tuple(a + b for a, b in zip(old, counts, strict=True))

    def rates(self) -> list[tuple[float, tuple[float, ...]]]:
        """Return the middle of each bin, in seconds since the start, and its counts per second."""
        if not self.bins:
            return []
        empty = (0.0,) * len(next(iter(self.bins.values())))
        return [
            ((index + 0.5) * self.width, tuple(count / self.width for count in self.bins.get(index, empty)))
            for index in range(max(self.bins) + 1)
        ]


@dataclass
class Totals:
    """Everything that the report tells of the committed units.

    Args:
        run: number of the present run; the timeline and ``resumed`` tell it from earlier ones.
        begun: when the present run began, in seconds since the epoch.
    """

    run: int
    begun: float
    units: int = 0
    resumed_units: int = 0
    resumed_rows: int = 0
    rows_out: int = 0
    bad_rows: int = 0
    num_bytes: int = 0
    retried: int = 0
    speculated: int = 0
    environment: str | None = None
    """What all workers must compute on, once it is known."""
    num_workers: int = 0
    """Workers of the present run at a time."""
    first_work: float | None = None
    """When the first worker of the present run began its first unit."""
    last_work: float | None = None
    """When the last unit of the present run so far was finished."""
    counts: dict[str, int] = field(default_factory=lambda: dict.fromkeys(COUNTS, 0))
    new: dict[str, int] = field(default_factory=lambda: dict.fromkeys(COUNTS, 0))
    """Counts of the present run alone."""
    seconds: dict[str, float] = field(default_factory=lambda: dict.fromkeys(PHASES, 0.0))
    lengths: list[int] = field(default_factory=list)
    timeline: Timeline = field(default_factory=Timeline)
    workers: dict[str, dict[str, Any]] = field(default_factory=dict)
    shown: list[BadRow] = field(default_factory=list)

    def add(self, record: Record) -> None:
        """Add a committed unit."""
        stats = record.stats
        self.units += 1
        self.rows_out += record.rows
        self.bad_rows += record.bad_rows
        self.num_bytes += record.num_bytes
        self.retried += record.attempts > 1
        self.shown += [BadRow(**row) for row in stats.get("bad", [])][: MAX_SHOWN - len(self.shown)]
        for name in COUNTS:
            self.counts[name] += stats.get(name, 0)
        lengths = stats.get("token_lengths", [])
        self.lengths = [a + b for a, b in zip(self.lengths, lengths, strict=True)] if self.lengths else list(lengths)
        if record.run != self.run:
            self.resumed_units += 1
            self.resumed_rows += stats.get("rows", 0)
            return
        for name in COUNTS:
            self.new[name] += stats.get(name, 0)
        for name in PHASES:
            self.seconds[name] += stats.get("seconds", {}).get(name, 0.0)
        begun, finished = stats["begun"], stats["finished"]
        self.first_work = min(self.first_work or begun, begun)
        self.last_work = max(self.last_work or finished, finished)
        counts = (stats.get("rows", 0), stats.get("computed_tokens", 0))
        self.timeline.add(begun - self.begun, finished - self.begun, counts)
        self._add_worker(record, stats)

    def _add_worker(self, record: Record, stats: Mapping[str, Any]) -> None:
        name = stats["worker"] if stats["worker"] in self.workers or len(self.workers) < MAX_WORKERS else OTHERS
        worker = self.workers.setdefault(
            name,
            {
                "worker": name,
                "units": 0,
                "rows": 0,
                "tokens": 0,
                "seconds": dict.fromkeys(PHASES, 0.0),
                "usage": Usage(0.0, 0.0, 0.0),
                "peak_memory_bytes": 0,
                "retries": 0,
            },
        )
        worker["units"] += 1
        worker["rows"] += stats.get("rows", 0)
        worker["tokens"] += stats.get("computed_tokens", 0)
        for phase in PHASES:
            worker["seconds"][phase] += stats.get("seconds", {}).get(phase, 0.0)
        if name != OTHERS:
            worker["usage"] = max(worker["usage"], Usage(**stats["usage"]))  # it only grows, so this is the latest
        worker["peak_memory_bytes"] = max(worker["peak_memory_bytes"], stats["peak_memory_bytes"])
        worker["retries"] += record.attempts - 1

    def worker_table(self) -> list[dict[str, Any]]:
        """Return a line per worker of the present run."""
        return [
            {name: value for name, value in worker.items() if name != "usage"}
            | {
                "rows_per_second": worker["rows"] / max(worker["seconds"]["compute"], 1e-9),
                "cpu_seconds": worker["usage"].cpu_seconds,
                "device_idle_share": idle_share([worker["usage"]]),
            }
            for _, worker in sorted(self.workers.items())
        ]

    @property
    def device_idle_share(self) -> float | None:
        """How much of their time the devices of the present run computed nothing, from the first batch of each on."""
        return idle_share([worker["usage"] for worker in self.workers.values()])

    def report(self, cost_per_worker_hour: float | None) -> dict[str, Any]:
        """Return the numbers of ``report.json``."""
        now = time.time()
        wall = now - self.begun
        startup = max((self.first_work or now) - self.begun, 0.0)
        shutdown = max(now - (self.last_work or now), 0.0)
        working = max(wall - startup - shutdown, 1e-9)
        computed, padded, rows = self.counts["computed_tokens"], self.counts["padded_tokens"], self.new["rows"]
        workers = self.worker_table()
        hours = wall * self.num_workers / 3600
        return {
            "started": _iso(self.begun),
            "finished": _iso(now),
            "rows": {
                "input": self.counts["rows"],
                "output": self.rows_out,
                "bad": self.bad_rows,
                "resumed": self.resumed_rows,
            },
            "units": {
                "done": self.units,
                "resumed": self.resumed_units,
                "retried": self.retried,
                "speculated": self.speculated,
            },
            "tokens": {"real": self.counts["tokens"], "computed": computed, "padded": padded},
            "padding_share": 1 - computed / padded if padded else 0.0,
            "bytes_out": self.num_bytes,
            "seconds": {"wall": wall, "startup": startup, "shutdown": shutdown, **self.seconds},
            "cpu_seconds": sum(worker["cpu_seconds"] for worker in workers),
            "device_idle_share": self.device_idle_share,
            "throughput": {
                "rows_per_second": rows / working,
                "tokens_per_second": self.new["computed_tokens"] / working,
                "timeline": [
                    {"t": middle, "rows_per_second": rates[0], "tokens_per_second": rates[1]}
                    for middle, rates in self.timeline.rates()
                ],
            },
            "token_lengths": {"edges": list(LENGTH_EDGES), "counts": self.lengths},
            **{name: self.counts[name] for name in TEXT_COUNTS},
            **{name: self.counts[name] for name in RARE_COUNTS if self.counts[name]},
            "workers": workers,
            "bad_rows": {"count": self.bad_rows, "shown": [asdict(row) for row in self.shown]},
            "driver": {"peak_memory_bytes": peak_memory_bytes()},
            "cost_per_million_rows": cost_per_worker_hour * hours / rows * 1e6
            if cost_per_worker_hour and rows
            else None,
            "versions": {"python": python_version(), **{name: _version(name) for name in VERSIONS}},
        }


def idle_share(usages: Iterable[Usage]) -> float | None:
    """Return the share of workers' time, from the first computation of each to its last report, without computation."""
    seconds = span = 0.0
    for usage in usages:
        seconds += usage.device_seconds
        span += usage.device_span
    return max(1 - seconds / span, 0.0) if span else None


def _iso(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, UTC).isoformat(timespec="seconds")


def _version(name: str) -> str | None:
    try:
        return version(name)
    except PackageNotFoundError:
        return None
