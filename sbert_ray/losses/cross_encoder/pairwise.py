"""Losses of the difference that a positive and a negative make.

Shapes: B queries, n negatives of each.
"""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from sbert_ray.losses.cross_encoder.loss import (
    IDENTITY,
    Activation,
    CrossEncoderLoss,
    Pair,
    check_columns,
    is_given,
    is_list,
    numbers,
)


class MarginMSELoss(CrossEncoderLoss):
    """Squared difference of a model's margins and those of a teacher.

    With scores s(q_i, .), positives p_i and negatives n_ij::

        loss = 1/(B * n) sum_ij ( s(q_i, p_i) - s(q_i, n_ij) - margin_ij )^2

    Unlike `MSELoss` it leaves the model free to score in another range than its teacher.

    Columns: (query, positive, negative_1, ..., negative_n). Labels: [margin_1, ..., margin_n], the teacher's score of
    the positive less that of each negative, or [score of the positive, score_1, ..., score_n].

    Args:
        model: Scores the pairs; it must have one label.
        activation_fn: Applied to the logits.
        kwargs: Passed on to ``torch.nn.MSELoss``.

    References:
        Hofstaetter et al. 2020, Improving Efficient Neural Ranking Models with Cross-Architecture Knowledge
        Distillation, arXiv:2010.02666.
    """

    def __init__(self, model: nn.Module, activation_fn: Activation | None = IDENTITY, **kwargs: Any) -> None:
        super().__init__(model, activation_fn)
        self.loss_fct = nn.MSELoss(**kwargs)

    def pairs(self, inputs: Sequence[Sequence[Any]], labels: Any) -> tuple[list[Pair], Tensor]:
        """Return each query with its documents, the positive first, and the margins (B, n)."""
        check_columns(type(self).__name__, inputs, 3, None)
        queries, *documents = inputs
        pairs = [(query, text) for query, *texts in zip(queries, *documents, strict=True) for text in texts]
        return pairs, _margins(labels, len(queries), len(documents) - 1)

    def compute(self, logits: Tensor, labels: Tensor) -> Tensor:
        """Return the mean over queries and negatives."""
        scores = logits.view(len(labels), -1)  # (B, 1 + n): the positive's first
        value: Tensor = self.loss_fct(scores[:, :1] - scores[:, 1:], labels.to(logits))
        return value


def _margins(labels: Any, num_queries: int, num_negatives: int) -> Tensor:
    """Return margins (B, n), given these, or scores (B, 1 + n), the positive's first.

    Raises:
        ValueError: The labels are neither.
    """
    wanted = f"{num_negatives} margin(s) per query, or {1 + num_negatives} scores"
    if not is_given(labels):
        raise ValueError(f"MarginMSELoss needs labels, {wanted}, got none")
    if is_list(labels) and not isinstance(labels, Tensor):
        rows = [numbers(row, f"labels of row {place}").reshape(-1) for place, row in enumerate(labels)]
        for place, row in enumerate(rows):
            if len(row) not in (num_negatives, 1 + num_negatives) or len(row) != len(rows[0]):
                raise ValueError(f"MarginMSELoss needs {wanted}, the same for all, got {len(row)} in row {place}")
        labels = torch.stack(rows)
    values = numbers(labels, "labels")
    if values.ndim == 1:
        values = values[:, None]
    if values.shape == (num_queries, 1 + num_negatives):
        return values[:, :1] - values[:, 1:]
    if values.shape != (num_queries, num_negatives):
        raise ValueError(f"MarginMSELoss needs {wanted}, of {num_queries} queries, got shape {tuple(values.shape)}")
    return values
