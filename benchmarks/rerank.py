"""Our cross-encoder against sentence-transformers', 100 documents a query, on the same pairs.

The model is all-MiniLM-L6-v2 with a head of random weights. Queries are scored all in one call, or each in its own, as
a search engine does.

    python -m benchmarks.rerank --passages short --queries 3
    python -m benchmarks.rerank --passages short long --profile --markdown
"""

import argparse
import tempfile
from collections.abc import Sequence
from pathlib import Path

import torch
import transformers

from benchmarks import corpora, report
from benchmarks.child import Job
from benchmarks.comparison import Comparison, contest, max_abs_diff
from benchmarks.encode import minilm
from benchmarks.machine import ModelSizes
from benchmarks.sides import OURS, REFERENCE, TUNED, with_options

QUERIES = {"short": 3, "long": 1}
MAX_LENGTH = 512
HEAD_SPREAD = 1.0
"""Standard deviation of the head's weights: with the usual 0.02 all pairs would have the same score."""


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the benchmark for each kind of passages, in both ways."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--passages", nargs="+", choices=list(corpora.PASSAGES), default=["short"])
    parser.add_argument("--queries", type=int, help=f"by the kind of passages if not given: {QUERIES}")
    parser.add_argument("--documents", type=int, default=100, help="of each query")
    parser.add_argument("--precision", nargs="+", choices=list(OURS), default=["float32"], help="of ours")
    report.add_options(parser)
    args = parser.parse_args(arguments)

    command = report.command_line("benchmarks.rerank", arguments)
    with tempfile.TemporaryDirectory() as folder:
        write_cross_encoder(Path(folder), args.seed)
        sizes = ModelSizes.read(Path(folder))
        options = {"max_length": MAX_LENGTH}
        sides = [with_options(side, options) for side in (*(OURS[name] for name in args.precision), TUNED)]
        with contest(Job("predict", folder, args.threads), sides, with_options(REFERENCE, options)) as at_work:
            for kind in args.passages:
                asked = corpora.rerankings(kind, args.queries or QUERIES[kind], args.documents, args.seed)
                by_query = [[(one.query, document) for document in one.documents] for one in asked]
                ways = {"all at once": [[pair for pairs in by_query for pair in pairs]], "query by query": by_query}
                for way, groups in ways.items():
                    is_profiled = args.profile and way == "all at once"  # the other way is much the same
                    found = at_work.compare(groups, args.rounds, sizes, first_tokens_only=True, is_profiled=is_profiled)
                    title = f"Rerank: {len(asked)} x {args.documents} {kind} passages, {way}"
                    about = report.about(found, f"Pairs of a query and one of its {args.documents} documents", command)
                    num_pairs = len(asked) * args.documents
                    parts = [about, rows(found, num_pairs), report.against_peers(found), report.profiles(found)]
                    report.publish(title, parts, args.markdown)


def write_cross_encoder(folder: Path, seed: int) -> None:
    """Write all-MiniLM-L6-v2 with one label and a head of random weights."""
    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = transformers.AutoModelForSequenceClassification.from_pretrained(minilm(), num_labels=1)
        torch.nn.init.normal_(model.classifier.weight, std=HEAD_SPREAD)
    model.save_pretrained(folder)
    transformers.AutoTokenizer.from_pretrained(minilm()).save_pretrained(folder)


def rows(found: Comparison, num_pairs: int) -> str:
    """Return the table of all sides."""
    columns = [*report.speed_columns("pairs"), "max abs diff of scores", "peak MiB above the model"]
    lines = []
    for measured in found.measured:
        is_reference = measured is found.reference
        diff = "" if is_reference else f"{max_abs_diff(measured.outputs, found.reference.outputs):.0e}"
        lines.append([*report.speed_cells(found, measured, num_pairs), diff, report.memory_cell(measured)])
    scores = found.reference.outputs
    note = report.wrapped(
        f"Scores of the reference are {scores.mean():.2f} on average and spread by {scores.std():.2f}. Operations count"
        " that the head reads the first token alone, so that the last layer needs the others for keys and values only."
    )
    return f"{report.table(columns, [*lines, report.bound_cells(found, num_pairs, len(columns))])}\n\n{note}"


if __name__ == "__main__":
    main()
