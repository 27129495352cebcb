"""AdaptiveLayerLoss and Matryoshka2dLoss against their formula and the peer."""

import random

import pytest
import torch

from sbert_ray import SentenceTransformer, SparseEncoder, losses
from sbert_ray.losses import (
    AdaptiveLayerLoss,
    CachedMultipleNegativesRankingLoss,
    Matryoshka2dLoss,
    MatryoshkaLoss,
    MultipleNegativesRankingLoss,
    SpladeLoss,
)
from sbert_ray.modules import Router, WeightedLayerPooling
from tests.sbert_ray.losses.cases import Toy
from tests.sbert_ray.losses.compare import assert_close, features_of, peer_losses, run, text_columns

OPTIONS = {
    "default": {},
    "all layers": {"n_layers_per_step": -1},
    "log": {"n_layers_per_step": -1, "layer_weighting": "log"},
    "linear": {"n_layers_per_step": -1, "layer_weighting": "linear", "last_layer_weight": 0.5},
    "function": {"n_layers_per_step": 3, "layer_weighting": lambda layer: 2.0 + layer},
    "divergence": {"n_layers_per_step": 2, "kl_div_weight": 20.0, "kl_temperature": 0.7, "prior_layers_weight": 3.0},
    "no divergence": {"n_layers_per_step": -1, "kl_temperature": 0},
}


@pytest.mark.parametrize("options", OPTIONS.values(), ids=OPTIONS)
def test_equals_the_peer(minilm_pair, options: dict) -> None:
    found = []
    for model, module in zip(minilm_pair, (losses, peer_losses()), strict=True):
        loss = module.AdaptiveLayerLoss(model, module.MultipleNegativesRankingLoss(model), **options)
        found.append(run(loss, model, text_columns(3), None))
    assert_close(*found)


@pytest.mark.parametrize("options", [{}, {"n_layers_per_step": -1, "n_dims_per_step": -1, "kl_div_weight": 2.0}])
def test_matryoshka_2d_equals_the_peer(tiny_pair, options: dict) -> None:
    found = []
    for model, module in zip(tiny_pair, (losses, peer_losses()), strict=True):
        inner = module.MultipleNegativesRankingLoss(model)
        found.append(run(module.Matryoshka2dLoss(model, inner, [16, 4], [1, 2], **options), model, text_columns(2)))
    assert_close(*found)


def test_is_the_formula(tiny_model: SentenceTransformer) -> None:
    columns, inner = text_columns(2), MultipleNegativesRankingLoss(tiny_model)
    options = {"n_layers_per_step": -1, "last_layer_weight": 0.5, "prior_layers_weight": 3.0, "kl_div_weight": 2.0}
    found = AdaptiveLayerLoss(tiny_model, inner, kl_temperature=0.4, layer_weighting="linear", **options)(
        features_of(tiny_model, columns)
    )
    by_layer = []
    for layer in range(3):
        embeddings = []
        for features in features_of(tiny_model, columns):
            inputs = {name: features[name] for name in ("input_ids", "attention_mask")}
            hidden = tiny_model[0].model(**inputs, output_hidden_states=True).hidden_states[layer]
            pooled = tiny_model[1](features | {"token_embeddings": hidden})
            embeddings.append(tiny_model[2](pooled)["sentence_embedding"])
        by_layer.append(embeddings)
    last = torch.cat(by_layer[2])
    expected = 0.5 * inner.compute(by_layer[2], None)
    for layer in range(2):
        expected += 3.0 / 2 / (1 + layer) * inner.compute(by_layer[layer], None)
        divergence = (last / 0.4).softmax(-1) * (
            (last / 0.4).log_softmax(-1) - (torch.cat(by_layer[layer]) / 0.4).log_softmax(-1)
        )
        expected += 2.0 * 0.4 * divergence.sum(-1).mean()
    torch.testing.assert_close(found, expected)


def test_draws_other_layers_from_batch_to_batch(minilm_pair) -> None:
    random.seed(0)
    model = minilm_pair[0]
    loss = AdaptiveLayerLoss(model, MultipleNegativesRankingLoss(model), kl_temperature=0)
    with torch.no_grad():
        values = {round(loss(features_of(model, text_columns(2, 2))).item(), 6) for _ in range(20)}
    assert 4 <= len(values) <= 6


