"""Paraphrase mining against the peer, ties included."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from sbert_ray.evaluation import ParaphraseMiningEvaluator
from sbert_ray.evaluation import metrics as of
from tests.sbert_ray.evaluation.oracle import Texts, assert_same

peer = pytest.importorskip("sentence_transformers.sentence_transformer.evaluation")

TEXTS = {f"s{number}": f"text {number % 37}" for number in range(60)}
PAIRS = [(f"s{a}", f"s{b}") for a, b in np.random.default_rng(0).integers(0, 60, (40, 2)) if a != b]
PAIRS += [("s1", "s38"), ("s38", "s1"), ("s5", "absent"), ("s2", "s39"), ("s39", "s2")]


class Signs(Texts):
    """Embeds texts as signs, so that cosines are exact."""

    def row(self, text: str) -> np.ndarray:
        return np.where(super().row(text) > 0, 1.0, -1.0).astype(np.float32)


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"name": "dev", "truncate_dim": 4, "add_transitive_closure": True},
        {"top_k": 3, "query_chunk_size": 7, "corpus_chunk_size": 11},
        {"max_pairs": 2000, "write_csv": False},
    ],
)
def test_equals_the_peer(options: dict[str, Any], tmp_path: Path) -> None:
    theirs = peer.ParaphraseMiningEvaluator(TEXTS, PAIRS, **options)
    ours = ParaphraseMiningEvaluator(TEXTS, PAIRS, **options)
    assert ours.total_num_duplicates == theirs.total_num_duplicates
    if "top_k" not in options:  # of equal neighbours, the peer takes other ones
        assert_same(ours, theirs, Signs(dim=16), tmp_path)
        return
    got = ours(Signs(dim=16))
    assert got == pytest.approx(by_hand(options["top_k"]))


def by_hand(top_k: int) -> dict[str, float]:
    """Return the metrics of the pairs of which one row is among the nearest of the other, the lesser ids first."""
    matrix = Signs(dim=16).encode(list(TEXTS.values()), convert_to_numpy=True)
    cosines = (matrix @ matrix.T) / 16
    pairs = set()
    for row, scores in enumerate(cosines):
        others = sorted((other for other in range(60) if other != row), key=lambda other: (-scores[other], other))
        pairs |= {frozenset((row, other)) for other in others[:top_k]}
    duplicates = {frozenset((int(a[1:]), int(b[1:]))) for a, b in PAIRS if a in TEXTS and b in TEXTS}
    total = len(duplicates)
    scores = np.array([cosines[min(pair), max(pair)] for pair in pairs])
    labels = [pair in duplicates for pair in pairs]
    best = of.best_f1(scores, labels, total)
    return {
        "average_precision": of.average_precision(labels, scores, total),
        "f1": best.f1,
        "precision": best.precision,
        "recall": best.recall,
        "threshold": best.threshold,
    }


def test_real_numbers_are_as_with_the_peer(tmp_path: Path) -> None:
    class Normal(Texts):
        def row(self, text: str) -> np.ndarray:
            return np.random.default_rng(len(text) * 1000 + sum(map(ord, text))).normal(size=8).astype(np.float32)

    texts = {str(number): f"{number} text" for number in range(50)}
    pairs = [("1", "2"), ("10", "31"), ("7", "40")]
    for top_k in (2, 100):
        theirs = peer.ParaphraseMiningEvaluator(texts, pairs, top_k=top_k)
        got = assert_same(
            ParaphraseMiningEvaluator(texts, pairs, top_k=top_k), theirs, Normal(), tmp_path / make(tmp_path, top_k)
        )
        assert got.keys() == {"average_precision", "f1", "precision", "recall", "threshold"}


def make(folder: Path, top_k: int) -> str:
    (folder / str(top_k)).mkdir()
    return str(top_k)


def test_duplicates_may_come_by_id_in_either_order() -> None:
    by_id = {"s1": {"s38": True, "s2": False}, "s39": {"s2": True}}
    evaluator = ParaphraseMiningEvaluator(TEXTS, duplicates_dict=by_id)
    assert evaluator.duplicates == {frozenset(("s1", "s38")), frozenset(("s2", "s39"))}
    closed = ParaphraseMiningEvaluator(TEXTS, [("s1", "s2"), ("s2", "s3")], add_transitive_closure=True)
    assert closed.total_num_duplicates == 3


def test_nothing_found_is_nothing(tmp_path: Path) -> None:
    for pairs in ([], [("s0", "s5")]):
        theirs = peer.ParaphraseMiningEvaluator(TEXTS, pairs, max_pairs=1, write_csv=False)
        ours = ParaphraseMiningEvaluator(TEXTS, pairs, max_pairs=1, write_csv=False)
        assert_same(ours, theirs, Signs(dim=16), tmp_path)
    with pytest.raises(ValueError, match="sentences_map must have at least one text"):
        ParaphraseMiningEvaluator({})


@pytest.mark.parametrize("closure", [False, True])
@pytest.mark.parametrize(
    ("texts", "pairs"),
    [
        ({"a": "x"}, []),
        ({"a": "x"}, [("a", "a")]),
        ({"a": "x", "b": "y", "c": "z"}, [("a", "a")]),
        ({"a": "x", "b": "y", "c": "z"}, [("a", "b"), ("b", "b")]),
        ({"a": "x", "b": "y", "c": "z"}, [("a", "b"), ("a", "a"), ("b", "c")]),
    ],
)
def test_a_text_that_is_its_own_duplicate_is_as_with_the_peer(
    closure: bool, texts: dict[str, str], pairs: Any, tmp_path: Path
) -> None:
    theirs = peer.ParaphraseMiningEvaluator(texts, pairs, add_transitive_closure=closure)
    ours = ParaphraseMiningEvaluator(texts, pairs, add_transitive_closure=closure)
    assert ours.total_num_duplicates == theirs.total_num_duplicates
    assert_same(ours, theirs, Texts(), tmp_path)


def test_ids_of_several_kinds_are_closed() -> None:
    texts = {"a": "x", 1: "y", 2: "z"}
    evaluator = ParaphraseMiningEvaluator(texts, [("a", 1), (1, 2)], add_transitive_closure=True)
    assert evaluator.duplicates == {frozenset(("a", 1)), frozenset((1, 2)), frozenset(("a", 2))}


def test_nan_is_refused() -> None:
    class Nan(Texts):
        def row(self, text: str) -> np.ndarray:
            return super().row(text) * np.float32("nan")

    with pytest.raises(ValueError, match="scores must be numbers, got nan in row 0"):
        ParaphraseMiningEvaluator(TEXTS, PAIRS)(Nan())
