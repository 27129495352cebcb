"""Reranking by similarity against the peer, ties included."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from sbert_ray.evaluation import RerankingEvaluator, SparseRerankingEvaluator
from sbert_ray.evaluation import reranking as module
from sbert_ray.similarity import dot_score
from tests.sbert_ray.evaluation.oracle import SparseTexts, Texts, assert_same, words

peer = pytest.importorskip("sentence_transformers.sentence_transformer.evaluation")

SAMPLES = [
    {"query": f"q{i}", "positive": words(f"p{i}-", 1 + i % 3), "negative": words(f"n{i}-", i % 7)} for i in range(25)
]
SAMPLES.append({"query": "one", "positive": "single", "negative": ["other", "others"]})


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"name": "dev", "truncate_dim": 3, "at_k": 2},
        {"use_batched_encoding": False, "similarity_fct": dot_score},
        {"mrr_at_k": 4, "write_csv": False},
    ],
)
@pytest.mark.parametrize("levels", [1, 3])
def test_equals_the_peer(options: dict[str, Any], levels: int, tmp_path: Path) -> None:
    theirs = peer.RerankingEvaluator(SAMPLES, **options)
    assert_same(RerankingEvaluator(SAMPLES, **options), theirs, Texts(levels=levels), tmp_path)


def test_samples_by_id_are_as_with_the_peer(tmp_path: Path) -> None:
    samples = dict(enumerate(SAMPLES[:9]))
    assert_same(RerankingEvaluator(samples), peer.RerankingEvaluator(samples), Texts(), tmp_path)


def test_documents_are_embedded_in_bounded_groups(monkeypatch: pytest.MonkeyPatch) -> None:
    expected = RerankingEvaluator(SAMPLES)(Texts())
    monkeypatch.setattr(module, "_DOCUMENTS", 10)
    model = Texts()
    assert RerankingEvaluator(SAMPLES)(model) == expected
    assert max(model.counts) < 10 + 9


def test_wrong_input_is_refused() -> None:
    with pytest.raises(ValueError, match="at least one with positive and negative documents, got none"):
        RerankingEvaluator([{"query": "q", "positive": [], "negative": ["a"]}])
    with pytest.raises(ValueError, match=r"must have 'query', 'positive' and 'negative', got one without \['query'"):
        RerankingEvaluator([{"positive": [], "negative": ["a"]}])
    with pytest.raises(ValueError, match="documents must be a text or texts, got None"):
        RerankingEvaluator([{"query": "q", "positive": None, "negative": ["a"]}])
    with pytest.raises(ValueError, match="at_k must be positive, got 0"):
        RerankingEvaluator(SAMPLES, at_k=0)


@pytest.mark.filterwarnings("ignore:Sparse invariant checks are implicitly disabled")  # the peer's
@pytest.mark.parametrize("seed", range(20))
def test_ties_among_many_documents_are_as_with_the_peer(seed: int, tmp_path: Path) -> None:
    rng = np.random.default_rng(seed)
    samples = [
        {"query": "q", "positive": chosen(rng, 2), "negative": chosen(rng, int(rng.choice([10, 40, 300])))}
        for _ in range(3)
    ]
    options = {"use_batched_encoding": bool(rng.integers(2))}
    theirs = peer.RerankingEvaluator(samples, **options)
    assert_same(RerankingEvaluator(samples, **options), theirs, Texts(levels=1, dim=3), tmp_path / "dense")
    sparse = pytest.importorskip("sentence_transformers.sparse_encoder.evaluation")
    theirs = sparse.SparseRerankingEvaluator(samples, **options)
    assert_same(SparseRerankingEvaluator(samples, **options), theirs, SparseTexts(levels=1, dim=3), tmp_path / "sparse")


def chosen(rng: np.random.Generator, count: int) -> list[str]:
    return [f"t{number}" for number in rng.integers(0, 100, count)]


def test_all_zeros_find_nothing_by_themselves() -> None:
    class Zeros(Texts):
        def row(self, text: str) -> np.ndarray:
            return super().row(text) * 0

    samples = [{"query": "q", "positive": ["p"], "negative": words("n", 30)}]
    assert RerankingEvaluator(samples)(Zeros()) == pytest.approx(peer.RerankingEvaluator(samples)(Zeros()))


def test_nan_is_refused() -> None:
    class Nan(Texts):
        def row(self, text: str) -> np.ndarray:
            return super().row(text) * np.float32("nan")

    with pytest.raises(ValueError, match="scores must be numbers, got nan in row 0"):
        RerankingEvaluator(SAMPLES)(Nan())
