"""Search results in the form that users get."""

from collections.abc import Iterable
from typing import TypedDict


class Hit(TypedDict):
    """A row of the corpus and its score for a query."""

    corpus_id: int
    score: float


def hits(scores: Iterable[float], ids: Iterable[int]) -> list[Hit]:
    """Return the hits of one query, in the order of ``scores`` and ``ids``."""
    return [{"corpus_id": corpus_id, "score": score} for score, corpus_id in zip(scores, ids, strict=True)]
