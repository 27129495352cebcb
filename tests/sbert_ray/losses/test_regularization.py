"""GlobalOrthogonalRegularizationLoss against its formula, its gradient, and the peer's implementation."""

import itertools

import pytest
import torch

from sbert_ray.losses import GlobalOrthogonalRegularizationLoss
from sbert_ray.similarity import dot_score
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

NAME = "GlobalOrthogonalRegularizationLoss"
OPTIONS = [
    {},
    {"similarity_fct": dot_score},
    {"mean_weight": 0.5, "second_moment_weight": 3.0},
    {"mean_weight": None},
    {"second_moment_weight": 0.0},
    {"aggregation": "sum"},
]
CASES = [Case(NAME, options, num_columns) for options in OPTIONS for num_columns in (1, 3)]


@pytest.mark.parametrize("aggregation", ["mean", "sum"])
def test_is_the_formula(aggregation):
    columns = random_columns(3)
    means, moments = [], []
    for column in columns:
        pairs = itertools.permutations(column, 2)
        found = [torch.cosine_similarity(a, b, dim=0).item() for a, b in pairs]
        means.append((sum(found) / len(found)) ** 2)
        moments.append(max(0, sum(s**2 for s in found) / len(found) - 1 / 6))
    options = {"mean_weight": 2.0, "second_moment_weight": 5.0, "aggregation": aggregation}
    value = Case(NAME, options).loss().compute_loss_from_embeddings(columns)
    size = 3 if aggregation == "mean" else 1
    assert value["gor_mean"].item() == pytest.approx(2 * sum(means) / size)
    assert value["gor_second_moment"].item() == pytest.approx(5 * sum(moments) / size)


@pytest.mark.parametrize("case", CASES, ids=str)
def test_equals_the_peer(case, models):
    models.agree(case)


@pytest.mark.parametrize("case", CASES, ids=str)
def test_gradient_is_right(case):
    assert gradient_is_right(case)


@pytest.mark.parametrize("case", CASES, ids=str)
def test_the_order_of_rows_does_not_matter(case):
    order_does_not_matter(case)


@pytest.mark.parametrize("extreme", EXTREMES)
@pytest.mark.parametrize("case", CASES, ids=str)
def test_extremes_are_finite(case, extreme):
    is_finite(case, EXTREMES[extreme], None)
    is_finite(case, EXTREMES[extreme][:1], None)


def test_orthogonal_embeddings_are_spread():
    value = GlobalOrthogonalRegularizationLoss(None).compute_loss_from_embeddings([torch.eye(6)])
    assert value == {"gor_mean": torch.tensor(0.0), "gor_second_moment": torch.tensor(0.0)}


def test_sums_are_not_of_halves():
    with torch.autocast("cpu", torch.bfloat16):
        value = GlobalOrthogonalRegularizationLoss(None).compute_loss_from_embeddings([torch.randn(ROWS, 6)])
    assert {part.dtype for part in value.values()} == {torch.float32}


def test_labels_are_passed_over():
    columns = random_columns(2)
    assert compute(Case(NAME), columns) == compute(Case(NAME, labels=[1] * ROWS), columns)


def test_no_columns_are_refused():
    with pytest.raises(ValueError, match=r"takes at least 1 column\(s\) of inputs, got 0"):
        compute(Case(NAME), [])


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"mean_weight": None, "second_moment_weight": 0.0}, "must not be 0, got None and 0.0"),
        ({"aggregation": "max"}, "aggregation must be 'mean' or 'sum', got 'max'"),
    ],
)
def test_options_that_make_no_sense_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        GlobalOrthogonalRegularizationLoss(None, **options)


@pytest.mark.parametrize("case", CASES, ids=str)
def test_the_model_card_says_what_the_peers_does(case):
    assert case.loss().get_config_dict() == case.peer_loss().get_config_dict()
