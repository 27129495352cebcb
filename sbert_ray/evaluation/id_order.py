"""The order of a corpus by its ids, which decides among equal scores.

Shapes: Q queries, K hits of each.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from sbert_ray.search import Neighbors


def id_ranks(ids: Sequence[Any]) -> NDArray[np.int64]:
    """Return the place of each id when they are sorted, as strings if they are of several kinds."""
    try:
        order = sorted(range(len(ids)), key=ids.__getitem__)
    except TypeError:
        order = sorted(range(len(ids)), key=lambda row: str(ids[row]))
    ranks = np.empty(len(ids), np.int64)
    ranks[order] = np.arange(len(ids))
    return ranks


def merged(first: Neighbors, second: Neighbors, k: int) -> Neighbors:
    """Return the ``k`` best of two, ties by id, in whatever order the ids came."""
    scores, ids = (torch.cat(pair, dim=1) for pair in zip(first, second, strict=True))
    by_id = ids.argsort(dim=1)
    scores, ids = scores.gather(1, by_id), ids.gather(1, by_id)
    scores, order = scores.sort(dim=1, descending=True, stable=True)
    return Neighbors(scores[:, :k], ids.gather(1, order)[:, :k])
