"""Texts of several lengths for benchmarks: docstrings and metadata of the installed packages."""

import importlib.metadata
import random
from collections.abc import Callable
from functools import cache
from typing import NamedTuple

from benchmarks.docstrings import MIN_CHARS, docstrings, shorten

MAX_DOCSTRINGS = 12_000
MIN_WORDS = 12
NUM_JOINED = 4


class Reranking(NamedTuple):
    """A query, and documents to be scored with it."""

    query: str
    documents: list[str]


def texts(kind: str, count: int, seed: int = 0) -> list[str]:
    """Return ``count`` different texts of one of `KINDS`, in random order, the same ones for a seed.

    Raises:
        ValueError: There are not that many.
    """
    return _sample(KINDS[kind](), kind, count, random.Random(seed))


def rerankings(kind: str, num_queries: int, num_documents: int, seed: int = 0) -> list[Reranking]:
    """Return queries with different documents each, of one of `PASSAGES`; the same ones for a seed.

    Raises:
        ValueError: There are not that many.
    """
    generator = random.Random(seed)
    queries = _sample(_summaries(), "query", num_queries, generator)
    documents = _sample(PASSAGES[kind](), kind, num_queries * num_documents, generator)
    return [
        Reranking(query, documents[number * num_documents : (number + 1) * num_documents])
        for number, query in enumerate(queries)
    ]


def _sample(found: tuple[str, ...], kind: str, count: int, generator: random.Random) -> list[str]:
    if count > len(found):
        raise ValueError(f"count must be at most {len(found)} for {kind} texts, got {count}")
    return generator.sample(found, count)


@cache
def docstring_texts() -> tuple[str, ...]:
    """Return the docstrings that all kinds are made of; reading them takes seconds, so it is done once."""
    return tuple(doc.text for doc in docstrings(MAX_DOCSTRINGS))


@cache
def _packages() -> tuple[importlib.metadata.Distribution, ...]:
    return tuple(sorted(importlib.metadata.distributions(), key=lambda package: str(package.name)))


def _different(found: list[str]) -> tuple[str, ...]:
    return tuple(sorted({text for text in found if len(text) >= MIN_CHARS}))


def _summaries() -> tuple[str, ...]:
    return _different([str(package.metadata["Summary"]).strip() for package in _packages()])


def _first_lines() -> tuple[str, ...]:
    return _different([*(text.partition("\n")[0] for text in docstring_texts()), *_summaries()])


def _paragraphs() -> list[str]:
    found = [text for package in _packages() for text in str(package.metadata.get_payload()).split("\n\n")]
    return [shorten(text) for text in found if len(text.split()) > MIN_WORDS]


def _texts() -> tuple[str, ...]:
    return _different([*docstring_texts(), *_paragraphs()])


def _several() -> tuple[str, ...]:
    found = docstring_texts()
    return _different(["\n\n".join(found[at : at + NUM_JOINED]) for at in range(0, len(found), NUM_JOINED)])


def _of_any_length() -> tuple[str, ...]:
    """Return texts of one docstring, seldom of many: a third of them of two or more."""
    generator, found, joined = random.Random(0), list(docstring_texts()), []
    while found:
        count = 1 + int(generator.expovariate(1.0))
        joined.append("\n\n".join(found[:count]))
        del found[:count]
    return _different(joined)


KINDS: dict[str, Callable[[], tuple[str, ...]]] = {"short": _first_lines, "mixed": _texts, "long": _several}
"""By name: first lines of docstrings and summaries; docstrings and paragraphs; four docstrings in a row."""

PASSAGES: dict[str, Callable[[], tuple[str, ...]]] = {"short": _first_lines, "long": _of_any_length}
"""What is reranked, by name: first lines and summaries; one or more docstrings in a row."""
