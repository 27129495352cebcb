"""Peak memory of a driver by the size of the corpus, with a worker that does next to nothing.

python -m benchmarks.driver_memory --rows 10000 1000000
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

ROOT = Path(__file__).parents[1]
ROWS_PER_FILE = 50_000


def peak_memory(num_rows: int, rows_per_unit: int) -> tuple[int, int]:
    """Run the toy job of the tests as a process of its own; return its peak memory in bytes, and its units."""
    with tempfile.TemporaryDirectory() as folder:
        corpus = Path(folder, "corpus")
        corpus.mkdir()
        for first in range(0, num_rows, ROWS_PER_FILE):
            rows = range(first, min(first + ROWS_PER_FILE, num_rows))
            table = pa.table({"id": list(rows), "text": [f"text number {row}" for row in rows]})
            pq.write_table(table, corpus / f"{first:012d}.parquet")
        Path(folder, "notes").mkdir()
        flags = [f"--input={corpus}", f"--output={folder}/out", f"--notes={folder}/notes"]
        flags += [f"--rows-per-unit={rows_per_unit}", "--num-workers=1"]
        environment = os.environ | {"RAY_USAGE_STATS_ENABLED": "0", "RAY_AUTH_MODE": "disabled"}
        command = [sys.executable, "-m", "tests.jobs.toy", *flags]
        subprocess.run(command, cwd=ROOT, env=environment, check=True, stderr=subprocess.DEVNULL)
        report = json.loads(Path(folder, "out/report.json").read_text())
    return report["driver"]["peak_memory_bytes"], report["units"]["done"]


def main() -> None:
    """Print a line per size."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, nargs="+", default=[10_000, 1_000_000])
    parser.add_argument("--rows-per-unit", type=int, default=500)
    arguments = parser.parse_args()
    first = None
    for num_rows in arguments.rows:
        peak, units = peak_memory(num_rows, arguments.rows_per_unit)
        first = first or peak
        print(f"{num_rows:>12,} rows {units:>8,} units   {peak / 2**20:7.1f} MiB   {peak / first:.3f} x", flush=True)


if __name__ == "__main__":
    main()
