"""Fusion of rankings against the peer."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from sbert_ray.evaluation import ReciprocalRankFusionEvaluator
from sbert_ray.evaluation.fusion import fuse
from tests.sbert_ray.evaluation.oracle import assert_same

peer = pytest.importorskip("sentence_transformers.sparse_encoder.evaluation")


def samples(seed: int) -> list[dict[str, Any]]:
    rng = np.random.default_rng(seed)
    return [
        {
            "query_id": f"q{number}",
            "query": f"text {number}",
            "positive": [f"d{number}", f"d{number + 1}", f"far {number}"],
            "documents": [f"d{row}" for row in rng.permutation(15)[:9]],
        }
        for number in range(12)
    ]


@pytest.mark.parametrize(
    "options", [{}, {"name": "dev", "at_k": 3, "rrf_k": 1, "write_predictions": True}, {"write_csv": False}]
)
def test_equals_the_peer(options: dict[str, Any], tmp_path: Path) -> None:
    theirs = peer.ReciprocalRankFusionEvaluator(samples(0), samples(1), **options)
    ours = ReciprocalRankFusionEvaluator(samples(0), samples(1), **options)
    assert_same(ours, theirs, None, tmp_path)


def test_equal_scores_keep_the_order_they_come_in() -> None:
    assert fuse([["a", "b"], ["b", "a"]]) == ["a", "b"]
    assert fuse([["a"], ["b"], ["b"]]) == ["b", "a"]


def test_wrong_input_is_refused() -> None:
    with pytest.raises(ValueError, match="of the same queries, at least one, got 12 and 11, of which 11 are in both"):
        ReciprocalRankFusionEvaluator(samples(0), samples(1)[1:])
    with pytest.raises(ValueError, match="got 0 and 0"):
        ReciprocalRankFusionEvaluator([], [])


def test_wrong_rows_are_refused() -> None:
    rows = samples(0)
    with pytest.raises(ValueError, match=r"positive and documents, got \['query_id', 'documents'\] not in row 0"):
        ReciprocalRankFusionEvaluator(rows, [{"query": "q", "positive": ["a"]}])
    with pytest.raises(ValueError, match="rrf_k must not be negative, got -1"):
        ReciprocalRankFusionEvaluator(rows, rows, rrf_k=-1)
