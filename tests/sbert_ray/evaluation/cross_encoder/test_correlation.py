"""Correlation of cross-encoders' scores against the peer."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from sbert_ray.evaluation import cross_encoder as ours
from tests.sbert_ray.evaluation.cross_encoder.oracle import Scores
from tests.sbert_ray.evaluation.oracle import assert_same, words

peer = pytest.importorskip("sentence_transformers.cross_encoder.evaluation")

PAIRS = list(zip(words("a", 40), words("b", 40), strict=True))
SCORES = np.random.default_rng(0).integers(0, 5, 40).astype(float).tolist()


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # of older names
@pytest.mark.parametrize("name", ["CrossEncoderCorrelationEvaluator", "CECorrelationEvaluator"])
@pytest.mark.parametrize("options", [{}, {"name": "dev", "prompt_name": "p"}, {"write_csv": False}])
def test_equals_the_peer(name: str, options: dict[str, Any], tmp_path: Path) -> None:
    theirs = getattr(peer, name)(PAIRS, SCORES, **options)
    assert_same(getattr(ours, name)(PAIRS, SCORES, **options), theirs, Scores(), tmp_path, rtol=1e-5)


def test_a_real_model_scores_as_with_the_peer(tiny_cross_encoder: Path) -> None:
    from sentence_transformers import CrossEncoder as Theirs

    from sbert_ray import CrossEncoder

    pairs = [(f"a {first}", f"the {second}") for first in ("cat", "dog", "mat") for second in ("ran", "sat", "fast")]
    got = ours.CrossEncoderCorrelationEvaluator(pairs, SCORES[:9])(CrossEncoder(str(tiny_cross_encoder), device="cpu"))
    theirs = Theirs(str(tiny_cross_encoder), device="cpu")
    assert got == pytest.approx(peer.CrossEncoderCorrelationEvaluator(pairs, SCORES[:9])(theirs), rel=1e-4)


def test_examples_are_columns() -> None:
    examples = [SimpleNamespace(texts=["a", "b"], label=0.5)]
    evaluator = ours.CrossEncoderCorrelationEvaluator.from_input_examples(examples)
    assert (evaluator.sentence_pairs, evaluator.scores) == ([["a", "b"]], [0.5])


def test_wrong_input_is_refused() -> None:
    with pytest.raises(ValueError, match="sentence_pairs and scores must be of one length"):
        ours.CrossEncoderCorrelationEvaluator(PAIRS, [1.0])
    with pytest.raises(ValueError, match=r"predict must return one score for a pair, got shape \(40, 3\)"):
        ours.CrossEncoderCorrelationEvaluator(PAIRS, SCORES)(Scores(3))
