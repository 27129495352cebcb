"""The Markdown that benchmarks print, and write into benchmarks/RESULTS.md section by section."""

import argparse
import shlex
import sys
import textwrap
from collections.abc import Sequence
from pathlib import Path

from benchmarks.comparison import Comparison, Measured, ratios, spread
from benchmarks.machine import describe_lengths, describe_machine
from benchmarks.profiles import profile_table

RESULTS = Path(__file__).parent / "RESULTS.md"
HEADER = """# Results of the benchmarks

[README.md](README.md) says what is measured and how; `python -m benchmarks.results` renews all of it.
"""
MIB = 2**20


def add_options(parser: argparse.ArgumentParser) -> None:
    """Add the options that all benchmarks have."""
    parser.add_argument("--rounds", type=int, default=3, help="of each side, in turns")
    parser.add_argument("--threads", type=int, default=1, help="of each side")
    parser.add_argument("--seed", type=int, default=0, help="of the choice of texts")
    parser.add_argument("--profile", action="store_true", help="also tell where time goes, under torch's profiler")
    parser.add_argument(
        "--markdown",
        type=Path,
        nargs="?",
        const=RESULTS,
        metavar="FILE",
        help="a file whose section to replace or append; benchmarks/RESULTS.md if none is named",
    )


def table(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Return a table; numbers, which are all but the first column, are right-aligned."""
    lines = [columns, ["---", *["---:"] * (len(columns) - 1)], *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def wrapped(text: str) -> str:
    """Return a paragraph in lines of the usual length."""
    return textwrap.fill(" ".join(text.split()), 120, break_long_words=False, break_on_hyphens=False)


def speed_cells(found: Comparison, measured: Measured, unit: int) -> list[str]:
    """Return what a row begins with: name, batch size, seconds, units per second, speed, share of the peak, padding."""
    side = measured.side
    return [
        f"**{side.name}**" if side.is_ours else side.name,
        "by tokens" if side.is_ours else str(measured.batch_size or "its default"),
        spread(measured.seconds),
        f"{unit / measured.median:.1f}",
        spread(ratios(found.reference, measured)),
        f"{found.peak_share(measured):.0%}",
        f"{measured.padded_share:.1%}",
    ]


def speed_columns(unit: str) -> list[str]:
    """Return the titles of `speed_cells`."""
    return [
        "side",
        "batch size",
        "CPU s (min-max)",
        f"{unit}/s",
        "speed-up (min-max)",
        "of fp32 GEMM peak",
        "padding",
    ]


def memory_cell(measured: Measured) -> str:
    """Return the peak of memory above that of the loaded model, in MiB."""
    return "" if measured.peak_bytes is None else f"{measured.peak_bytes / MIB:.0f}"


def bound_cells(found: Comparison, unit: int, num_columns: int) -> list[str]:
    """Return a row for what the peak allows."""
    seconds = found.flops / found.peak
    cells = ["*fp32 GEMM peak, all else free*", "", f"{seconds:.2f}", f"{unit / seconds:.1f}", f"{found.bound():.2f}"]
    return [*cells, "100%", "0.0%", *[""] * (num_columns - 7)]


def against_peers(found: Comparison) -> str:
    """Return a table of how many times as fast as each other side ours are."""
    ours = [measured for measured in found.measured if measured.side.is_ours]
    rows = [
        [measured.side.name, *(spread(ratios(measured, mine)) for mine in ours)]
        for measured in found.measured
        if not measured.side.is_ours
    ]
    return table(["times as fast as", *(f"**{mine.side.name}**" for mine in ours)], rows)


def about(found: Comparison, what: str, command: str) -> str:
    """Return what was measured, on what, with what, and what is missing."""
    peaks = spread((peak / 1e9 for peak in found.peaks), 0)
    lines = [
        wrapped(
            f"{what}; {describe_lengths(found.reference.lengths)}. {found.threads} thread(s) a side,"
            f" {len(found.reference.seconds)} round(s) in turns. fp32 GEMM peak {peaks} GFLOP per CPU second."
        ),
        f"`{command}`",
        wrapped(f"{describe_machine()}. {_versions(found.measured)}."),
    ]
    return "\n\n".join([*lines, *(wrapped(f"Not measured: {failure}.") for failure in found.failures)])


def _versions(measured: Sequence[Measured]) -> str:
    """Return the versions of each environment, under the names of the sides that ran in it."""
    by_environment = {one.side.environment or "": one.versions for one in measured}
    listed = [
        (f"{name}: " if name else "") + ", ".join(f"{package} {version}" for package, version in versions.items())
        for name, versions in by_environment.items()
    ]
    return "; ".join(listed)


def profiles(found: Comparison) -> str:
    """Return the table of profiles, with its caption; nothing if there are none."""
    if not found.profiles:
        return ""
    caption = wrapped(
        "Where the time goes, under torch's profiler, which knows wall-clock time only and slows small operators down."
        " Outside of operators are tokenization, Python, and kernels that torch does not know."
    )
    return f"{caption}\n\n{table(*profile_table(found.profiles))}"


def command_line(module: str, arguments: Sequence[str] | None) -> str:
    """Return the command that a benchmark was started by."""
    return shlex.join(["python", "-m", module, *(sys.argv[1:] if arguments is None else arguments)])


def publish(title: str, parts: Sequence[str], path: Path | None) -> None:
    """Print a section, and write it into a file if there is one."""
    body = "\n\n".join(part for part in parts if part)
    print(f"## {title}\n\n{body}\n", flush=True)
    if path:
        text = path.read_text(encoding="utf-8") if path.exists() else HEADER
        path.write_text(with_section(text, title, body), encoding="utf-8")


def with_section(text: str, title: str, body: str) -> str:
    """Return a document with a section of second level replaced, or else appended."""
    head, *sections = f"\n{text}".split("\n## ")
    bodies = {name: rest.strip() for name, _, rest in (section.partition("\n") for section in sections)}
    bodies[title] = body.strip()
    return "\n\n".join([head.strip(), *(f"## {name}\n\n{rest}" for name, rest in bodies.items())]) + "\n"
