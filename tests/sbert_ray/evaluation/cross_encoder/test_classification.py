"""Classification by cross-encoders against the peer, ties included."""

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
NAMES = [
    "CrossEncoderClassificationEvaluator",
    "CEBinaryAccuracyEvaluator",
    "CEBinaryClassificationEvaluator",
    "CEF1Evaluator",
    "CESoftmaxAccuracyEvaluator",
]


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # of older names
@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("options", [{}, {"name": "dev", "prompt_name": "p"}, {"write_csv": False, "threshold": 0.5}])
@pytest.mark.parametrize("num_labels", [1, 2, 4])
def test_equals_the_peer(name: str, options: dict[str, Any], num_labels: int, tmp_path: Path) -> None:
    labels = np.random.default_rng(0).integers(0, max(2, num_labels), 40).tolist()
    theirs = getattr(peer, name)(PAIRS, labels, **options)
    assert_same(getattr(ours, name)(PAIRS, labels, **options), theirs, Scores(num_labels), tmp_path)


def test_one_column_of_scores_is_one_score() -> None:
    class Column(Scores):
        def predict(self, pairs: Any, **options: Any) -> Any:
            return super().predict(pairs, **options)[:, None]

    evaluator = ours.CrossEncoderClassificationEvaluator(PAIRS, [0, 1] * 20)
    assert evaluator(Column()) == evaluator(Scores())


def test_examples_are_columns() -> None:
    examples = [SimpleNamespace(texts=["a", "b"], label=1)]
    with pytest.warns(DeprecationWarning, match="CEF1Evaluator is called CrossEncoderClassificationEvaluator now"):
        evaluator = ours.CEF1Evaluator.from_input_examples(examples, name="x")
    assert (evaluator.sentence_pairs, evaluator.labels, evaluator.name) == ([["a", "b"]], [1], "x")


def test_wrong_input_is_refused() -> None:
    with pytest.raises(ValueError, match="sentence_pairs and labels must be of one length"):
        ours.CrossEncoderClassificationEvaluator(PAIRS, [0, 1])
    with pytest.raises(ValueError, match="labels must be 0 or 1, got 2 in row 0"):
        ours.CrossEncoderClassificationEvaluator(PAIRS[:1], [2])(Scores())


def test_scores_may_come_in_lists_and_must_be_numbers() -> None:
    class Listed(Scores):
        def predict(self, pairs: Any, **options: Any) -> Any:
            return super().predict(pairs, **options).tolist()

    class Nan(Scores):
        def predict(self, pairs: Any, **options: Any) -> Any:
            return super().predict(pairs, **options) * np.float32("nan")

    evaluator = ours.CrossEncoderClassificationEvaluator(PAIRS, [0, 1] * 20)
    assert evaluator(Listed()) == pytest.approx(evaluator(Scores()))
    assert evaluator(Listed(2)) == evaluator(Scores(2))
    correlation = ours.CrossEncoderCorrelationEvaluator(PAIRS, list(range(40)))
    assert correlation(Listed()) == pytest.approx(correlation(Scores()))
    with pytest.raises(ValueError, match="scores must be numbers, got nan in row 0"):
        evaluator(Nan())
