"""Weighting schemes by themselves, and labels and arguments at the limits."""

from typing import Any

import pytest
import torch
from torch import Tensor

import sbert_ray.losses.cross_encoder as ours
from tests.sbert_ray.losses.cross_encoder.cases import (
    DOCUMENTS,
    GRADES,
    LISTS,
    PAIRS,
    QUERIES,
    lambda_loss,
    logits_of,
    lookup,
    ndcg_loss1,
)
from tests.sbert_ray.losses.cross_encoder.scored import Scored

SCHEMES = {
    name: getattr(ours, name)
    for name in ("NoWeightingScheme", "NDCGLoss1Scheme", "NDCGLoss2Scheme", "LambdaRankScheme", "NDCGLoss2PPScheme")
}


@pytest.mark.parametrize("name", SCHEMES)
def test_schemes_give_the_peers_weights(name: str) -> None:
    theirs = pytest.importorskip("sentence_transformers.cross_encoder.losses")
    gain = torch.tensor([[0.5, 0.2, 0.1, 0.7], [1.0, 0.0, 0.0, 0.0]])
    discount = torch.log2(torch.arange(2, 6).float())[None]
    given = (gain, discount, torch.tensor([[2.0, 1.0, 0.0, 3.0], [1.0, 0.0, 0.0, 0.0]]))
    torch.testing.assert_close(SCHEMES[name]()(*given), getattr(theirs, name)()(*given))


def test_a_scheme_of_ones_own_gets_gains_discounts_and_labels_in_the_order_of_the_scores() -> None:
    seen = []

    class Gain(ours.NoWeightingScheme):
        def forward(self, gain: Tensor, discount: Tensor, true_sorted: Tensor) -> Tensor:
            seen.extend([gain, discount, true_sorted])
            return gain[:, :, None]

    model = Scored([("q", "a"), ("q", "b"), ("q", "c")], torch.tensor([0.1, 0.3, 0.2]))
    ours.LambdaLoss(model, Gain())([["q"], [["a", "b", "c"]]], [[-1.0, 1.0, 2.0]])
    gain, discount, true_sorted = seen
    best = 3 / discount[0, 0] + 1 / discount[0, 1]
    torch.testing.assert_close(gain, torch.tensor([[1.0, 3.0, 0.0]]) / best)
    torch.testing.assert_close(discount, torch.tensor([[2.0, 3.0, 4.0]]).log2())
    assert true_sorted.tolist() == [[1, 2, 0]]


@pytest.mark.parametrize("labels", [[200.0, 0.0, 199.0], [1000.0, 998.0, 999.0]])
def test_large_labels_give_what_they_do_in_exact_numbers(labels: list[float]) -> None:
    logits = logits_of(1)
    inputs = [QUERIES[:1], [DOCUMENTS[:3]]]
    value = ours.LambdaLoss(Scored(PAIRS, logits))(inputs, [labels])
    assert value.item() == pytest.approx(lambda_loss()(lookup(logits), inputs, [labels]), rel=1e-5)


def test_pairs_count_over_the_whole_batch() -> None:
    labels = [[1.0, 0.0, 0.0], [1.0, 0.0, 2.0]]  # of 2 and of 3 pairs
    loss = ours.RankNetLoss(Scored(PAIRS, logits_of(1)))
    first, second = (
        loss([[query], [DOCUMENTS[:3]]], [row]).item() for query, row in zip(QUERIES, labels, strict=False)
    )
    both = loss([QUERIES[:2], [DOCUMENTS[:3]] * 2], labels).item()
    assert both == pytest.approx((2 * first + 3 * second) / 5)


def test_a_batch_without_pairs_has_no_loss_but_gradients() -> None:
    model = Scored(PAIRS, logits_of(1))
    value = ours.LambdaLoss(model)(LISTS, [[1.0] * len(row) for row in GRADES])
    assert value.item() == 0
    value.backward()
    assert model.logits.grad is not None
    assert not model.logits.grad.any()


def test_all_pairs_count_to_ndcg_loss1() -> None:
    inputs, labels = [QUERIES[:1], [DOCUMENTS[:3]]], [[1.0, 1.0, 1.0]]
    loss = ours.LambdaLoss(Scored(PAIRS, logits_of(1)), ours.NDCGLoss1Scheme())
    assert loss(inputs, labels).item() == pytest.approx(
        lambda_loss(ndcg_loss1)(lookup(logits_of(1)), inputs, labels), rel=1e-5
    )


@pytest.mark.parametrize("name", ["LambdaLoss", "RankNetLoss"])
@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"k": 0}, "k must be positive, or None for all ranks, got 0"),
        ({"sigma": 0.0}, "sigma must be positive, got 0.0"),
        ({"eps": -1.0}, "eps must be positive, got -1.0"),
        ({"reduction_log": "decimal"}, "reduction_log must be 'natural' or 'binary', got 'decimal'"),
    ],
    ids=lambda value: next(iter(value)) if isinstance(value, dict) else "",
)
def test_arguments_that_make_no_sense_are_refused(name: str, options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        getattr(ours, name)(Scored(PAIRS, logits_of(1)), **options)
