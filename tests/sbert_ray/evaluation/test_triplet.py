"""Triplets against the peer."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from sbert_ray.evaluation import TripletEvaluator
from sbert_ray.similarity import SimilarityFunction
from tests.sbert_ray.evaluation.oracle import Texts, assert_same, words

peer = pytest.importorskip("sentence_transformers.sentence_transformer.evaluation")

COLUMNS = (words("a", 40), words("p", 40), words("n", 40))
ALL = ["cosine", "dot", "euclidean", "manhattan"]


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"name": "dev", "truncate_dim": 3, "similarity_fn_names": ALL, "margin": 0.2},
        {"margin": {"cosine": 0.3, "euclidean": 1}, "similarity_fn_names": ALL, "main_similarity_function": "dot"},
        {"main_similarity_function": "manhattan", "write_csv": False},
        {"main_distance_function": "dot"},
    ],
)
def test_equals_the_peer(options: dict[str, Any], tmp_path: Path) -> None:
    theirs = peer.TripletEvaluator(*COLUMNS, **options)
    assert_same(TripletEvaluator(*COLUMNS, **options), theirs, Texts(levels=1), tmp_path)


def test_examples_are_columns() -> None:
    evaluator = TripletEvaluator.from_input_examples([SimpleNamespace(texts=["a", "b", "c"])], name="x")
    assert (evaluator.anchors, evaluator.positives, evaluator.negatives) == (["a"], ["b"], ["c"])


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"negatives": ["c", "d"]}, "must be of one length"),
        ({"margin": {"angle": 1}}, r"margin must be by similarities among .*, got \['angle'\]"),
        ({"margin": "big"}, "margin must be a number, or numbers by similarity, got 'big'"),
        ({"main_similarity_function": "dot", "similarity_fn_names": ["cosine"]}, "must be one of .*, got 'dot'"),
    ],
)
def test_wrong_input_is_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        TripletEvaluator(**({"anchors": ["a"], "positives": ["b"], "negatives": ["c"]} | options))


def test_margins_are_numbers_of_any_kind() -> None:
    columns = (words("a", 9), words("b", 9), words("c", 9))
    expected = TripletEvaluator(*columns, margin={"cosine": 0.5})(Texts())
    for margin in (np.float32(0.5), {SimilarityFunction.COSINE: np.float64(0.5)}):
        assert TripletEvaluator(*columns, margin=margin)(Texts()) == expected
    with pytest.raises(ValueError, match=r"numbers by similarity, got \{'cosine': None\}"):
        TripletEvaluator(*columns, margin={"cosine": None})
