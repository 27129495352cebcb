"""Losses of lists: which changes of a batch matter, and lists and logits at the limits."""

import math
from typing import Any

import pytest
import torch

import sbert_ray.losses.cross_encoder as ours
from tests.sbert_ray.losses.cross_encoder.cases import DOCUMENTS, GRADES, LISTS, PAIRS, QUERIES, logits_of
from tests.sbert_ray.losses.cross_encoder.scored import Scored

LOSSES: dict[str, dict[str, Any]] = {
    "ADRMSELoss": {},
    "ListNetLoss": {},
    "ListMLELoss": {"respect_input_order": False},
    "PListMLELoss": {"respect_input_order": False},
    "LambdaLoss": {},
    "RankNetLoss": {},
}
"""All of them, so that labels alone decide."""
EVERY = [
    *LOSSES.items(),
    ("ListMLELoss", {}),
    ("PListMLELoss", {}),
    *(
        ("LambdaLoss", {"weighting_scheme": scheme(), "k": k})
        for scheme in (ours.NoWeightingScheme, ours.NDCGLoss1Scheme, ours.NDCGLoss2Scheme, ours.LambdaRankScheme)
        for k in (None, 1)
    ),
]


def scored(shift: float = 0.0) -> Scored:
    return Scored(PAIRS, logits_of(1) + shift)


def finite(name: str, options: dict[str, Any], logits: torch.Tensor, labels: list[list[float]]) -> torch.Tensor:
    """Return a loss of lists with these logits, after a look at it and its gradients."""
    pairs = [(f"q{row}", f"d{place}") for row, scores in enumerate(labels) for place in range(len(scores))]
    model = Scored(pairs, logits)
    inputs = [[f"q{row}" for row in range(len(labels))], [[f"d{place}" for place in range(len(row))] for row in labels]]
    value = getattr(ours, name)(model, **options)(inputs, labels)
    value.backward()
    assert value.isfinite()
    assert model.logits.grad is not None
    assert model.logits.grad.isfinite().all()
    return value.detach()


def test_all_list_losses_are_tested() -> None:
    kinds = {name for name, loss in ours.LOSSES.items() if "[document_1, ..., document_n]" in (loss.__doc__ or "")}
    assert kinds == LOSSES.keys()


@pytest.mark.parametrize("name", LOSSES)
def test_the_order_of_queries_changes_nothing(name: str) -> None:
    order = [2, 0, 3, 1]
    loss = getattr(ours, name)(scored(), **LOSSES[name])
    other = loss([[column[row] for row in order] for column in LISTS], [GRADES[row] for row in order])
    assert other.item() == pytest.approx(loss(LISTS, GRADES).item(), rel=1e-5)


@pytest.mark.parametrize("name", LOSSES)
def test_the_order_of_documents_changes_nothing_where_labels_decide(name: str) -> None:
    labels = [[2.0, 0.0, 1.0], [3.0, 1.0, 0.0, 2.0]]  # without ties, which stay in their order
    loss = getattr(ours, name)(scored(), **LOSSES[name])
    first = loss([QUERIES[:2], [DOCUMENTS[:3], DOCUMENTS[3:7]]], labels)
    other = loss([QUERIES[:2], [DOCUMENTS[:3][::-1], DOCUMENTS[3:7][::-1]]], [row[::-1] for row in labels])
    assert other.item() == pytest.approx(first.item(), rel=1e-5)


@pytest.mark.parametrize("name", ["ListMLELoss", "PListMLELoss"])
def test_the_given_order_is_respected_whatever_the_labels(name: str) -> None:
    loss = getattr(ours, name)(scored())
    value = loss(LISTS, GRADES).item()
    assert loss(LISTS, [[0.0] * len(row) for row in GRADES]).item() == value
    assert loss([QUERIES, [texts[::-1] for texts in LISTS[1]]], [row[::-1] for row in GRADES]).item() != value


@pytest.mark.parametrize(("name", "options"), EVERY)
def test_logits_may_be_shifted(name: str, options: dict[str, Any]) -> None:
    values = [getattr(ours, name)(scored(shift), **options)(LISTS, GRADES).item() for shift in (0.0, 4.0)]
    assert values[0] == pytest.approx(values[1], rel=1e-4)


@pytest.mark.parametrize(("name", "options"), EVERY)
@pytest.mark.parametrize("size", [0.0, 1e4])
def test_extreme_logits_are_finite(name: str, options: dict[str, Any], size: float) -> None:
    finite(name, options, logits_of(1)[:9].sign() * size, [[2, 0, 1], [1], [0, 3, 0, 1, 1]])


@pytest.mark.parametrize(("name", "options"), EVERY)
def test_a_list_of_one_document_has_nothing_to_rank(name: str, options: dict[str, Any]) -> None:
    value = finite(name, options, torch.tensor([1.5]), [[1]])
    if isinstance(options.get("weighting_scheme"), ours.NDCGLoss1Scheme):
        assert value == pytest.approx(1.0)  # all pairs count to it, also (i, i): -log2(sigmoid(0))
    else:
        assert value == 0


@pytest.mark.parametrize(("name", "options"), EVERY)
@pytest.mark.parametrize("labels", [[0.0] * 4, [1.0] * 4, [-1.0] * 4])
def test_equal_labels_are_finite(name: str, options: dict[str, Any], labels: list[float]) -> None:
    finite(name, options, logits_of(1)[:4], [labels])


@pytest.mark.parametrize(("name", "options"), EVERY)
def test_long_lists_are_finite(name: str, options: dict[str, Any]) -> None:
    labels = [[float(place % 3) for place in range(300)], [1.0, 0.0]]  # 2^300 is too much for float32
    finite(name, options, torch.linspace(-3, 3, 302), labels)


@pytest.mark.parametrize(("name", "options"), EVERY)
def test_an_empty_list_counts_as_a_query_without_a_loss(name: str, options: dict[str, Any]) -> None:
    logits = logits_of(1)[:5]
    without = finite(name, options, logits, [[2, 0, 1], [0, 1]])
    value = finite(name, options, logits, [[2, 0, 1], [], [0, 1]])
    is_mean_of_queries = name in ("ListNetLoss", "ListMLELoss", "PListMLELoss")
    assert value.item() == pytest.approx(without.item() * (2 / 3 if is_mean_of_queries else 1), rel=1e-5)


def test_weights_of_ranks_halve() -> None:
    weights = ours.PListMLELambdaWeight()(torch.tensor([[True, True, True], [True, False, False]]))
    assert weights.tolist() == [[3, 1, 0], [0, 0, 0]]


def test_weights_of_long_lists_are_a_fraction_of_theirs() -> None:
    weights = ours.PListMLELambdaWeight()(torch.ones(1, 200, dtype=torch.bool))[0].double()
    expected = [math.ldexp(1, 200 - rank) - 1 for rank in range(1, 201)]
    torch.testing.assert_close(weights / weights.sum(), torch.tensor(expected, dtype=torch.float64) / sum(expected))


def test_own_weights_where_there_is_no_document_do_not_count() -> None:
    loss = ours.PListMLELoss(scored(), ours.PListMLELambdaWeight(torch.ones_like))
    expected = ours.PListMLELoss(scored(), ours.PListMLELambdaWeight(lambda mask: mask.float()))
    assert loss(LISTS, GRADES).item() == expected(LISTS, GRADES).item()


def test_alpha_must_be_positive() -> None:
    with pytest.raises(ValueError, match="alpha must be positive, got 0"):
        ours.ADRMSELoss(scored(), alpha=0)
