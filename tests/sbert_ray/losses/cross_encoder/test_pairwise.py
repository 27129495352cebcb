"""Margins of MarginMSELoss: given, or as scores, and wrong ones."""

from typing import Any

import pytest
import torch

import sbert_ray.losses.cross_encoder as ours
from tests.sbert_ray.losses.cross_encoder.cases import FOUR, PAIRS, SCORES, THREE, logits_of
from tests.sbert_ray.losses.cross_encoder.scored import Scored


def loss(logits: torch.Tensor | None = None) -> ours.MarginMSELoss:
    return ours.MarginMSELoss(Scored(PAIRS, logits_of(1) if logits is None else logits))


def test_scores_mean_their_margins() -> None:
    margins, scores = [[0.25, -0.5]] * 4, [[1.0, 0.75, 1.5]] * 4
    assert loss()(FOUR, scores).item() == pytest.approx(loss()(FOUR, margins).item())


def test_margins_may_come_row_by_row() -> None:
    margins = [torch.tensor([0.25, -0.5])] * 4
    assert loss()(FOUR, margins).item() == loss()(FOUR, torch.stack(margins)).item()


def test_logits_may_be_shifted() -> None:
    assert loss(logits_of(1) + 3)(FOUR, [[1, 2]] * 4).item() == pytest.approx(
        loss()(FOUR, [[1, 2]] * 4).item(), rel=1e-5
    )


def test_the_order_of_rows_changes_nothing() -> None:
    order = [2, 0, 3, 1]
    other = loss()([[column[row] for row in order] for column in THREE], [SCORES[row] for row in order])
    assert other.item() == pytest.approx(loss()(THREE, SCORES).item())


@pytest.mark.parametrize("size", [0.0, 1e4])
@pytest.mark.parametrize("rows", [1, 4])
def test_extreme_logits_are_finite(size: float, rows: int) -> None:
    found = loss(logits_of(1).sign() * size)([column[:rows] for column in THREE], SCORES[:rows])
    found.backward()
    assert found.isfinite()


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        (
            [[1.0, 2.0], [1.0], [1.0, 2.0], [1.0, 2.0]],
            r"needs 2 margin\(s\) per query, or 3 scores, .*, got 1 in row 1",
        ),
        ([[1.0, 2.0], [1.0, 2.0, 3.0], [1.0, 2.0], [1.0, 2.0]], "the same for all, got 3 in row 1"),
        ([[1.0, 2.0, 3.0, 4.0]] * 4, "got 4 in row 0"),
        ([[1.0, 2.0]] * 3, r"of 4 queries, got shape \(3, 2\)"),
        (torch.ones(4), r"of 4 queries, got shape \(4, 1\)"),
        (torch.ones(4, 2, 1), r"of 4 queries, got shape \(4, 2, 1\)"),
    ],
)
def test_there_must_be_a_margin_for_each_negative(labels: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        loss()(FOUR, labels)
