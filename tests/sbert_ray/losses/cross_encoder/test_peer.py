"""All losses against sentence-transformers, on the same logits and on the same model."""

import inspect
from pathlib import Path

import pytest
import torch
from torch import nn

import sbert_ray.losses.cross_encoder as ours
from sbert_ray import CrossEncoder
from tests.conftest import tiny_head
from tests.sbert_ray.losses.cross_encoder.cases import CASES, PAIRS, Case, logits_of
from tests.sbert_ray.losses.cross_encoder.scored import Scored, peer_of

peer = pytest.importorskip("sentence_transformers")
theirs = pytest.importorskip("sentence_transformers.cross_encoder.losses")

NAMES = sorted(theirs.__all__)
LOSSES = [name for name in NAMES if name.endswith("Loss")]


@pytest.fixture(scope="module")
def tiny(tiny_checkpoint: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[int, tuple[nn.Module, nn.Module]]:
    """Our model and the peer's, of the same weights, by the number of labels."""
    folders = {
        labels: tiny_head(
            tiny_checkpoint,
            tmp_path_factory.mktemp(f"tiny-{labels}"),
            "BertForSequenceClassification",
            num_labels=labels,
        )
        for labels in (1, 3)
    }
    return {
        labels: (CrossEncoder(folder, device="cpu"), peer.CrossEncoder(str(folder), device="cpu").eval())
        for labels, folder in folders.items()
    }


def test_all_names_are_there() -> None:
    assert set(NAMES) == set(ours.__all__) - {"LOSSES", "CrossEncoderLoss"}
    assert set(LOSSES) == ours.LOSSES.keys()


@pytest.mark.parametrize("name", NAMES)
def test_arguments_have_the_peers_names_order_and_defaults(name: str) -> None:
    signatures = [inspect.signature(getattr(of, name).__init__).parameters.values() for of in (ours, theirs)]
    mine, their = ([(found.name, found.kind, repr(found.default)) for found in each] for each in signatures)
    assert mine == their


@pytest.mark.parametrize("name", LOSSES)
def test_calls_have_the_peers_arguments(name: str) -> None:
    mine, their = (list(inspect.signature(getattr(of, name).forward).parameters) for of in (ours, theirs))
    assert mine == their


@pytest.mark.parametrize("name", LOSSES)
def test_the_config_has_the_peers_keys(name: str) -> None:
    model = Scored(PAIRS, logits_of(1))
    config = getattr(ours, name)(model).get_config_dict()
    expected = getattr(theirs, name)(peer_of(model))
    if hasattr(expected, "get_config_dict"):
        assert config.keys() == expected.get_config_dict().keys()
    else:
        assert config.keys() == {"activation_fn"}


@pytest.mark.parametrize("name", LOSSES)
def test_models_of_several_labels_are_refused_as_by_the_peer(name: str) -> None:
    model = Scored(PAIRS, logits_of(3))
    if name == "CrossEntropyLoss":
        getattr(theirs, name)(peer_of(model))
        getattr(ours, name)(model)
        return
    with pytest.raises(ValueError, match="1 output label"):
        getattr(theirs, name)(peer_of(model))
    with pytest.raises(ValueError, match=f"{name} needs a model with 1 label, got one with 3"):
        getattr(ours, name)(model)


@pytest.mark.parametrize("case", CASES, ids=str)
def test_the_same_logits_give_the_peers_value_and_gradients(case: Case) -> None:
    model = Scored(PAIRS, logits_of(case.num_labels))
    other = peer_of(model)
    found, expected = run(case, ours, model), run(case, theirs, other)
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-6)
    assert model.logits.grad is not None
    torch.testing.assert_close(model.logits.grad, other.logits.grad, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("case", CASES, ids=str)
def test_the_same_model_gives_the_peers_value_and_gradients(case: Case, tiny: dict) -> None:
    model, other = tiny[case.num_labels]
    model.zero_grad()
    other.zero_grad()
    torch.testing.assert_close(run(case, ours, model), run(case, theirs, other), rtol=1e-4, atol=1e-6)
    mine, their = dict(model.transformers_model.named_parameters()), dict(other.model.named_parameters())
    assert mine.keys() == their.keys()
    for name, weight in mine.items():
        torch.testing.assert_close(
            weight.grad, their[name].grad, rtol=1e-4, atol=2e-5, msg=lambda m, n=name: f"{n}: {m}"
        )


def run(case: Case, of: object, model: nn.Module) -> torch.Tensor:
    torch.manual_seed(7)  # of the negatives that are drawn
    value = case.build(of, model)(case.inputs, case.labels if of is ours else case.targets)
    value.backward()
    return value.detach()
