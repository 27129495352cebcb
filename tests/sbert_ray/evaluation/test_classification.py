"""Binary classification against the peer, ties included."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from sbert_ray.evaluation import BinaryClassificationEvaluator
from tests.sbert_ray.evaluation.oracle import Texts, assert_same, words

peer = pytest.importorskip("sentence_transformers.sentence_transformer.evaluation")

LABELS = np.random.default_rng(0).integers(0, 2, 40).tolist()
COLUMNS = (words("a", 40), [*words("b", 30), *words("a", 10)], LABELS)


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"name": "dev", "truncate_dim": 3, "similarity_fn_names": ["cosine", "dot", "euclidean", "manhattan"]},
        {"write_csv": False, "similarity_fn_names": ["manhattan"], "batch_size": 7},
    ],
)
@pytest.mark.parametrize("similarity", ["cosine", "dot", "euclidean"])
def test_equals_the_peer(options: dict[str, Any], similarity: str, tmp_path: Path) -> None:
    theirs = peer.BinaryClassificationEvaluator(*COLUMNS, **options)
    ours = BinaryClassificationEvaluator(*COLUMNS, **options)
    assert_same(ours, theirs, Texts(similarity_fn_name=similarity), tmp_path)


@pytest.mark.parametrize("label", [0, 1])
@pytest.mark.filterwarnings("ignore:No positive class found", "ignore:A single label was found")
def test_labels_all_the_same_are_as_with_the_peer(label: int, tmp_path: Path) -> None:
    columns = (*COLUMNS[:2], [label] * 40)
    theirs = peer.BinaryClassificationEvaluator(*columns)
    assert_same(BinaryClassificationEvaluator(*columns), theirs, Texts(), tmp_path)


def test_each_text_is_embedded_once() -> None:
    model = Texts()
    BinaryClassificationEvaluator(["a", "b", "a"], ["b", "c", "d"], [0, 1, 1])(model)
    assert model.counts == [4]


def test_examples_are_columns() -> None:
    examples = [SimpleNamespace(texts=["a", "b"], label=1), SimpleNamespace(texts=["c", "d"], label=0)]
    evaluator = BinaryClassificationEvaluator.from_input_examples(examples)
    assert (evaluator.sentences1, evaluator.sentences2, evaluator.labels) == (["a", "c"], ["b", "d"], [1, 0])


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        ((["a"], ["a", "b"], [1]), "must be of one length"),
        (([], [], []), "must have at least one row"),
        ((["a", "b"], ["c", "d"], [1, 2]), "labels must be 0 or 1, got 2 in row 1"),
    ],
)
def test_wrong_input_is_refused(columns: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        BinaryClassificationEvaluator(*columns)


def test_inputs_without_a_hash_are_embedded_by_columns() -> None:
    class Dicts(Texts):
        def encode(self, texts: Any, **options: Any) -> Any:
            return super().encode([text["text"] for text in texts], **options)

    first, second = ([{"text": text} for text in column] for column in COLUMNS[:2])
    expected = BinaryClassificationEvaluator(*COLUMNS)(Texts())
    assert BinaryClassificationEvaluator(first, second, LABELS)(Dicts()) == expected


@pytest.mark.parametrize("seed", range(8))
def test_many_ties_are_as_with_the_peer(seed: int, tmp_path: Path) -> None:
    rng = np.random.default_rng(seed)
    first, second = ([f"t{number}" for number in rng.integers(0, 30, 60)] for _ in range(2))
    columns = (first, second, rng.integers(0, 2, 60).tolist())
    options = {"similarity_fn_names": ["cosine", "dot", "euclidean", "manhattan"]}
    theirs = peer.BinaryClassificationEvaluator(*columns, **options)
    assert_same(BinaryClassificationEvaluator(*columns, **options), theirs, Texts(levels=1, dim=3), tmp_path)


def test_nan_is_refused() -> None:
    class Nan(Texts):
        def row(self, text: str) -> np.ndarray:
            return super().row(text) * np.float32("nan")

    with pytest.raises(ValueError, match="scores must be numbers, got nan in row 0"):
        BinaryClassificationEvaluator(*COLUMNS)(Nan())
