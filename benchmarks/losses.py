"""A loss and its gradients by us and by sentence-transformers, on the same batches: speed, memory, equality.

python -m benchmarks.losses
python -m benchmarks.losses --losses mnrl cached --texts short mixed --dropout --markdown
"""

import argparse
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks import corpora, report
from benchmarks.child import Job
from benchmarks.comparison import Comparison, contest
from benchmarks.encode import minilm
from benchmarks.machine import ModelSizes
from benchmarks.sides import Side


@dataclass(frozen=True)
class Loss:
    """A loss under its public name, and its batch."""

    name: str
    batch_size: int = 64
    options: dict[str, Any] = field(default_factory=dict)
    passes: int = 1
    """How often texts are embedded."""


LOSSES = {
    "mnrl": Loss("MultipleNegativesRankingLoss"),
    "cached": Loss("CachedMultipleNegativesRankingLoss", 1024, {"mini_batch_size": 32}, passes=2),
    "gist": Loss("GISTEmbedLoss"),
    "cosent": Loss("CoSENTLoss"),
    "matryoshka": Loss(
        "MatryoshkaLoss", 64, {"loss": "MultipleNegativesRankingLoss", "matryoshka_dims": [384, 256, 128, 64]}
    ),
}


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the benchmark for each loss."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--losses", nargs="+", choices=list(LOSSES), default=list(LOSSES))
    parser.add_argument(
        "--texts", nargs=2, choices=list(corpora.KINDS), default=["short", "mixed"], help="of the two columns"
    )
    parser.add_argument("--batch-size", type=int, help="pairs; by the loss if not given")
    parser.add_argument("--dropout", action="store_true", help="train with the model's dropout, so that losses differ")
    report.add_options(parser)
    args = parser.parse_args(arguments)

    command = report.command_line("benchmarks.losses", arguments)
    for key in args.losses:
        loss = LOSSES[key]
        size = args.batch_size or loss.batch_size
        columns = [corpora.texts(kind, size, args.seed + place) for place, kind in enumerate(args.texts)]
        settings = {"loss": loss.name, "options": loss.options, "dropout": args.dropout}
        ours, theirs = (
            Side(name, "training", options={"package": package, **settings}, is_ours=package == "sbert_ray")
            for name, package in (("sbert_ray", "sbert_ray"), ("sentence-transformers", "torch"))
        )
        # A contest for each loss, so that memory is that of a process that has seen no others.
        with contest(Job("train", str(minilm()), args.threads), [ours], theirs) as at_work:
            found = at_work.compare(columns, args.rounds, ModelSizes.read(Path(minilm())), is_profiled=args.profile)
        title = f"Loss {key}: {size} pairs of {args.texts[0]} and {args.texts[1]} texts"
        what = (
            f"forward and backward pass of {loss.name} {loss.options or ''}, {size} pairs of {' and '.join(args.texts)}"
        )
        what += f" texts, {'the model' if args.dropout else 'no'} dropout"
        parts = [report.about(found, what, command), rows(found, size, loss), report.profiles(found)]
        report.publish(title, parts, args.markdown)


def rows(found: Comparison, size: int, loss: Loss) -> str:
    """Return the table of both sides."""
    columns = ["side", "CPU s (min-max)", "pairs/s", "speed-up (min-max)", "padding", "loss", "gradients' max rel diff"]
    columns.append("peak MiB above the model")
    lines = []
    for measured in found.measured:
        cells = report.speed_cells(found, measured, size)
        padded = 1 - loss.passes * sum(measured.lengths) / measured.num_positions
        theirs, mine = found.reference.outputs[0], measured.outputs[0]
        norms = np.abs(mine[1:] - theirs[1:]) / theirs[1:].max()
        difference = "" if measured is found.reference else f"{norms.max():.0e}"
        lines.append(
            [cells[0], *cells[2:5], f"{padded:.1%}", f"{mine[0]:.6f}", difference, report.memory_cell(measured)]
        )
    return report.table(columns, lines)


if __name__ == "__main__":
    main()
