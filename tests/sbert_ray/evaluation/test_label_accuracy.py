"""Accuracy of labels against the peer."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch.utils.data import DataLoader

from sbert_ray import SentenceTransformer
from sbert_ray.evaluation import LabelAccuracyEvaluator
from tests.sbert_ray.evaluation.oracle import Texts, assert_same

peer = pytest.importorskip("sentence_transformers.sentence_transformer.evaluation")

EXAMPLES = [SimpleNamespace(texts=["a" * (i % 4), "b" * (i % 3)], label=i % 3) for i in range(17)]


class Lengths(Texts):
    """Its features are the lengths of texts."""

    device = "cpu"

    def to(self, device: Any) -> "Lengths":
        return self

    def smart_batching_collate(self, batch: Any) -> Any:
        columns = zip(*(example.texts for example in batch), strict=True)
        features = [{"x": torch.tensor([[float(len(text))] for text in column])} for column in columns]
        return features, torch.tensor([example.label for example in batch])


class Softmax(torch.nn.Module):
    """A head without weights."""

    def forward(self, features: Any, labels: Any) -> Any:
        assert labels is None
        x = features[0]["x"] - features[1]["x"]
        return None, torch.cat([x, -x, x * 0], 1)


def test_equals_the_peer(tmp_path: Path) -> None:
    ours, theirs = (
        kind(DataLoader(EXAMPLES, batch_size=4), name="x", softmax_model=Softmax())
        for kind in (LabelAccuracyEvaluator, peer.LabelAccuracyEvaluator)
    )
    assert_same(ours, theirs, Lengths(), tmp_path)


def test_batches_may_be_ready() -> None:
    batches = [Lengths().smart_batching_collate(EXAMPLES[:9]), Lengths().smart_batching_collate(EXAMPLES[9:])]
    expected = LabelAccuracyEvaluator(DataLoader(EXAMPLES, batch_size=4), softmax_model=Softmax())(Lengths())
    assert LabelAccuracyEvaluator(batches, softmax_model=Softmax())(Lengths()) == expected


def test_a_model_of_ours_tokenizes_examples(tiny_checkpoint: Path) -> None:
    model = SentenceTransformer(str(tiny_checkpoint), device="cpu")
    examples = [SimpleNamespace(texts=["a cat", "the dog"], label=1), SimpleNamespace(texts=["a", "mat"], label=0)]
    model.train()

    def head(features: Any, labels: Any) -> Any:
        assert not model.training
        assert all("input_ids" in column for column in features)
        return None, torch.tensor([[0.0, 1.0]]).expand(len(features[0]["input_ids"]), 2)

    metrics = LabelAccuracyEvaluator(DataLoader(examples, batch_size=2), softmax_model=head)(model)
    assert metrics == {"accuracy": 0.5}
    assert model.training


def test_wrong_input_is_refused() -> None:
    with pytest.raises(ValueError, match="softmax_model must be a module"):
        LabelAccuracyEvaluator([])
    with pytest.raises(ValueError, match="dataloader must yield at least one batch"):
        LabelAccuracyEvaluator([], softmax_model=Softmax())(Lengths())


def test_the_model_trains_on_whatever_happens() -> None:
    class Training(Lengths):
        training = True

        def train(self) -> None:
            self.training = True

        def eval(self) -> None:
            self.training = False

    model = Training()
    with pytest.raises(ValueError, match="dataloader must yield at least one batch"):
        LabelAccuracyEvaluator([], softmax_model=Softmax())(model)
    assert model.training
