"""The tables of docs/losses.md are those of the losses' documentation, and its examples run."""

import re
from pathlib import Path

import pytest

from sbert_ray.losses.catalog import Entry, by_data, entries, with_tables

PAGE = Path(__file__).parents[3] / "docs" / "losses.md"


def test_the_page_is_up_to_date() -> None:
    text = PAGE.read_text(encoding="utf-8")
    assert with_tables(text) == text, "run: python -m sbert_ray.losses.catalog docs/losses.md"


def test_every_loss_says_what_it_takes() -> None:
    for entry in entries():
        assert entry.data, entry
        assert all(columns and labels for columns, labels in entry.data), entry
        assert re.fullmatch(r"[`A-Z].*\.", entry.summary), entry


def test_alternatives_of_columns_may_have_labels_of_their_own() -> None:
    [entry] = [entry for entry in entries() if entry.name == "AnglELoss"]
    assert entry.data == (
        ("(sentence_A, sentence_B)", "similarity score"),
        ("(anchor, positive, negative_1, ..., negative_n)", "similarity score of the positive, or none"),
    )


def test_alternatives_are_rows_of_their_own() -> None:
    found = [
        Entry("ALoss", "SentenceTransformer", "A.", (("(a, b)", "none"), ("(a, b, c)", "none"))),
        Entry("BLoss", "CrossEncoder", "B.", (("(a, b)", "none"),)),
        Entry("CLoss", "SparseEncoder", "C.", (("those of the wrapped loss",) * 2,)),
    ]
    assert by_data(found).splitlines()[2:] == [
        "| (a, b) | none | `ALoss` |  | `BLoss` |",
        "| (a, b, c) | none | `ALoss` |  |  |",
        "| those of the loss inside |  |  | `CLoss` |  |",
    ]


def test_a_page_without_a_place_for_a_table_is_refused() -> None:
    with pytest.raises(ValueError, match="the document must have <!-- begin: by data -->"):
        with_tables("# Losses")


def test_examples_run(minilm: Path) -> None:
    namespace: dict[str, object] = {}
    for block in re.findall(r"^```python\n(.*?)^```", PAGE.read_text(encoding="utf-8"), re.DOTALL | re.MULTILINE):
        source = block.replace("sentence-transformers/all-MiniLM-L6-v2", str(minilm))
        exec(compile(source, str(PAGE), "exec"), namespace)
    assert namespace["value"].isfinite()
