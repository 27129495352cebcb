"""Our results against sentence-transformers', for every kind of model and every architecture: docs/parity.md.

Models are small and have random weights, all-MiniLM-L6-v2 aside; texts are docstrings and descriptions of the installed
packages, and a few that are odd.

    python -m benchmarks.parity
    python -m benchmarks.parity --kinds dense --names BERT MPNet --output /tmp/parity.md
"""

import argparse
import importlib.metadata
import os
import platform
import shlex
import sys
import textwrap
from collections.abc import Iterable, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, NamedTuple

os.environ.setdefault("ONEDNN_MAX_CPU_ISA", "AVX512_CORE_BF16")

import numpy as np
import sentence_transformers
import torch
import transformers
from numpy.typing import NDArray
from PIL import Image

import sbert_ray
from benchmarks import vocabularies
from benchmarks.architectures import ARCHITECTURES
from benchmarks.cases import Case, cases
from benchmarks.docstrings import docstrings
from sbert_ray.inference.threads import limit_threads

OUTPUT = Path(__file__).parents[1] / "docs" / "parity.md"
ODD_TEXTS = ["", " ", "na\u00efve caf\u00e9 \U0001f642", "\u4f60\u597d" * 40, "!" * 300, "word " * 600]
TOP = 10
TIE = 1e-6
"""Scores that differ by no more, relatively or absolutely, are tied."""
NUM_RERANKED = 16
MIN_WORDS = 12
PACKAGES = ("sbert-ray", "sentence-transformers", "transformers", "tokenizers", "torch", "numpy")
COLUMNS = ("kind", "architecture", "max abs diff", "min cosine", f"same top {TOP}")

Matrix = NDArray[np.float32]


class Inputs(NamedTuple):
    """What models are asked about."""

    queries: list[str]
    documents: list[Any]


class Outputs(NamedTuple):
    """What one side makes of it."""

    vectors: list[Matrix]
    """Embeddings of queries and of documents, or the scores of each query's documents."""
    scores: Matrix
    """Of each query (row) with each document."""


class Agreement(NamedTuple):
    """How close the two sides are."""

    max_abs_diff: float
    """The largest difference of any number."""
    min_cosine: float
    """The smallest cosine between vectors of the same input."""
    same_top: float
    """The share of queries whose `TOP` best documents are the same ones in the same order, ties aside."""


