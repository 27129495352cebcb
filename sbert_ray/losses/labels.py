"""Labels of the kinds that losses take, checked.

Shapes: B rows.
"""

import torch
from torch import Tensor


def labels_per_row(labels: Tensor, num_rows: int, name: str) -> Tensor:
    """Return labels as (B,), whatever their shape.

    Raises:
        ValueError: There are more or fewer than one per row.
    """
    if labels.numel() != num_rows:
        raise ValueError(f"{name} needs one label per row, {num_rows}, got labels of shape {tuple(labels.shape)}")
    return labels.reshape(-1)


def scores_per_row(labels: Tensor, num_rows: int, name: str) -> Tensor:
    """Return scores as (B,), in the precision they came in.

    Raises:
        ValueError: There are more or fewer than one per row.
    """
    labels = labels_per_row(labels, num_rows, name)
    return labels.float() if labels.dtype == torch.bool else labels


def classes_per_row(labels: Tensor, num_rows: int, name: str) -> Tensor:
    """Return integer classes as (B,).

    Raises:
        ValueError: There are more or fewer than one per row, or they are no integers.
    """
    if labels.is_floating_point() or labels.is_complex():
        raise ValueError(f"{name} needs integer classes as labels, got labels of {labels.dtype}")
    return labels_per_row(labels, num_rows, name)


def matches_per_row(labels: Tensor, num_rows: int, name: str) -> Tensor:
    """Return as (B,) whether the texts of each row match, which labels tell by 1 and 0.

    Raises:
        ValueError: There are more or fewer than one per row, or others than 0 and 1.
    """
    labels = labels_per_row(labels, num_rows, name)
    if wrong := torch.unique(labels[(labels != 0) & (labels != 1)]).tolist():
        raise ValueError(f"{name} needs labels that are 0 or 1, got {wrong[:3]}")
    return labels == 1
