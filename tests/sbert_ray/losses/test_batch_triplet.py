"""Batch triplet losses against their formulas, their gradients, and the peer's implementation."""

import math
from collections.abc import Callable

import pytest
import torch

from sbert_ray.losses import BatchHardTripletLossDistanceFunction
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

CLASSES = [0, 2, 2, 0, 1, 1, 2]
LOSSES = ["BatchAllTripletLoss", "BatchHardTripletLoss", "BatchHardSoftMarginTripletLoss", "BatchSemiHardTripletLoss"]
OTHER_CLASSES = {
    "one": [0] * ROWS,
    "all different": list(range(ROWS)),
    "some alone": [0, 1, 1, 2, 3, 1, 2],
    "one alone": [0] * (ROWS - 1) + [1],
}


def cosine_distance(name: str) -> Case:
    peer = pytest.importorskip("sentence_transformers.sentence_transformer.losses")
    theirs = peer.BatchHardTripletLossDistanceFunction.cosine_distance
    ours = BatchHardTripletLossDistanceFunction.cosine_distance
    return Case(name, {"distance_metric": ours}, 1, CLASSES, {"distance_metric": theirs})


CASES = [
    *(Case(name, {}, 1, CLASSES) for name in LOSSES),
    *(Case(name, {"margin": 0.1}, 1, [[one] for one in CLASSES]) for name in LOSSES if "Soft" not in name),
    *map(cosine_distance, LOSSES),
]


def by_hand(name: str, d: Callable[[int, int], float], classes: list[int], margin: float) -> float:
    """The formula of a loss, one triplet at a time; every class has two rows, and there are two classes."""
    rows = range(len(classes))
    positives = {a: [p for p in rows if p != a and classes[p] == classes[a]] for a in rows}
    negatives = {a: [n for n in rows if classes[n] != classes[a]] for a in rows}
    if name == "BatchAllTripletLoss":
        hinges = [max(0, d(a, p) - d(a, n) + margin) for a in rows for p in positives[a] for n in negatives[a]]
        return sum(hinges) / sum(hinge > 0 for hinge in hinges)
    if name == "BatchSemiHardTripletLoss":
        hinges = []
        for a in rows:
            for p in positives[a]:
                farther = [d(a, n) for n in negatives[a] if d(a, n) > d(a, p)]
                negative = min(farther) if farther else max(d(a, n) for n in negatives[a])
                hinges.append(max(0, d(a, p) - negative + margin))
        return sum(hinges) / len(hinges)
    hardest = [max(d(a, p) for p in positives[a]) - min(d(a, n) for n in negatives[a]) for a in rows]
    if name == "BatchHardTripletLoss":
        return sum(max(0, difference + margin) for difference in hardest) / len(hardest)
    return sum(math.log1p(math.exp(difference)) for difference in hardest) / len(hardest)


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("margin", [0.3, 5])
@pytest.mark.parametrize("name", LOSSES)
def test_is_the_formula(name, margin, seed):
    torch.manual_seed(seed)
    [column] = random_columns(1)
    rows = column.tolist()
    expected = by_hand(name, lambda i, j: math.dist(rows[i], rows[j]), CLASSES, margin)
    options = {} if "Soft" in name else {"margin": margin}
    assert compute(Case(name, options, 1, CLASSES), [column]) == pytest.approx(expected)


def test_distances_are_their_formulas():
    [column] = random_columns(1)
    rows = column.tolist()
    expected = torch.tensor([[math.dist(a, b) for b in rows] for a in rows], dtype=torch.float64)
    euclidean = BatchHardTripletLossDistanceFunction.euclidean_distance
    torch.testing.assert_close(euclidean(column), expected)
    torch.testing.assert_close(euclidean(column, squared=True), expected**2)
    cosines = torch.nn.functional.cosine_similarity(column[:, None], column[None], dim=-1)
    torch.testing.assert_close(BatchHardTripletLossDistanceFunction.cosine_distance(column), 1 - cosines)


@pytest.mark.parametrize("case", CASES, ids=str)
def test_equals_the_peer(case, models):
    models.agree(case)


@pytest.mark.parametrize("classes", OTHER_CLASSES)
@pytest.mark.parametrize("name", LOSSES)
def test_classes_without_positives_or_negatives_are_as_with_the_peer(name, classes):
    case, [column] = Case(name, {}, 1, OTHER_CLASSES[classes]), random_columns(1)
    gradients = []
    for loss in (case.loss(), case.peer_loss()):
        value = loss.compute_loss_from_embeddings([column], case.targets())
        gradients.append((value, *torch.autograd.grad(value, column)))
    torch.testing.assert_close(gradients[0], gradients[1], rtol=1e-5, atol=1e-7, check_dtype=False)


@pytest.mark.parametrize("rows", [64, 300])
@pytest.mark.parametrize("name", LOSSES)
def test_many_rows_in_single_precision_are_as_with_the_peer(name, rows):
    torch.manual_seed(0)
    column = torch.randn(rows, 16).requires_grad_()
    case = Case(name, {}, 1, torch.randint(20, (rows,)))
    ours, theirs = (
        loss.compute_loss_from_embeddings([column], case.targets()) for loss in (case.loss(), case.peer_loss())
    )
    torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=0)


@pytest.mark.parametrize("case", CASES, ids=str)
def test_gradient_is_right(case):
    assert gradient_is_right(case)


@pytest.mark.parametrize("case", CASES, ids=str)
def test_the_order_of_rows_does_not_matter(case):
    order_does_not_matter(case)


@pytest.mark.parametrize("case", CASES, ids=str)
def test_only_which_classes_are_the_same_matters(case):
    columns = random_columns(1)
    renamed = Case(case.name, case.options, 1, [[7, -1, 4][torch.as_tensor(one).item()] for one in case.labels])
    assert compute(case, columns) == pytest.approx(compute(renamed, columns))


@pytest.mark.parametrize("extreme", EXTREMES)
@pytest.mark.parametrize("case", CASES, ids=str)
def test_extremes_are_finite(case, extreme):
    is_finite(case, EXTREMES[extreme], case.targets())
    is_finite(case, EXTREMES[extreme].repeat(5, 1), case.targets().repeat(*(5, 1)[: case.targets().ndim]))
    for classes in OTHER_CLASSES.values():
        is_finite(case, EXTREMES[extreme], torch.tensor(classes))
    is_finite(case, EXTREMES[extreme][:1], torch.tensor([3]))


@pytest.mark.parametrize("name", LOSSES)
@pytest.mark.parametrize(
    ("num_columns", "labels", "message"),
    [
        (2, CLASSES, r"takes 1 column\(s\) of inputs, got 2"),
        (1, None, "needs labels, one class per text, got None"),
        (1, CLASSES[:3], r"needs one label per row, 7, got labels of shape \(3,\)"),
        (1, [0.5] * ROWS, "needs integer classes as labels, got labels of torch.float32"),
    ],
)
def test_a_batch_of_another_form_is_refused(name, num_columns, labels, message):
    with pytest.raises(ValueError, match=f"{name} {message}"):
        compute(Case(name, {}, num_columns, labels), random_columns(num_columns))


@pytest.mark.parametrize("case", CASES, ids=str)
def test_the_model_card_says_what_the_peers_does(case):
    assert case.loss().get_config_dict() == case.peer_loss().get_config_dict()
