"""The corpus of the demo: real, varied, and the same every time."""

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from benchmarks import docstrings as module
from benchmarks.docstrings import MAX_CHARS, MIN_CHARS, Docstring, docstrings, shorten, write_corpus

LIMIT = 60


@pytest.fixture(scope="module")
def docs() -> list[Docstring]:
    return docstrings(LIMIT)


def test_docstrings_are_distinct_sorted_and_of_a_fair_length(docs):
    assert len(docs) == LIMIT
    assert [doc.id for doc in docs] == sorted({doc.id for doc in docs})
    assert len({doc.text for doc in docs}) == LIMIT
    assert all(MIN_CHARS <= len(doc.text) <= MAX_CHARS for doc in docs)


def test_docstrings_come_from_several_packages_and_say_from_where(docs):
    assert len({doc.package for doc in docs}) >= 4
    assert all(doc.id.startswith(doc.package) for doc in docs)


def test_docstrings_are_the_same_every_time(docs):
    assert docstrings(LIMIT) == docs


def test_ids_name_module_class_and_function(tmp_path, monkeypatch):
    source = '"""A module that says something."""\nclass A:\n    def f(self):\n        """A method of a class."""\n'
    (tmp_path / "pkg").mkdir()
    (tmp_path / "pkg" / "__init__.py").write_text(source)
    (tmp_path / "pkg" / "broken.py").write_text("def (:")
    monkeypatch.setattr(module.sysconfig, "get_paths", lambda: {"purelib": str(tmp_path)})
    monkeypatch.setattr(module, "PACKAGES", {"pkg": 1.0})
    assert docstrings(9) == [
        Docstring("pkg", "A module that says something.", "pkg"),
        Docstring("pkg:A.f", "A method of a class.", "pkg"),
    ]


def test_corpus_is_sharded_and_whole(docs, tmp_path):
    write_corpus(tmp_path / "corpus", docs, num_shards=4)
    paths = sorted((tmp_path / "corpus").iterdir())
    assert [path.name for path in paths] == [f"docs-00{i}.parquet" for i in range(4)]
    table = pa.concat_tables([pq.read_table(path) for path in paths])
    assert [Docstring(**row) for row in table.to_pylist()] == docs
    assert list(tmp_path.iterdir()) == [tmp_path / "corpus"]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("  short  ", "short"),
        ("a " * 150 + "\n\n" + "b " * 400, ("a " * 150).strip()),
        ("word " * 200, ("word " * 120).strip()),
        ("x" * 700, "x" * 600),
    ],
    ids=["short", "paragraphs", "words", "no-spaces"],
)
def test_long_texts_end_with_a_paragraph_or_a_word(text, expected):
    assert shorten(text) == expected