def test_components_of_the_wrapped_loss_stay_apart(tiny_model: SentenceTransformer) -> None:
    inner = SpladeLoss(tiny_model, MultipleNegativesRankingLoss(tiny_model), 0.1, 0.2)
    found = AdaptiveLayerLoss(tiny_model, inner)(features_of(tiny_model, text_columns(2)))
    assert found.keys() == {"base_loss", "document_regularizer_loss", "query_regularizer_loss", "kl_div_loss"}


def test_the_config_of_the_model_is_as_before(tiny_model: SentenceTransformer) -> None:
    AdaptiveLayerLoss(tiny_model, MultipleNegativesRankingLoss(tiny_model))(features_of(tiny_model, text_columns(2)))
    assert tiny_model.config.output_hidden_states is False


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"layer_weighting": "cubic"}, r"layer_weighting must be one of \['uniform', 'log', 'linear'\] or a function"),
        ({"n_layers_per_step": 0}, "n_layers_per_step must be positive, or -1 for all, got 0"),
    ],
)
def test_bad_options_are_refused(options: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        AdaptiveLayerLoss(None, MultipleNegativesRankingLoss(None), **options)


def test_cached_losses_are_refused() -> None:
    with pytest.raises(ValueError, match="which a cached CachedMultipleNegativesRankingLoss does not keep"):
        AdaptiveLayerLoss(None, CachedMultipleNegativesRankingLoss(None))
    with pytest.raises(ValueError, match="which a cached MatryoshkaLoss does not keep"):
        Matryoshka2dLoss(None, CachedMultipleNegativesRankingLoss(None), [4])


def test_must_be_the_outermost_wrapper() -> None:
    with pytest.raises(ValueError, match="AdaptiveLayerLoss runs the model itself; wrap it the other way"):
        MatryoshkaLoss(None, AdaptiveLayerLoss(None, MultipleNegativesRankingLoss(None)), [4])


def test_a_model_without_layers_is_refused() -> None:
    model = Toy()
    with pytest.raises(ValueError, match="needs a model that begins with a transformer of several layers"):
        AdaptiveLayerLoss(model, MultipleNegativesRankingLoss(model))([{"x": torch.zeros(2, 6).double()}] * 2)


def test_a_model_whose_pooling_reads_all_layers_is_refused(tiny_model: SentenceTransformer) -> None:
    modules = [tiny_model[0], WeightedLayerPooling(16, num_hidden_layers=2, layer_start=1), *list(tiny_model)[1:]]
    model = SentenceTransformer(modules=modules, device="cpu")
    with pytest.raises(ValueError, match="takes layer by layer, which a WeightedLayerPooling reads all at once"):
        AdaptiveLayerLoss(model, MultipleNegativesRankingLoss(model))


def test_models_without_token_embeddings_are_refused(tiny_model: SentenceTransformer, tiny_splade) -> None:
    routed = SentenceTransformer(modules=[Router({"text": list(tiny_model)}, "text")], device="cpu")
    for model, kind in (
        (routed, "Router"),
        (SparseEncoder(str(tiny_splade), device="cpu"), "Transformer for fill-mask"),
    ):
        with pytest.raises(ValueError, match=rf"transformer of several layers for feature-extraction, got {kind}"):
            AdaptiveLayerLoss(model, MultipleNegativesRankingLoss(model))


def test_config_is_that_of_the_peer(tiny_pair) -> None:
    for model, module in zip(tiny_pair, (losses, peer_losses()), strict=True):
        loss = module.AdaptiveLayerLoss(model, module.MultipleNegativesRankingLoss(model), n_layers_per_step=2)
        assert loss.get_config_dict() == {
            "loss": "MultipleNegativesRankingLoss",
            "n_layers_per_step": 2,
            "last_layer_weight": 1.0,
            "prior_layers_weight": 1.0,
            "kl_div_weight": 1.0,
            "kl_temperature": 0.3,
            "layer_weighting": "uniform",
        }
