"""Losses of pairs by themselves: what their labels may be, and logits at the limits."""

from typing import Any

import pytest
import torch
from torch import nn

import sbert_ray.losses.cross_encoder as ours
from tests.sbert_ray.losses.cross_encoder.cases import PAIRS, SCORES, TWO, logits_of
from tests.sbert_ray.losses.cross_encoder.scored import Scored

LOSSES = {"BinaryCrossEntropyLoss": SCORES, "CrossEntropyLoss": [0, 2, 1, 1], "MSELoss": SCORES}


def scored(name: str) -> Scored:
    return Scored(PAIRS, logits_of(3 if name == "CrossEntropyLoss" else 1))


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        ([0, 3, 1, 1], "classes must be from 0 to 2, got 3 in row 1"),
        ([0, 2, -1, 1], "classes must be from 0 to 2, got -1 in row 2"),
        ([0.0, 2.0, 1.0, 1.0], r"classes must be integers, or probabilities of shape \(4, 3\), got torch.float32"),
        ([[0.5, 0.5]] * 4, r"probabilities of shape \(4, 3\), got torch.float32 of shape \(4, 2\)"),
    ],
)
def test_classes_must_be_those_of_the_model(labels: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        ours.CrossEntropyLoss(scored("CrossEntropyLoss"))(TWO, labels)


def test_classes_may_be_ignored() -> None:
    loss = ours.CrossEntropyLoss(scored("CrossEntropyLoss"))
    assert loss(TWO, [0, 2, -100, -100]).item() == pytest.approx(loss([column[:2] for column in TWO], [0, 2]).item())


def test_an_activation_may_be_none_or_a_function() -> None:
    model = scored("MSELoss")
    assert ours.MSELoss(model, None)(TWO, SCORES).item() == ours.MSELoss(model)(TWO, SCORES).item()
    assert ours.MSELoss(model, torch.tanh)(TWO, SCORES).item() == ours.MSELoss(model, nn.Tanh())(TWO, SCORES).item()
    assert ours.MSELoss(model, torch.tanh).get_config_dict() == {"activation_fn": "tanh"}


def test_the_weight_of_positives_moves_with_the_loss() -> None:
    loss = ours.BinaryCrossEntropyLoss(scored("BinaryCrossEntropyLoss"), pos_weight=torch.tensor(2.0))
    assert loss.pos_weight is not None
    assert loss.double().pos_weight.dtype == torch.float64


@pytest.mark.parametrize("name", LOSSES)
def test_the_order_of_rows_changes_nothing(name: str) -> None:
    order = [2, 0, 3, 1]
    found = getattr(ours, name)(scored(name))(TWO, LOSSES[name])
    other = getattr(ours, name)(scored(name))(
        [[column[row] for row in order] for column in TWO], [LOSSES[name][row] for row in order]
    )
    assert found.item() == pytest.approx(other.item())


def test_logits_of_classes_may_be_shifted() -> None:
    values = [ours.CrossEntropyLoss(Scored(PAIRS, logits_of(3) + shift))(TWO, [0, 2, 1, 1]).item() for shift in (0, 5)]
    assert values[0] == pytest.approx(values[1], rel=1e-5)


@pytest.mark.parametrize("name", LOSSES)
@pytest.mark.parametrize("size", [0.0, 1e4])
@pytest.mark.parametrize("rows", [1, 4])
def test_extreme_logits_are_finite(name: str, size: float, rows: int) -> None:
    model = scored(name)
    model.logits.data = model.logits.data.sign() * size
    value = getattr(ours, name)(model)([column[:rows] for column in TWO], LOSSES[name][:rows])
    value.backward()
    assert value.isfinite()
    assert model.logits.grad is not None
    assert model.logits.grad.isfinite().all()
