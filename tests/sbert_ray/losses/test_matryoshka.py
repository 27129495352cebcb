"""Matryoshka wraps any loss, plain and cached, and is the weighted sum over its dimensions."""

import random

import pytest
import torch
import torch.nn.functional as F

from sbert_ray.losses import CachedLoss, MatryoshkaLoss, MultipleNegativesRankingLoss
from tests.sbert_ray.losses.cases import CASES, Case, D, Toy
from tests.sbert_ray.losses.compare import (
    assert_close,
    columns_of,
    features_of,
    gradients,
    peer_losses,
    run,
    text_columns,
)

SIZE = 9
ANY = [case for case in CASES if case.name != "SoftmaxLoss"]  # whose classifier takes all dimensions


@pytest.mark.parametrize("case", ANY, ids=str)
def test_any_loss_is_the_sum_over_dimensions(case: Case) -> None:
    model = Toy()
    dims, weights = [3, D, 5], [2.0, 1.0, 0.5]
    found = MatryoshkaLoss(model, case.loss(model), dims, weights)(case.features(SIZE), case.targets(SIZE))
    loss, targets = case.loss(model), case.targets(SIZE)
    columns = [model(column)["sentence_embedding"] for column in case.features(SIZE)]
    targets = loss.targets(case.features(SIZE), targets)
    expected: dict[str, torch.Tensor] = {}
    for k, weight in zip(dims, weights, strict=True):
        cut = [F.normalize(column[:, :k], dim=-1) for column in columns]
        value = loss.compute(cut, targets[:, :k] if loss.labels_are_embeddings else targets)
        for name, part in (value if isinstance(value, dict) else {"": value}).items():
            expected[name] = expected.get(name, 0.0) + weight * part
    torch.testing.assert_close(found if isinstance(found, dict) else {"": found}, expected)


@pytest.mark.parametrize("case", ANY, ids=str)
def test_a_cached_loss_stays_cached(case: Case) -> None:
    found = []
    for is_cached in (False, True):
        model = Toy()
        inner = case.loss(model)
        inner = CachedLoss(model, inner, 4) if is_cached else inner
        value = MatryoshkaLoss(model, inner, [D, 4])(case.features(SIZE), case.targets(SIZE))
        total = sum(value.values()) if isinstance(value, dict) else value
        total.backward()
        found.append({"": total.detach()} | gradients(model))
    torch.testing.assert_close(*found)


@pytest.mark.parametrize("name", ["MultipleNegativesRankingLoss", "CachedMultipleNegativesRankingLoss", "CoSENTLoss"])
@pytest.mark.parametrize("n_dims_per_step", [-1, 1, 2])
def test_equals_the_peer(tiny_pair, name: str, n_dims_per_step: int) -> None:
    from sbert_ray import losses

    labels = torch.tensor([0.1, 0.9, 0.5, 0.5]) if name == "CoSENTLoss" else None
    found = []
    for model, module in zip(tiny_pair, (losses, peer_losses()), strict=True):
        loss = module.MatryoshkaLoss(model, getattr(module, name)(model), [16, 8, 4], [1, 0.5, 2], n_dims_per_step)
        found.append(run(loss, model, text_columns(2), labels))
    assert_close(*found)


def test_draws_other_dimensions_from_batch_to_batch() -> None:
    random.seed(0)
    model = Toy()
    loss = MatryoshkaLoss(model, MultipleNegativesRankingLoss(model), [8, 6, 4, 2], n_dims_per_step=1)
    case = next(case for case in CASES if case.name == "MultipleNegativesRankingLoss")
    values = {round(loss(case.features(SIZE)).item(), 9) for _ in range(30)}
    assert len(values) == 4


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (([],), "matryoshka_dims must be positive, and at least one"),
        (([0, 4],), "matryoshka_dims must be positive"),
        (([9],), f"must not exceed the embeddings' {D} dimensions"),
        (([8, 4], [1.0]), "matryoshka_weights must be as many as matryoshka_dims, 2, got 1"),
        (([8, 4], None, 0), "n_dims_per_step must be positive, or -1 for all, got 0"),
    ],
)
def test_bad_options_are_refused(arguments: tuple, message: str) -> None:
    model = Toy()
    with pytest.raises(ValueError, match=message):
        MatryoshkaLoss(model, MultipleNegativesRankingLoss(model), *arguments)


def test_embeddings_with_fewer_dimensions_are_refused() -> None:
    loss = MatryoshkaLoss(None, MultipleNegativesRankingLoss(None), [8, 4])
    with pytest.raises(ValueError, match="must not exceed the embeddings' 6 dimensions"):
        loss.compute_loss_from_embeddings(columns_of(2, 3, 6))


def test_only_our_losses_are_wrapped() -> None:
    with pytest.raises(
        TypeError, match=r"MatryoshkaLoss wraps a loss over embeddings of sbert_ray.losses, got MSELoss"
    ):
        MatryoshkaLoss(None, torch.nn.MSELoss(), [4])


def test_the_errors_of_the_wrapped_loss_are_its_own(tiny_model) -> None:
    loss = MatryoshkaLoss(tiny_model, MultipleNegativesRankingLoss(tiny_model), [16, 4])
    with pytest.raises(ValueError, match=r"MultipleNegativesRankingLoss takes at least 2 column\(s\) of inputs, got 1"):
        loss(features_of(tiny_model, text_columns(1)))
    with pytest.raises(ValueError, match=r"takes no labels, got a tensor of shape \(4,\)"):
        loss(features_of(tiny_model, text_columns(2)), torch.ones(4))
