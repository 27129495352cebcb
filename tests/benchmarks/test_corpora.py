"""Texts of the benchmarks are real, different, of the length their name says, and the same every time."""

import statistics
from collections.abc import Iterator

import pytest

from benchmarks import corpora
from benchmarks.corpora import KINDS, PASSAGES, rerankings, texts


@pytest.fixture(autouse=True, scope="module")
def few_docstrings() -> Iterator[None]:
    """Read a tenth of what benchmarks read."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(corpora, "MAX_DOCSTRINGS", 1200)
        corpora.docstring_texts.cache_clear()
        yield
    corpora.docstring_texts.cache_clear()


@pytest.mark.parametrize("kind", KINDS)
def test_texts_are_different_and_the_same_for_a_seed(kind):
    found = texts(kind, 50)
    assert len(set(found)) == 50
    assert texts(kind, 50) == found
    assert texts(kind, 50, seed=1) != found


def test_kinds_are_of_different_lengths():
    short, mixed, long = (statistics.mean(map(len, texts(kind, 100))) for kind in ("short", "mixed", "long"))
    assert 2 * short < mixed < long / 2


def test_more_texts_than_there_are_is_an_error():
    with pytest.raises(ValueError, match=r"count must be at most \d+ for long texts, got 1000000"):
        texts("long", 1_000_000)


@pytest.mark.parametrize("kind", PASSAGES)
def test_every_query_has_documents_of_its_own(kind):
    found = rerankings(kind, 3, 10)
    assert [len(asked.documents) for asked in found] == [10, 10, 10]
    assert len({asked.query for asked in found}) == 3
    assert len({text for asked in found for text in asked.documents}) == 30
    assert rerankings(kind, 3, 10) == found
