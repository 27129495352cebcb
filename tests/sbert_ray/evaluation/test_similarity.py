"""Correlations of similarities, against the peer and with a model of known angles."""

import math
import re
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from sbert_ray.evaluation import EmbeddingSimilarityEvaluator
from tests.sbert_ray.evaluation.oracle import Texts, assert_same, words

peer = pytest.importorskip("sentence_transformers.sentence_transformer.evaluation")

SCORES = [float(score) for score in np.random.default_rng(0).integers(0, 4, 40)]
COLUMNS = (words("a", 40), words("b", 40), SCORES)


class Angles:
    """Embeds the text "d" as the unit vector at d degrees, so that cosines are known; takes no options."""

    def encode(self, texts: Any, batch_size: int = 32) -> np.ndarray:
        radians = np.deg2rad([float(text) for text in texts])
        return np.stack([np.cos(radians), np.sin(radians)], axis=1).astype(np.float32)


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"name": "sts", "truncate_dim": 3, "similarity_fn_names": ["cosine", "dot", "euclidean", "manhattan"]},
        {"similarity_fn_names": ["cosine", "dot"], "main_similarity": "dot", "batch_size": 8},
        {"write_csv": False, "similarity_fn_names": ["manhattan"]},
        *({"precision": precision} for precision in ("float32", "int8", "uint8", "binary", "ubinary")),
    ],
)
@pytest.mark.parametrize("similarity", ["cosine", "euclidean"])
def test_equals_the_peer(options: dict[str, Any], similarity: str, tmp_path: Path) -> None:
    model = Texts(dim=8, similarity_fn_name=similarity)
    theirs = peer.EmbeddingSimilarityEvaluator(*COLUMNS, **options)
    assert_same(EmbeddingSimilarityEvaluator(*COLUMNS, **options), theirs, model, tmp_path, rtol=1e-5)


def test_a_real_model_scores_as_with_the_peer(tiny_checkpoint: Path, tmp_path: Path) -> None:
    from sentence_transformers import SentenceTransformer as Theirs

    from sbert_ray import SentenceTransformer

    texts = [f"{first} {second}" for first in ("cat", "dog", "mat") for second in ("ran", "sat", "fast")]
    columns = (texts, texts[4:] + texts[:4], [float(number % 3) for number in range(9)])
    got = EmbeddingSimilarityEvaluator(*columns)(SentenceTransformer(str(tiny_checkpoint), device="cpu"))
    expected = peer.EmbeddingSimilarityEvaluator(*columns)(Theirs(str(tiny_checkpoint), device="cpu"))
    assert got == pytest.approx(expected, rel=1e-4)


def test_perfect_order_scores_one() -> None:
    evaluator = EmbeddingSimilarityEvaluator(["0", "0", "0"], ["80", "40", "5"], [0.1, 2.0, 5.0], name="dev")
    metrics = evaluator(Angles())
    assert metrics["dev_spearman_cosine"] == pytest.approx(1.0)
    assert metrics.keys() == {"dev_pearson_cosine", "dev_spearman_cosine"}
    assert evaluator.primary_metric == "dev_spearman_cosine"


def test_what_a_model_does_not_truncate_is_truncated() -> None:
    columns = (["0", "0", "0"], ["80", "40", "5"], [0.1, 2.0, 5.0])
    metrics = EmbeddingSimilarityEvaluator(*columns, truncate_dim=1)(Angles())
    assert math.isnan(metrics["spearman_cosine"])  # all cosines are 1


def test_examples_are_columns() -> None:
    examples = [SimpleNamespace(texts=["0", text], label=label) for text, label in (("80", 0.1), ("5", 0.9))]
    evaluator = EmbeddingSimilarityEvaluator.from_input_examples(examples, name="x")
    assert (evaluator.sentences1, evaluator.sentences2, evaluator.scores) == (["0", "0"], ["80", "5"], [0.1, 0.9])


@pytest.mark.parametrize(
    ("columns", "options", "message"),
    [
        ((["a"], ["a", "b"], [1.0]), {}, "must be of one length, got .*'sentences1': 1, 'sentences2': 2"),
        (([], [], []), {}, "must have at least one row"),
        ((["a"], ["b"], [1.0]), {"precision": "int4"}, "unknown precision 'int4'"),
        ((["a"], ["b"], [1.0]), {"similarity_fn_names": ["angle"]}, "unknown similarity function 'angle'"),
        ((["a"], ["b"], [1.0]), {"main_similarity": "angle"}, "unknown similarity function 'angle'"),
    ],
)
def test_wrong_input_is_refused(columns: Any, options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        EmbeddingSimilarityEvaluator(*columns, **options)


@pytest.mark.parametrize("score", [None, "high", "0.5", [1.0]])
def test_a_gold_score_is_a_number(score: Any) -> None:
    with pytest.raises(ValueError, match=f"scores must be numbers, got {re.escape(repr(score))} in row 1"):
        EmbeddingSimilarityEvaluator(["a", "b"], ["c", "d"], [np.float32(1), score])
