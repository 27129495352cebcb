"""TripletLoss against its formula, its gradient, and the peer's implementation."""

import math

import pytest
import torch

from sbert_ray.losses import TripletDistanceMetric
from tests.sbert_ray.losses.oracle import (
    EXTREMES,
    Case,
    compute,
    gradient_is_right,
    is_finite,
    order_does_not_matter,
    random_columns,
)

METRICS = ["COSINE", "EUCLIDEAN", "MANHATTAN"]


def triplets(name: str, margin: float) -> Case:
    peer = pytest.importorskip("sentence_transformers.sentence_transformer.losses")
    theirs = {"distance_metric": getattr(peer.TripletDistanceMetric, name), "triplet_margin": margin}
    ours = {"distance_metric": getattr(TripletDistanceMetric, name), "triplet_margin": margin}
    return Case("TripletLoss", ours, 3, peer_options=theirs)


CASES = [Case("TripletLoss", num_columns=3), *(triplets(name, margin) for name in METRICS for margin in (0.5, 5))]


@pytest.mark.parametrize("margin", [0.1, 5])
def test_is_the_formula(margin):
    columns = random_columns(3)
    rows = zip(*(column.tolist() for column in columns), strict=True)
    expected = [max(0, math.dist(a, p) - math.dist(a, n) + margin) for a, p, n in rows]
    assert compute(Case("TripletLoss", {"triplet_margin": margin}, 3), columns) == pytest.approx(
        sum(expected) / len(expected)
    )


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


def test_equal_embeddings_leave_the_margin():
    assert compute(Case("TripletLoss", num_columns=3), [torch.ones(4, 6)] * 3) == 5.0


def test_moving_all_embeddings_does_not_matter_to_euclidean_distances():
    columns = random_columns(3)
    case = Case("TripletLoss", num_columns=3)
    assert compute(case, columns) == pytest.approx(compute(case, [column + 7 for column in columns]))


@pytest.mark.parametrize(
    ("num_columns", "labels", "message"),
    [
        (2, None, r"takes 3 column\(s\) of inputs, got 2"),
        (4, None, r"takes 3 column\(s\) of inputs, got 4"),
        (3, [1] * 7, r"takes no labels, got a tensor of shape \(7,\)"),
    ],
)
def test_a_batch_of_another_form_is_refused(num_columns, labels, message):
    with pytest.raises(ValueError, match=f"TripletLoss {message}"):
        compute(Case("TripletLoss", {}, num_columns, labels), random_columns(num_columns))


@pytest.mark.parametrize("case", CASES, ids=str)
def test_the_model_card_says_what_the_peers_does(case):
    assert case.loss().get_config_dict() == case.peer_loss().get_config_dict()
