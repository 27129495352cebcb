"""CoSENTLoss and AnglELoss against their formula, their gradients, and the peer's implementation."""

import math

import pytest
import torch

from sbert_ray.losses import AnglELoss, CoSENTLoss
from sbert_ray.similarity import pairwise_angle_sim, pairwise_cos_sim, pairwise_dot_score, pairwise_euclidean_sim
from tests.sbert_ray.losses.oracle import (
    EXTREMES,
    ROWS,
    Case,
    compute,
    gradient_is_right,
    is_finite,
    order_does_not_matter,
    random_columns,
)

SCORES = [0.125, 0.875, 0.5, 0.5, 0.0, 1.0, 0.5]  # with ties, also of y and 1 - y
CASES = [
    Case("CoSENTLoss", labels=SCORES),
    Case("CoSENTLoss", {"scale": 3.0}, labels=SCORES),
    Case("CoSENTLoss", {"similarity_fct": pairwise_dot_score}, labels=[[score] for score in SCORES]),
    Case("CoSENTLoss", labels=[1, 5, 2, 2, 0, 3, 2]),
    Case("AnglELoss", labels=SCORES),
    Case("AnglELoss", {"scale": 2.0}, labels=SCORES),
    Case("AnglELoss", num_columns=3),
    Case("AnglELoss", num_columns=3, labels=SCORES),
    Case("AnglELoss", num_columns=5, labels=[1, 0, 1, 1, 0, 1, 1]),
]


def by_hand(similarities: list[float], scores: list[float]) -> float:
    pairs = [(i, j) for i in range(len(scores)) for j in range(len(scores)) if scores[i] < scores[j]]
    return math.log(1 + sum(math.exp(similarities[i] - similarities[j]) for i, j in pairs))


@pytest.mark.parametrize("scale", [1.0, 20.0])
@pytest.mark.parametrize("similarity", [pairwise_cos_sim, pairwise_euclidean_sim])
def test_cosent_is_the_formula(scale, similarity):
    columns = random_columns(2)
    value = compute(Case("CoSENTLoss", {"scale": scale, "similarity_fct": similarity}, labels=SCORES), columns)
    assert value == pytest.approx(by_hand((scale * similarity(*columns)).tolist(), SCORES))


def test_angle_of_tuples_is_the_formula():
    a, p, n, m = columns = random_columns(4)
    similarities = torch.cat([pairwise_angle_sim(a, other) for other in (p, n, m)]) * 3
    expected = by_hand(similarities.tolist(), SCORES + [1 - score for score in SCORES] * 2)
    assert compute(Case("AnglELoss", {"scale": 3.0}, 4, SCORES), columns) == pytest.approx(expected)


@pytest.mark.parametrize("case", CASES, ids=str)
def test_equals_the_peer(case, models):
    models.agree(case)


@pytest.mark.parametrize("case", CASES, ids=str)
def test_gradient_is_right(case):
    assert gradient_is_right(case)


@pytest.mark.parametrize("case", CASES, ids=str)
def test_the_order_of_rows_does_not_matter(case):
    order_does_not_matter(case)


@pytest.mark.parametrize("name", ["CoSENTLoss", "AnglELoss"])
def test_only_the_order_of_scores_matters(name):
    columns = random_columns(2)
    values = [
        compute(Case(name, labels=labels), columns) for labels in (SCORES, [score**3 * 7 - 2 for score in SCORES])
    ]
    assert values[0] == pytest.approx(values[1])


@pytest.mark.parametrize("name", ["CoSENTLoss", "AnglELoss"])
def test_the_length_of_embeddings_does_not_matter(name):
    a, b = random_columns(2)
    assert compute(Case(name, labels=SCORES), [a, b]) == pytest.approx(
        compute(Case(name, labels=SCORES), [5 * a, b / 3])
    )


@pytest.mark.parametrize("extreme", EXTREMES)
@pytest.mark.parametrize("case", CASES, ids=str)
def test_extremes_are_finite(case, extreme):
    is_finite(case, EXTREMES[extreme], case.targets())


@pytest.mark.parametrize("scale", [1.0, 1000.0])
def test_a_high_scale_overflows_nothing(scale):
    case = Case("CoSENTLoss", {"scale": scale, "similarity_fct": pairwise_dot_score}, labels=SCORES)
    is_finite(case, EXTREMES["large"] / 1000, case.targets())


def test_equal_scores_ask_for_nothing():
    columns = random_columns(2)
    value = CoSENTLoss(None).compute_loss_from_embeddings(columns, torch.ones(ROWS))
    value.backward()
    assert value.item() == 0.0
    assert not any(column.grad.any() for column in columns)


def test_a_lone_pair_asks_for_nothing():
    value = CoSENTLoss(None).compute_loss_from_embeddings(random_columns(2, rows=1), torch.ones(1))
    assert value.item() == 0.0


def test_scores_of_truth_values_are_zero_and_one():
    columns, labels = random_columns(3), torch.tensor([True, False, True, True, False, False, True])
    for name, num_columns in (("CoSENTLoss", 2), ("AnglELoss", 3)):
        values = [compute(Case(name, {}, num_columns, y), columns[:num_columns]) for y in (labels, labels.double())]
        assert values[0] == pytest.approx(values[1])


def test_many_rows_take_little_memory():
    columns = [torch.randn(100_000, 2, requires_grad=True) for _ in range(2)]  # all pairs would be 40 GB
    value = CoSENTLoss(None).compute_loss_from_embeddings(columns, torch.rand(100_000))
    value.backward()
    assert torch.isfinite(value)
    assert all(torch.isfinite(column.grad).all() for column in columns)


@pytest.mark.parametrize(
    ("case", "message"),
    [
        (Case("CoSENTLoss", num_columns=1, labels=SCORES), r"CoSENTLoss takes 2 column\(s\) of inputs, got 1"),
        (Case("CoSENTLoss", num_columns=3, labels=SCORES), r"CoSENTLoss takes 2 column\(s\) of inputs, got 3"),
        (Case("CoSENTLoss"), "CoSENTLoss needs labels, one score per pair, got None"),
        (Case("CoSENTLoss", labels=SCORES[:3]), r"needs one label per row, 7, got labels of shape \(3,\)"),
        (Case("CoSENTLoss", labels=[[1.0, 2.0]] * ROWS), r"needs one label per row, 7, got labels of shape \(7, 2\)"),
        (Case("AnglELoss", num_columns=1), r"AnglELoss takes at least 2 column\(s\) of inputs, got 1"),
        (Case("AnglELoss"), "AnglELoss needs labels, one score per pair, for 2 columns, got None"),
        (Case("AnglELoss", num_columns=3, labels=SCORES[:3]), "AnglELoss needs one label per row, 7"),
    ],
    ids=str,
)
def test_a_batch_of_another_form_is_refused(case: Case, message: str):
    with pytest.raises(ValueError, match=message):
        compute(case, random_columns(case.num_columns))


@pytest.mark.parametrize("loss", [CoSENTLoss, AnglELoss])
def test_a_scale_that_is_not_positive_is_refused(loss):
    with pytest.raises(ValueError, match="scale must be positive, got 0"):
        loss(None, scale=0)


@pytest.mark.parametrize("case", CASES, ids=str)
def test_the_model_card_says_what_the_peers_does(case):
    assert case.loss().get_config_dict() == case.peer_loss().get_config_dict()
