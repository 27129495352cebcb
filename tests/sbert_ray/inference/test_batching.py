"""Batch plans: complete, within the budget, cheap, and the cheapest by brute force."""

from itertools import combinations

import numpy as np
import pytest

from sbert_ray.inference.batching import plan_batches


def work(lengths: np.ndarray, batches: list[np.ndarray], batch_cost: int) -> int:
    return sum(len(rows) * int(lengths[rows].max()) + batch_cost for rows in batches)


@pytest.mark.parametrize("max_tokens", [1, 64, 4096])
def test_every_row_is_in_one_batch_within_the_budget(max_tokens: int) -> None:
    lengths = np.random.default_rng(0).integers(1, 200, 1000)
    batches = plan_batches(lengths, max_tokens, 32)
    assert sorted(np.concatenate(batches)) == list(range(1000))
    for rows in batches:
        assert len(rows) == 1 or len(rows) * lengths[rows].max() <= max_tokens
    widths = [lengths[rows].max() for rows in batches]
    assert widths == sorted(widths, reverse=True)  # a batch too large for memory fails at once


def test_rows_of_one_length_are_not_padded() -> None:
    lengths = np.repeat([5, 9, 30], 100)
    for rows in plan_batches(lengths, 512, 32):
        assert len(set(lengths[rows])) == 1


def test_rare_lengths_share_a_batch() -> None:
    assert len(plan_batches(np.array([10, 11, 12, 13]), 4096, 32)) == 1
    assert len(plan_batches(np.array([1, 1000]), 4096, 32)) == 2  # here padding would cost more than a batch


def test_no_cut_is_cheaper() -> None:
    rng = np.random.default_rng(1)
    for _ in range(20):
        lengths = rng.integers(1, 30, 12)
        order = np.argsort(-lengths, kind="stable")
        groupings = (
            np.split(order, cuts) for count in range(len(order)) for cuts in combinations(range(1, len(order)), count)
        )
        best = min(work(lengths, grouping, 20) for grouping in groupings)
        assert work(lengths, plan_batches(lengths, 10_000, 20), 20) == best


def test_a_plan_depends_on_the_lengths_alone() -> None:
    lengths = np.random.default_rng(2).integers(1, 50, 300)
    for first, second in zip(plan_batches(lengths, 512, 32), plan_batches(lengths.copy(), 512, 32), strict=True):
        np.testing.assert_array_equal(first, second)


def test_empty_and_zero_length_rows_are_fine() -> None:
    assert plan_batches(np.empty(0, np.int64), 4096, 32) == []
    assert sorted(np.concatenate(plan_batches(np.array([0, 3, 0]), 4096, 32))) == [0, 1, 2]
