"""Batch plans: complete, within the budget, cheap, and the cheapest by brute force."""

from itertools import combinations

import numpy as np
import pytest

from sbert_ray.inference.batching import plan_batches


def work(lengths: np.ndarray, batches: list[np.ndarray], batch_cost: int, max_tokens: int) -> int:
    """Return the work of batches, each cut into as many as the budget asks for."""
    total = 0
    for rows in batches:
        longest = int(lengths[rows].max())
        total += len(rows) * longest + batch_cost * -(-len(rows) // max(max_tokens // longest, 1))
    return total


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


@pytest.mark.parametrize("max_tokens", [40, 100, 10_000])
def test_no_cut_is_cheaper(max_tokens: int) -> None:
    rng = np.random.default_rng(1)
    for _ in range(20):
        lengths = rng.integers(1, 30, 12)
        order = np.argsort(-lengths, kind="stable")
        # Rows of one length are not parted, which would only add batches.
        borders = [cut for cut in range(1, len(order)) if lengths[order[cut]] != lengths[order[cut - 1]]]
        groupings = (
            np.split(order, cuts) for count in range(len(borders) + 1) for cuts in combinations(borders, count)
        )
        best = min(work(lengths, grouping, 20, max_tokens) for grouping in groupings)
        assert work(lengths, plan_batches(lengths, max_tokens, 20), 20, max_tokens) <= best


def test_rows_of_one_length_may_change_places_without_a_change_of_batches() -> None:
    """Only which of them is where may differ, never the shape of a batch, which decides the last bits."""
    lengths = np.random.default_rng(2).integers(1, 50, 300)
    order = np.random.default_rng(3).permutation(300)
    first, second = plan_batches(lengths, 512, 32), plan_batches(lengths[order], 512, 32)
    assert [sorted(lengths[rows]) for rows in first] == [sorted(lengths[order][rows]) for rows in second]


def test_empty_and_zero_length_rows_are_fine() -> None:
    assert plan_batches(np.empty(0, np.int64), 4096, 32) == []
    assert sorted(np.concatenate(plan_batches(np.array([0, 3, 0]), 4096, 32))) == [0, 1, 2]
