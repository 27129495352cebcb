"""How rows of known lengths are cut into batches: as little padding as pays, or none. Knows no torch.

Shapes: N rows.
"""

from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

Lengths = TypeVar("Lengths", int, NDArray[np.int64])


def cost_of(length: Lengths, attention_length: int | None) -> Lengths:
    """Return the work for a row, or for each of several (N,), in token positions of a short row.

    Attention's work grows with the square of the length, all other with the length.

    Args:
        length: Tokens of the row, or of each (N,).
        attention_length: Tokens at which attention is half of a row's work; None where there is no attention.
    """
    return length + length * length // attention_length if attention_length else length


def plan_packs(
    lengths: NDArray[np.int64], costs: NDArray[np.int64], max_cost: int, max_rows: int | None = None
) -> list[NDArray[np.int64]]:
    """Cut rows into batches of which none is padded, as row indices per batch, longest rows first.

    Args:
        lengths: Tokens of each row (N,).
        costs: Work of each row (N,).
        max_cost: The most work of a batch; a row of more is a batch of its own.
        max_rows: The most rows of a batch.
    """
    order = np.argsort(-lengths, kind="stable")
    ends = np.cumsum(costs[order])
    packs: list[NDArray[np.int64]] = []
    start = 0
    while start < len(order):
        spent = int(ends[start - 1]) if start else 0
        end = max(int(np.searchsorted(ends, spent + max_cost, side="right")), start + 1)
        end = min(end, start + (max_rows or len(order)))
        packs.append(order[start:end])
        start = end
    return packs


def plan_batches(
    lengths: NDArray[np.int64], max_tokens: int, batch_cost: int, max_rows: int | None = None
) -> list[NDArray[np.int64]]:
    """Cut rows into batches with the least work, as row indices per batch, longest rows first.

    Work is counted in token positions: a batch of n rows that are at most T long computes n * T of them, padding
    included, and costs ``batch_cost`` on top for being one more batch. So rows of one length go together without any
    padding where there are enough of them, and rare lengths share a batch where that is cheaper than one each. The
    plan depends on the arguments alone.

    Args:
        lengths: Tokens of each row (N,).
        max_tokens: The most positions of a batch; a longer row is a batch of its own.
        batch_cost: What a batch costs besides its positions, in positions.
        max_rows: The most rows of a batch.
    """
    order = np.argsort(-lengths, kind="stable")
    _, counts = np.unique(-lengths, return_counts=True)  # ascending in -length: longest first
    ends = np.concatenate([[0], np.cumsum(counts)])  # (K + 1,): where the k-th distinct length begins in `order`
    widest = np.maximum(lengths[order[ends[:-1]]], 1)  # (K,): the k-th distinct length
    rows_per_batch = np.clip(max_tokens // widest, 1, max_rows)
    batches = []
    for first, last in _cheapest_cuts(ends, widest, rows_per_batch, batch_cost):
        rows = order[ends[first] : ends[last]]
        batches += np.array_split(rows, -(-len(rows) // rows_per_batch[first]))
    return batches


def _cheapest_cuts(
    ends: NDArray[np.int64], widest: NDArray[np.int64], rows_per_batch: NDArray[np.int64], batch_cost: int
) -> list[tuple[int, int]]:
    # Shortest path over the K distinct lengths: best[k] is the least work for the rows of the first k lengths.
    best = np.zeros(len(ends), np.int64)
    start_of = np.zeros(len(ends), np.int64)
    for last in range(1, len(ends)):
        rows = ends[last] - ends[:last]
        work = best[:last] + rows * widest[:last] + batch_cost * -(-rows // rows_per_batch[:last])
        start_of[last] = work.argmin()
        best[last] = work[start_of[last]]
    cuts, last = [], len(ends) - 1
    while last > 0:
        cuts.append((int(start_of[last]), last))
        last = int(start_of[last])
    return cuts[::-1]
