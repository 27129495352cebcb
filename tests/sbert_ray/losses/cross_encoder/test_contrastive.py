"""Which in-batch negatives are drawn, and what the losses of them say."""

from collections import Counter

import pytest
import torch

import sbert_ray.losses.cross_encoder as ours
from tests.sbert_ray.losses.cross_encoder.cases import DOCUMENTS, FOUR, PAIRS, QUERIES, TWO, logits_of
from tests.sbert_ray.losses.cross_encoder.scored import Scored

LOSSES = [ours.MultipleNegativesRankingLoss, ours.CachedMultipleNegativesRankingLoss]


def candidates(loss: ours.MultipleNegativesRankingLoss, inputs: list[list[str]]) -> list[list[str]]:
    """The documents that each query is paired with."""
    pairs, places = loss.pairs(inputs, None)
    assert places.tolist() == [0] * len(inputs[0])
    size = len(pairs) // len(inputs[0])
    rows = [pairs[start : start + size] for start in range(0, len(pairs), size)]
    assert [{query for query, _ in row} for row in rows] == [{query} for query in inputs[0]]
    return [[text for _, text in row] for row in rows]


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("num", [1, 4, 8])
def test_negatives_are_of_other_rows_and_differ_from_each_other(num: int, seed: int) -> None:
    loss = ours.MultipleNegativesRankingLoss(Scored(PAIRS, logits_of(1)), num)
    torch.manual_seed(seed)
    for row, texts in enumerate(candidates(loss, FOUR)):
        own = [column[row] for column in FOUR[1:]]
        sampled = texts[1 : 1 + num]
        assert texts == [own[0], *sampled, *own[1:]]
        assert len(set(sampled)) == num
        assert not set(sampled) & set(own)


def test_all_others_are_as_likely_as_each_other() -> None:
    loss = ours.MultipleNegativesRankingLoss(Scored(PAIRS, logits_of(1)), 3)
    torch.manual_seed(0)
    counts = Counter(loss.sample(4, 12)[0, 0].item() for _ in range(3000))
    assert set(counts) == set(range(12)) - {0, 4, 8}
    assert max(abs(count - 3000 / 9) for count in counts.values()) < 80  # 4.6 standard deviations


def test_other_seeds_draw_others_and_the_same_seed_the_same() -> None:
    loss = ours.MultipleNegativesRankingLoss(Scored(PAIRS, logits_of(1)), 2)
    drawn = []
    for seed in (0, 0, 1):
        torch.manual_seed(seed)
        drawn.append(candidates(loss, FOUR))
    assert drawn[0] == drawn[1] != drawn[2]


def test_a_cached_batch_is_drawn_once() -> None:
    loss = ours.CachedMultipleNegativesRankingLoss(model := Scored(PAIRS, logits_of(1)), 2, mini_batch_size=5)
    value = loss(FOUR)
    value.backward()
    assert len(model.calls) == 1
    assert model.sizes == [5, 5, 5, 5] * 2  # 4 * (1 + 2 + 2) pairs, two passes
    assert model.logits.grad is not None
    asked = {model.rows[pair] for pair in model.calls[0][0]}
    assert set(model.logits.grad[:, 0].nonzero()[:, 0].tolist()) <= asked


def test_progress_is_shown(capsys: pytest.CaptureFixture[str]) -> None:
    model = Scored(PAIRS, logits_of(1))
    ours.CachedMultipleNegativesRankingLoss(model, mini_batch_size=2, show_progress_bar=True)(FOUR)
    assert "mini-batches" in capsys.readouterr().err


@pytest.mark.parametrize("kind", LOSSES)
def test_a_batch_of_one_has_its_own_negatives_only(kind: type[ours.MultipleNegativesRankingLoss]) -> None:
    loss = kind(Scored(PAIRS, logits_of(1)))
    assert candidates(loss, [[QUERIES[0]], [DOCUMENTS[0]], [DOCUMENTS[1]]]) == [DOCUMENTS[:2]]
    assert loss([[QUERIES[0]], [DOCUMENTS[0]], [DOCUMENTS[1]]]).item() > 0
    assert loss([[QUERIES[0]], [DOCUMENTS[0]]]).item() == 0  # nothing to tell the positive from


def test_the_order_of_rows_changes_nothing() -> None:
    values = []
    for order in ([0, 1, 2, 3], [3, 1, 0, 2]):
        loss = ours.MultipleNegativesRankingLoss(Scored(PAIRS, logits_of(1)), None)
        values.append(loss([[column[row] for row in order] for column in FOUR]).item())
    assert values[0] == pytest.approx(values[1])


def test_logits_may_be_shifted_without_an_activation() -> None:
    values = [
        ours.MultipleNegativesRankingLoss(Scored(PAIRS, logits_of(1) + shift), None, activation_fn=None)(FOUR).item()
        for shift in (0.0, 5.0)
    ]
    assert values[0] == pytest.approx(values[1], rel=1e-5)


@pytest.mark.parametrize("kind", LOSSES)
@pytest.mark.parametrize("size", [0.0, 1e4, -1e4])
@pytest.mark.parametrize("activation", [torch.nn.Sigmoid(), None], ids=["sigmoid", "None"])
def test_extreme_logits_are_finite(kind: type, size: float, activation: torch.nn.Module | None) -> None:
    model = Scored(PAIRS, torch.sign(logits_of(1)) * size)
    value = kind(model, activation_fn=activation)(FOUR)
    value.backward()
    assert value.isfinite()
    assert model.logits.grad is not None
    assert model.logits.grad.isfinite().all()


@pytest.mark.parametrize("kind", LOSSES)
def test_labels_are_refused(kind: type) -> None:
    with pytest.raises(ValueError, match=f"{kind.__name__} takes no labels, got Tensor; leave the label column out"):
        kind(Scored(PAIRS, logits_of(1)))(TWO, torch.ones(4))


@pytest.mark.parametrize("kind", LOSSES)
@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"num_negatives": 0}, "num_negatives must be positive, or None for all, got 0"),
        ({"scale": 0.0}, "scale must be positive, got 0.0"),
    ],
    ids=["num_negatives", "scale"],
)
def test_arguments_that_make_no_sense_are_refused(kind: type, options: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        kind(Scored(PAIRS, logits_of(1)), **options)


def test_mini_batches_must_have_a_size() -> None:
    with pytest.raises(ValueError, match="mini_batch_size must be positive, got 0"):
        ours.CachedMultipleNegativesRankingLoss(Scored(PAIRS, logits_of(1)), mini_batch_size=0)