def inputs(num_queries: int, num_documents: int) -> Inputs:
    """Return summaries and first lines as queries, descriptions and docstrings as documents; no text comes twice."""
    packages = sorted(importlib.metadata.distributions(), key=lambda package: package.name)
    summaries = [str(package.metadata["Summary"]) for package in packages]
    paragraphs = [text for package in packages for text in str(package.metadata.get_payload()).split("\n\n")[:9]]
    paragraphs = [text[:600] for text in paragraphs if len(text.split()) > MIN_WORDS]
    found = [doc.text for doc in docstrings(2 * (num_queries + num_documents))]
    queries = _different([*summaries[: num_queries // 2], *(text.partition("\n")[0] for text in found)])[:num_queries]
    documents = _different([*ODD_TEXTS, *paragraphs[: num_documents // 2], *found])
    return Inputs(queries, [text for text in documents if text not in queries][:num_documents])


def _different(values: Iterable[str]) -> list[str]:
    return list(dict.fromkeys(values))


def images(count: int) -> list[Image.Image]:
    """Return pictures of several sizes and colours: waves over a gradient."""
    made = []
    for number in range(count):
        height, width = 40 + 3 * (number % 7), 40 + 5 * (number % 5)
        y, x = np.mgrid[:height, :width]
        waves = [127 + 120 * np.sin(x / (2 + number % 9) + y / (3 + channel) + number) for channel in range(3)]
        made.append(Image.fromarray(np.stack(waves, axis=-1).astype(np.uint8)))
    return made


def compare(case: Case, asked: Inputs) -> Agreement:
    """Return how close the two libraries are on a case."""
    if case.kind == "image-text":
        asked = Inputs(asked.queries, images(len(asked.documents)))
    with TemporaryDirectory() as folder:
        case.write(Path(folder))
        sides = [getattr(library, case.model)(folder, device="cpu") for library in (sbert_ray, sentence_transformers)]
        ours, theirs = sides
        alone = {"batch_size": 1} if case.reads_padding else {}
        return agreement(outputs(case, ours, asked), outputs(case, theirs, asked, **alone))


def outputs(case: Case, model: Any, asked: Inputs, **options: Any) -> Outputs:
    """Return what a model makes of queries and documents."""
    if case.model == "CrossEncoder":
        queries, documents = asked.queries[:NUM_RERANKED], asked.documents[: 3 * NUM_RERANKED]
        found = model.predict([(query, document) for query in queries for document in documents], **options)
        scores = found.reshape(len(queries), len(documents), -1)
        return Outputs(list(scores), scores[..., -1])
    queries, documents = model.encode_query(asked.queries, **options), model.encode_document(asked.documents, **options)
    scores = model.similarity(queries, documents)
    return Outputs([_array(queries), _array(documents)], _array(scores))


def _array(values: Any) -> Matrix:
    if isinstance(values, torch.Tensor):
        values = (values.to_dense() if values.is_sparse else values).numpy()
    return np.asarray(values, np.float32)


def agreement(ours: Outputs, theirs: Outputs) -> Agreement:
    """Return how close results are."""
    vectors = list(zip(ours.vectors, theirs.vectors, strict=True))
    for mine, yours in vectors:
        if mine.shape != yours.shape:
            raise ValueError(f"shapes must agree, got {mine.shape} and {yours.shape}")
    return Agreement(
        max_abs_diff=max(float(np.abs(mine - yours).max()) for mine, yours in vectors),
        min_cosine=min(float(_cosines(mine, yours).min()) for mine, yours in vectors),
        same_top=float(np.mean(_same_top(ours.scores, theirs.scores))),
    )


def _cosines(mine: Matrix, yours: Matrix) -> NDArray[np.float64]:
    """Return the cosine of each row with its counterpart; of two empty ones it is 1."""
    a, b = mine.astype(np.float64), yours.astype(np.float64)
    lengths = np.linalg.norm(a, axis=1) * np.linalg.norm(b, axis=1)
    both_empty = ~a.any(axis=1) & ~b.any(axis=1)
    return np.where(both_empty, 1.0, (a * b).sum(axis=1) / np.where(lengths == 0, 1.0, lengths))


def _same_top(mine: Matrix, yours: Matrix) -> NDArray[np.bool_]:
    """Return for each query whether our best documents have, by their scores, the scores of their best ones."""
    found, expected = (np.take_along_axis(yours, _best(scores), axis=1) for scores in (mine, yours))
    return np.isclose(found, expected, rtol=TIE, atol=TIE).all(axis=1)


def _best(scores: Matrix) -> NDArray[np.int64]:
    return np.argsort(-scores, axis=1, kind="stable")[:, :TOP]


def row(case: Case, found: Agreement) -> str:
    """Return a line of the table."""
    diff, cosine, same = f"{found.max_abs_diff:.1e}", f"{found.min_cosine:.7f}", f"{found.same_top:.1%}"
    return "| " + " | ".join([case.kind, case.name, diff, cosine, same]) + " |"


def header() -> str:
    """Return the first two lines of the table."""
    return f"| {' | '.join(COLUMNS)} |\n|{'---|' * len(COLUMNS)}"


def document(rows: Sequence[str], asked: Inputs, command: str) -> str:
    """Return the Markdown file."""
    versions = ", ".join(f"{name} {importlib.metadata.version(name)}" for name in PACKAGES)
    reads_padding = "; ".join(case.name for case in cases() if case.reads_padding)
    encoders = ", ".join(name for name, architecture in ARCHITECTURES.items() if architecture.is_encoder)
    before = _wrapped(f"""
        Each line is one checkpoint, loaded by both libraries. All have random weights and {vocabularies.NUM_PIECES}
        pieces of vocabulary, but for all-MiniLM-L6-v2, which is the real one. Both sides get {len(asked.queries)}
        queries and {len(asked.documents)} documents: docstrings and descriptions of the installed packages, and texts
        that are empty, very long, or in other scripts. Documents of the image-text model are drawn. Cross-encoders read
        the first {NUM_RERANKED} queries, each with the first {3 * NUM_RERANKED} documents.
    """)
    after = _wrapped(f"""
        sentence-transformers gets one text at a time for {reads_padding}: there it reads the padding of a text, so that
        its embedding depends on what else is in the batch. Ours does not.

        {encoders} are encoders alone, as sentence-transformers saves them. Of a whole checkpoint, with a decoder, it
        starts them with random weights; ours takes the encoder out.

        Made by `{command}` on {machine()}, with {versions}.
    """)
    return f"""# Parity with sentence-transformers

{before}

- **{COLUMNS[2]}**: the largest difference of any number of an embedding or score, in float32.
- **{COLUMNS[3]}**: the smallest cosine between the two embeddings of an input; for a cross-encoder between its scores.
- **{COLUMNS[4]}**: the share of queries whose {TOP} best documents are the same on both sides, in the same order;
  scores within {TIE:.0e} of each other are tied.

{after}

{header()}
{chr(10).join(rows)}
"""


def _wrapped(text: str) -> str:
    paragraphs = [" ".join(paragraph.split()) for paragraph in text.strip().split("\n\n")]
    return "\n\n".join(textwrap.fill(p, 120, break_long_words=False, break_on_hyphens=False) for p in paragraphs)


def machine() -> str:
    """Return what computed: the processor, and how many threads of it."""
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.exists() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return f"{names[0] if names else platform.machine()} ({torch.get_num_threads()} thread)"


def main(arguments: Sequence[str] | None = None) -> None:
    """Compare, print the table and write the file."""
    known = cases()
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kinds", nargs="+", choices=list(dict.fromkeys(case.kind for case in known)))
    parser.add_argument("--names", nargs="+", metavar="ARCHITECTURE", choices=[case.name for case in known])
    parser.add_argument("--queries", type=int, default=50)
    parser.add_argument("--documents", type=int, default=200)
    parser.add_argument("--output", type=Path, help="docs/parity.md if all cases run, else nowhere")
    args = parser.parse_args(arguments)

    limit_threads(1)
    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()
    chosen = [
        case
        for case in known
        if (not args.kinds or case.kind in args.kinds) and (not args.names or case.name in args.names)
    ]
    asked = inputs(args.queries, args.documents)
    print(header())
    rows = []
    for case in chosen:
        rows.append(row(case, compare(case, asked)))
        print(rows[-1], flush=True)
    output = args.output or (OUTPUT if chosen == known else None)
    if output:
        given = sys.argv[1:] if arguments is None else arguments
        output.write_text(document(rows, asked, shlex.join(["python", "-m", "benchmarks.parity", *given])))


if __name__ == "__main__":
    main()
