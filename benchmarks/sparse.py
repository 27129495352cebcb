"""Our SPLADE encoder against sentence-transformers', on the same texts: speed, memory, equality.

No weights of a SPLADE model are at hand, so models are masked language models of random weights with the vocabulary of
all-MiniLM-L6-v2, and the biases of their heads are lowered until as many dimensions are active as in trained ones.

    python -m benchmarks.sparse --texts short --sizes tiny
    python -m benchmarks.sparse --texts short long --sizes tiny mini --profile --markdown
"""

import argparse
import tempfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
import transformers

from benchmarks import corpora, report
from benchmarks.child import Job
from benchmarks.comparison import Comparison, contest, max_abs_diff
from benchmarks.encode import minilm
from benchmarks.machine import ModelSizes
from benchmarks.sides import OURS, TUNED

COUNTS = {"short": 300, "mixed": 100, "long": 60}
SIZES = {
    "tiny": {"num_hidden_layers": 2, "hidden_size": 128, "num_attention_heads": 2, "intermediate_size": 512},
    "mini": {"num_hidden_layers": 6, "hidden_size": 384, "num_attention_heads": 12, "intermediate_size": 1536},
}
"""2 x 128, and that of all-MiniLM-L6-v2."""
NUM_ACTIVE = 60
"""Of the 30,522 dimensions, on average: trained models have 30 to 100."""
NUM_PROBED = 32
ROUNDING = 1e-6


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the benchmark for each size of model and kind of texts."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--texts", nargs="+", choices=list(corpora.KINDS), default=["short"])
    parser.add_argument("--count", type=int, help=f"of texts; by their kind if not given: {COUNTS}")
    parser.add_argument("--sizes", nargs="+", choices=list(SIZES), default=["tiny"])
    parser.add_argument("--precision", nargs="+", choices=list(OURS), default=["float32"], help="of ours")
    report.add_options(parser)
    args = parser.parse_args(arguments)

    command = report.command_line("benchmarks.sparse", arguments)
    for size in args.sizes:
        for kind in args.texts:
            texts = corpora.texts(kind, args.count or COUNTS[kind], args.seed)
            with tempfile.TemporaryDirectory() as folder:
                write_splade(Path(folder), size, texts[:NUM_PROBED], args.seed)
                sides = [*(OURS[name] for name in args.precision), TUNED]
                # A contest for each kind of texts, so that memory is that of a process that has seen no others.
                with contest(Job("encode_sparse", folder, args.threads), sides) as at_work:
                    sizes = ModelSizes.read(Path(folder), has_head=True)
                    found = at_work.compare([texts], args.rounds, sizes, is_profiled=args.profile)
            about = report.about(found, f"{len(texts)} {kind} texts, {describe(size)}", command)
            parts = [about, rows(found, len(texts)), report.against_peers(found), report.profiles(found)]
            report.publish(f"SPLADE {size}: {len(texts)} {kind} texts", parts, args.markdown)


def describe(size: str) -> str:
    """Return what a size of model is."""
    sizes = SIZES[size]
    return f"a head over 30,522 tokens on {sizes['num_hidden_layers']} layers of {sizes['hidden_size']}"


def write_splade(folder: Path, size: str, probed: Sequence[str], seed: int) -> None:
    """Write a masked language model of random weights with about `NUM_ACTIVE` active dimensions.

    Args:
        folder: Where to.
        size: One of `SIZES`.
        probed: Texts to find the bias with.
        seed: Of the weights.
    """
    tokenizer = transformers.AutoTokenizer.from_pretrained(minilm())
    config = transformers.BertConfig(vocab_size=len(tokenizer), pad_token_id=tokenizer.pad_token_id, **SIZES[size])
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = transformers.BertForMaskedLM(config).eval()
    with torch.inference_mode():
        found = [model(**tokenizer(text, return_tensors="pt", truncation=True)).logits for text in probed]
        largest = torch.cat([logits.amax(dim=1) for logits in found])  # (texts, vocabulary)
    # Subtracted from every logit, it leaves the wanted number above zero.
    threshold = np.partition(largest.numpy().ravel(), -NUM_ACTIVE * len(probed))[-NUM_ACTIVE * len(probed)]
    with torch.no_grad():
        model.cls.predictions.decoder.bias -= float(threshold)
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)


def rows(found: Comparison, num_texts: int) -> str:
    """Return the table of all sides."""
    columns = [*report.speed_columns("texts"), "same non-zeros", "max abs diff", "peak MiB above the model"]
    theirs = found.reference.outputs
    lines = []
    for measured in found.measured:
        same = ((measured.outputs > ROUNDING) == (theirs > ROUNDING)).all(axis=1).mean()
        equal = [f"{same:.1%} of texts", f"{max_abs_diff(measured.outputs, theirs):.0e}"]
        if measured is found.reference:
            equal = ["", ""]
        lines.append([*report.speed_cells(found, measured, num_texts), *equal, report.memory_cell(measured)])
    note = report.wrapped(
        f"The reference's embeddings have {np.count_nonzero(theirs) / len(theirs):.0f} active dimensions on average."
        f" Values of up to {ROUNDING:.0e}, which rounding makes or takes away, do not count as non-zeros."
    )
    return f"{report.table(columns, [*lines, report.bound_cells(found, num_texts, len(columns))])}\n\n{note}"


if __name__ == "__main__":
    main()
