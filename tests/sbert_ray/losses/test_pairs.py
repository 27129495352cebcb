"""Losses of pairs against their formulas, their gradients, and the peer's implementation."""

import math

import pytest
import torch
from torch import nn

from sbert_ray.losses import SiameseDistanceMetric
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

MATCHES = [1, 0, 0, 1, 1, 0, 1]
SCORES = [0.1, 0.9, 0.5, 0.5, 0.0, 1.0, 0.5]
METRICS = ["EUCLIDEAN", "MANHATTAN", "COSINE_DISTANCE"]


def metric(name: str, **options):
    """A distance on our side, and the peer's of the same name."""
    peer = pytest.importorskip("sentence_transformers.sentence_transformer.losses")
    return (
        {"distance_metric": getattr(SiameseDistanceMetric, name), **options},
        {"distance_metric": getattr(peer.SiameseDistanceMetric, name), **options},
    )


def contrastive(loss: str, labels, name: str = "COSINE_DISTANCE", **options) -> Case:
    ours, theirs = metric(name, **options)
    return Case(loss, ours, labels=labels, peer_options=theirs)


COSINES = [
    Case("CosineSimilarityLoss", labels=SCORES),
    Case("CosineSimilarityLoss", {"loss_fct": nn.L1Loss()}, labels=SCORES),
    Case("CosineSimilarityLoss", {"cos_score_transformation": nn.Sigmoid()}, labels=[[score] for score in SCORES]),
    Case("CosineSimilarityLoss", labels=MATCHES),
]
CONTRASTIVE = [
    Case("ContrastiveLoss", labels=MATCHES),
    Case("ContrastiveLoss", {"margin": 2.5}, labels=[[float(match)] for match in MATCHES]),
    Case("ContrastiveLoss", {"size_average": False}, labels=MATCHES),
    Case("ContrastiveLoss", labels=SCORES),
    *(contrastive("ContrastiveLoss", MATCHES, name, margin=4.0) for name in METRICS),
]
ONLINE = [
    Case("OnlineContrastiveLoss", labels=MATCHES),
    Case("OnlineContrastiveLoss", {"margin": 1.5}, labels=[float(match) for match in MATCHES]),
    Case("OnlineContrastiveLoss", {"margin": 1.5}, labels=[1] * ROWS),
    Case("OnlineContrastiveLoss", {"margin": 1.5}, labels=[0] * ROWS),
    *(contrastive("OnlineContrastiveLoss", MATCHES, name, margin=9.0) for name in METRICS),
]
LONE = [
    Case("OnlineContrastiveLoss", {"margin": 1.5}, labels=[int(row == only) ^ other for row in range(ROWS)])
    for only in range(ROWS)
    for other in (0, 1)
]
CASES = COSINES + CONTRASTIVE + ONLINE
LOSSES = ["CosineSimilarityLoss", "ContrastiveLoss", "OnlineContrastiveLoss"]


def distances_by_hand(name: str, a: torch.Tensor, b: torch.Tensor) -> list[float]:
    found = []
    for x, y in zip(a.tolist(), b.tolist(), strict=True):
        dot = sum(i * j for i, j in zip(x, y, strict=True))
        found.append(
            {
                "EUCLIDEAN": math.dist(x, y),
                "MANHATTAN": sum(abs(i - j) for i, j in zip(x, y, strict=True)),
                "COSINE_DISTANCE": 1 - dot / math.hypot(*x) / math.hypot(*y),
            }[name]
        )
    return found


@pytest.mark.parametrize("name", METRICS)
def test_distances_are_their_formulas(name):
    columns = random_columns(2)
    found = getattr(SiameseDistanceMetric, name)(*columns)
    assert found.tolist() == pytest.approx(distances_by_hand(name, *columns))


def test_cosine_similarity_is_the_formula():
    columns = random_columns(2)
    cosines = [1 - distance for distance in distances_by_hand("COSINE_DISTANCE", *columns)]
    expected = sum((cosine - score) ** 2 for cosine, score in zip(cosines, SCORES, strict=True)) / ROWS
    assert compute(Case("CosineSimilarityLoss", labels=SCORES), columns) == pytest.approx(expected)


@pytest.mark.parametrize("size_average", [True, False])
@pytest.mark.parametrize("name", METRICS)
def test_contrastive_is_the_formula(name, size_average):
    columns = random_columns(2)
    expected = sum(
        0.5 * (y * d**2 + (1 - y) * max(0, 2 - d) ** 2)
        for d, y in zip(distances_by_hand(name, *columns), MATCHES, strict=True)
    )
    case = contrastive("ContrastiveLoss", MATCHES, name, margin=2.0, size_average=size_average)
    assert compute(case, columns) == pytest.approx(expected / ROWS if size_average else expected)


