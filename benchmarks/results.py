"""Renews benchmarks/RESULTS.md: all benchmarks of the engine, one after the other.

It takes about 45 minutes of one core, if benchmarks/peers.sh has installed all peers.

    python -m benchmarks.results
    python -m benchmarks.results --only rerank --precision float32 int8
"""

import argparse
import subprocess
import sys
from collections.abc import Sequence

from benchmarks.report import HEADER, RESULTS
from benchmarks.sides import OURS, ROOT

RUNS = [
    ("encode", "--texts short mixed long short:200 --profile --precision {precision}"),
    ("rerank", "--passages short long --profile --precision {precision}"),
    ("sparse", "--texts short long --sizes tiny mini --profile --precision {precision}"),
    ("losses", ""),
]
"""Benchmarks and their options, which name the precision of ours where there are several."""


def commands(only: Sequence[str] | None, precision: Sequence[str], rounds: int) -> list[list[str]]:
    """Return the arguments of Python for each benchmark.

    Args:
        only: Names of benchmarks; all if None.
        precision: Of ours, where the benchmark's peers have them too.
        rounds: Of each.
    """
    every = ((name, options.format(precision=" ".join(precision))) for name, options in RUNS)
    return [
        ["-m", f"benchmarks.{name}", *options.split(), f"--rounds={rounds}", "--markdown"]
        for name, options in every
        if not only or name in only
    ]


def main(arguments: Sequence[str] | None = None) -> None:
    """Run all, each in a process of its own."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", nargs="+", choices=sorted({name for name, _ in RUNS}), help="the rest is left as is")
    parser.add_argument("--precision", nargs="+", choices=list(OURS), default=["float32"], help="of ours")
    parser.add_argument("--rounds", type=int, default=3)
    args = parser.parse_args(arguments)

    if not args.only:  # else sections under titles of the past would stay
        RESULTS.write_text(HEADER, encoding="utf-8")
    for command in commands(args.only, args.precision, args.rounds):
        subprocess.run([sys.executable, *command], cwd=ROOT, check=True)


if __name__ == "__main__":
    main()
