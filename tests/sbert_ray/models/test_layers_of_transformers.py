"""Models that pool several layers of a transformer, with the peer as the oracle."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from sbert_ray import SentenceTransformer
from sbert_ray.modules import Normalize, Pooling, Transformer, WeightedLayerPooling

peer = pytest.importorskip("sentence_transformers")
theirs = pytest.importorskip("sentence_transformers.sentence_transformer.modules")

TEXTS = ["a cat", "the fast dog ran on the mat", "red", "", "the " * 50]


@pytest.fixture
def checkpoint(tiny_checkpoint: Path, tmp_path: Path) -> Path:
    """A model that weighs the last two of its two layers and the embedding layer unevenly."""
    transformer = Transformer(str(tiny_checkpoint), config_kwargs={"output_hidden_states": True})
    weights = torch.tensor([0.5, -2.0, 3.0])
    layers = WeightedLayerPooling(16, num_hidden_layers=2, layer_start=0, layer_weights=weights)
    model = SentenceTransformer(modules=[transformer, layers, Pooling(16), Normalize()], device="cpu")
    model.save_pretrained(str(tmp_path / "layers"))
    return tmp_path / "layers"


def load(folder: Path) -> tuple[SentenceTransformer, Any]:
    return SentenceTransformer(str(folder), device="cpu"), peer.SentenceTransformer(str(folder), device="cpu")


def test_is_the_weighted_mean_of_layers() -> None:
    layers = tuple(torch.randn(4, 2, 3, 5))
    weights = torch.tensor([1.0, 2.0])
    module = WeightedLayerPooling(5, num_hidden_layers=3, layer_start=2, layer_weights=weights)
    features = {"token_embeddings": layers[-1], "all_layer_embeddings": layers}
    found = module(features)["token_embeddings"]
    torch.testing.assert_close(found, (layers[2] + 2 * layers[3]) / 3)
    assert features["token_embeddings"] is layers[-1]


def test_checkpoints_go_both_ways(checkpoint: Path, tmp_path: Path) -> None:
    ours, expected = load(checkpoint)
    np.testing.assert_allclose(ours.encode(TEXTS), expected.encode(TEXTS), atol=1e-6)
    expected.save_pretrained(str(tmp_path / "theirs"))
    back, _ = load(tmp_path / "theirs")
    np.testing.assert_allclose(back.encode(TEXTS), ours.encode(TEXTS), atol=1e-6)
    assert back[1].layer_weights.tolist() == [0.5, -2.0, 3.0]


def test_all_layers_come_by_row(checkpoint: Path) -> None:
    model, _ = load(checkpoint)
    rows = model.encode(TEXTS, output_value=None)
    assert all(len(row["all_layer_embeddings"]) == 3 for row in rows)
    assert all(len(layer) == len(row["input_ids"]) for row in rows for layer in row["all_layer_embeddings"])


def test_a_transformer_without_all_layers_is_told(
    checkpoint: Path, tiny_checkpoint: Path, caplog: pytest.LogCaptureFixture
) -> None:
    modules = [Transformer(str(tiny_checkpoint)), WeightedLayerPooling(16, 2, 1), Pooling(16), Normalize()]
    ours = SentenceTransformer(modules=modules, device="cpu")
    plain = SentenceTransformer(str(tiny_checkpoint), device="cpu")
    # As the peer does, but not in silence; the layers' pooling needs padding, which changes the last bits.
    np.testing.assert_allclose(ours.encode(TEXTS), plain.encode(TEXTS), atol=1e-6)
    assert "the transformer's config lacks output_hidden_states" in caplog.text


def test_another_number_of_layers_is_named() -> None:
    module = WeightedLayerPooling(5)
    features = {"token_embeddings": torch.ones(1, 2, 5), "all_layer_embeddings": (torch.ones(1, 2, 5),) * 7}
    with pytest.raises(ValueError, match="num_hidden_layers must be the transformer's 6, got 12"):
        module(features)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"num_hidden_layers": 2}, "layer_start must be a layer from 0 to num_hidden_layers, 2, got 4"),
        ({"num_hidden_layers": 2, "layer_start": 3}, "num_hidden_layers, 2, got 3"),
        ({"layer_start": -1}, "num_hidden_layers, 12, got -1"),
        ({"layer_weights": torch.ones(8)}, r"from layer_start on, of shape \(9,\), got \(8,\)"),
    ],
)
def test_layers_that_are_not_there_are_named(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        WeightedLayerPooling(5, **options)
    assert WeightedLayerPooling(5, 2, 2).layer_weights.tolist() == [1.0]


def test_missing_weights_are_named(checkpoint: Path) -> None:
    (checkpoint / "1_WeightedLayerPooling" / "model.safetensors").unlink()
    with pytest.raises(FileNotFoundError, match=r"1_WeightedLayerPooling' has no weights"):
        load(checkpoint)