@pytest.mark.parametrize("labels", [MATCHES, [1] * ROWS, [0] * ROWS], ids=["both", "matches", "others"])
def test_online_contrastive_is_the_formula(labels):
    columns = random_columns(2)
    distances = distances_by_hand("EUCLIDEAN", *columns)
    matches = [d for d, y in zip(distances, labels, strict=True) if y]
    others = [d for d, y in zip(distances, labels, strict=True) if not y]
    far = min(others) if others else sum(matches) / ROWS
    close = max(matches) if matches else sum(others) / ROWS
    expected = sum(d**2 for d in matches if d > far) + sum(max(0, 4 - d) ** 2 for d in others if d < close)
    case = contrastive("OnlineContrastiveLoss", labels, "EUCLIDEAN", margin=4.0)
    assert compute(case, columns) == pytest.approx(expected)


@pytest.mark.filterwarnings("ignore:ContrastiveLoss expects binary labels")
@pytest.mark.parametrize("case", CASES, ids=str)
def test_equals_the_peer(case, models):
    models.agree(case)


@pytest.mark.parametrize("case", LONE, ids=str)
def test_a_lone_pair_of_a_kind_is_as_with_the_peer(case):
    columns = random_columns(2)
    expected = case.peer_loss().compute_loss_from_embeddings(columns, case.targets())
    assert compute(case, columns) == pytest.approx(expected.item())


@pytest.mark.parametrize("case", CASES, ids=str)
def test_gradient_is_right(case):
    assert gradient_is_right(case)


@pytest.mark.parametrize("case", CASES, ids=str)
def test_the_order_of_rows_does_not_matter(case):
    order_does_not_matter(case)


@pytest.mark.parametrize("case", [*COSINES, CONTRASTIVE[0], ONLINE[0]], ids=str)
def test_the_length_of_embeddings_does_not_matter_to_cosines(case):
    a, b = random_columns(2)
    assert compute(case, [a, b]) == pytest.approx(compute(case, [a * 5, b / 3]))


@pytest.mark.parametrize("extreme", EXTREMES)
@pytest.mark.parametrize("case", CASES, ids=str)
def test_extremes_are_finite(case, extreme):
    is_finite(case, EXTREMES[extreme], case.targets())


@pytest.mark.parametrize("label", [0, 1])
@pytest.mark.parametrize("name", LOSSES)
def test_a_lone_pair_is_enough(name, label):
    is_finite(Case(name), EXTREMES["large"][:1], torch.tensor([label]))


@pytest.mark.parametrize("name", LOSSES)
@pytest.mark.parametrize(
    ("num_columns", "labels", "message"),
    [
        (1, MATCHES, r"takes 2 column\(s\) of inputs, got 1"),
        (3, MATCHES, r"takes 2 column\(s\) of inputs, got 3"),
        (2, None, r"needs labels, .* per pair, got None"),
        (2, [1, 0], r"needs one label per row, 7, got labels of shape \(2,\)"),
        (2, [[1, 0]] * ROWS, r"needs one label per row, 7, got labels of shape \(7, 2\)"),
    ],
)
def test_a_batch_of_another_form_is_refused(name, num_columns, labels, message):
    with pytest.raises(ValueError, match=f"{name} {message}"):
        compute(Case(name, {}, num_columns, labels), random_columns(num_columns))


def test_labels_that_tell_no_matches_are_refused():
    columns = random_columns(2)
    with pytest.raises(ValueError, match=r"ContrastiveLoss needs labels from 0 to 1, got -1 to 1"):
        compute(Case("ContrastiveLoss", labels=[1, -1, -1, 1, 1, 1, -1]), columns)
    with pytest.raises(ValueError, match=r"OnlineContrastiveLoss needs labels that are 0 or 1, got \[0.5\]"):
        compute(Case("OnlineContrastiveLoss", labels=[0.5, *MATCHES[1:]]), columns)


@pytest.mark.parametrize("case", CASES, ids=str)
def test_the_model_card_says_what_the_peers_does(case):
    assert case.loss().get_config_dict() == case.peer_loss().get_config_dict()


def test_a_distance_of_ones_own_is_named():
    def rounded(a, b):
        return (a - b).norm(dim=-1)

    assert (
        Case("ContrastiveLoss", {"distance_metric": rounded}).loss().get_config_dict()["distance_metric"] == "rounded"
    )
