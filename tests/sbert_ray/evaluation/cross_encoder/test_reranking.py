"""Reranking by cross-encoders against the peer, ties included."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from sbert_ray.evaluation import cross_encoder as ours
from sbert_ray.evaluation.cross_encoder import reranking as module
from tests.sbert_ray.evaluation.cross_encoder.oracle import Scores
from tests.sbert_ray.evaluation.oracle import assert_same, words

peer = pytest.importorskip("sentence_transformers.cross_encoder.evaluation")

NEGATIVES = [
    {"query": f"q{i}", "positive": words(f"p{i}-", i % 3), "negative": words(f"n{i}-", 2 + i % 7)} for i in range(25)
]
DOCUMENTS = [
    {
        "query": f"q{i}",
        "positive": words(f"p{i}-", i % 4),
        "documents": [*words(f"n{i}-", 2 + i % 5), *words(f"p{i}-", i % 3), *words(f"o{i}-", i % 2), f"n{i}-0"],
    }
    for i in range(25)
]
DOCUMENTS.append({"query": "one", "positive": "single", "documents": ["other", "single"]})


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # of older names
@pytest.mark.parametrize("name", ["CrossEncoderRerankingEvaluator", "CERerankingEvaluator"])
@pytest.mark.parametrize(
    "options",
    [
        {},
        {"name": "dev", "at_k": 3, "prompt_name": "p"},
        {"always_rerank_positives": False},
        {"mrr_at_k": 2, "write_csv": False, "always_rerank_positives": False},
    ],
)
@pytest.mark.parametrize("samples", [NEGATIVES, DOCUMENTS, dict(enumerate(DOCUMENTS))])
def test_equals_the_peer(name: str, options: dict[str, Any], samples: Any, tmp_path: Path) -> None:
    theirs = getattr(peer, name)(samples, **options)
    assert_same(getattr(ours, name)(samples, **options), theirs, Scores(), tmp_path)


def test_pairs_are_scored_in_bounded_groups(monkeypatch: pytest.MonkeyPatch) -> None:
    expected = ours.CrossEncoderRerankingEvaluator(DOCUMENTS)(Scores())
    monkeypatch.setattr(module, "_PAIRS", 10)
    model = Scores()
    assert ours.CrossEncoderRerankingEvaluator(DOCUMENTS)(model) == expected
    assert max(model.counts) < 10 + 12


def test_wrong_input_is_refused() -> None:
    with pytest.raises(ValueError, match="samples must be at least one"):
        ours.CrossEncoderRerankingEvaluator([])
    with pytest.raises(ValueError, match=r"or 'negative', got \['query', 'positive', 'documents'\] in row 0"):
        ours.CrossEncoderRerankingEvaluator([{"query": "q", "positive": ["a"], "documents": []}])
    with pytest.raises(ValueError, match="at_k must be positive, got 0"):
        ours.CrossEncoderRerankingEvaluator(DOCUMENTS, at_k=0)
    with pytest.raises(ValueError, match=r"predict must return one score for a pair, got shape \(\d+, 2\)"):
        ours.CrossEncoderRerankingEvaluator(DOCUMENTS)(Scores(2))


def test_nan_is_refused() -> None:
    class Nan(Scores):
        def predict(self, pairs: Any, **options: Any) -> Any:
            return super().predict(pairs, **options) * np.float32("nan")

    for samples in (NEGATIVES, DOCUMENTS):
        with pytest.raises(ValueError, match="scores must be numbers, got nan in row 0"):
            ours.CrossEncoderRerankingEvaluator(samples)(Nan())
