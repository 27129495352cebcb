"""Losses of pairs of texts by themselves.

Shapes: N pairs, K labels of the model.
"""

from collections.abc import Sequence
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from sbert_ray.losses.columns import inner_model
from sbert_ray.losses.cross_encoder.loss import (
    IDENTITY,
    Activation,
    CrossEncoderLoss,
    Pair,
    check_columns,
    is_given,
    numbers,
)
from sbert_ray.losses.labels import labels_per_row


class PointwiseLoss(CrossEncoderLoss):
    """The loss that torch has for logits and labels, of pairs of texts.

    Args:
        model: Scores the pairs.
        activation_fn: Applied to the logits.
        loss_fct: Takes logits and labels.
    """

    label_hint: ClassVar[str] = "a score for each pair"

    def __init__(self, model: nn.Module, activation_fn: Activation | None, loss_fct: nn.Module) -> None:
        super().__init__(model, activation_fn)
        self.loss_fct = loss_fct

    def pairs(self, inputs: Sequence[Sequence[Any]], labels: Any) -> tuple[list[Pair], Tensor]:
        """Return the rows of both columns."""
        name = type(self).__name__
        check_columns(name, inputs, 2, 2)
        if not is_given(labels):
            raise ValueError(f"{name} needs labels, {self.label_hint}, got none")
        return list(zip(*inputs, strict=True)), self.targets(numbers(labels, "labels"), len(inputs[0]))

    def targets(self, labels: Tensor, num_pairs: int) -> Tensor:
        """Return labels of N pairs as the loss takes them.

        Raises:
            ValueError: They are not of the right shape or value.
        """
        return labels_per_row(labels, num_pairs, type(self).__name__)

    def compute(self, logits: Tensor, labels: Tensor) -> Tensor:
        """Return the mean over the pairs."""
        value: Tensor = self.loss_fct(logits, labels.to(logits))
        return value


class BinaryCrossEntropyLoss(PointwiseLoss):
    """Cross-entropy of whether the texts of a pair belong together.

    With logits s_i and labels y_i::

        loss = -1/N sum_i ( pos_weight * y_i * log(sigmoid(s_i)) + (1 - y_i) * log(1 - sigmoid(s_i)) )

    A strong and simple choice for rerankers, with mined hard negatives; with m negatives for each positive,
    ``pos_weight=torch.tensor(m)`` makes both weigh the same.

    Columns: (query, document). Labels: score from 0 to 1.

    Args:
        model: Scores the pairs; it must have one label.
        activation_fn: Applied to the logits, before the sigmoid of the loss.
        pos_weight: The weight of positives.
        kwargs: Passed on to ``torch.nn.BCEWithLogitsLoss``.
    """

    def __init__(
        self,
        model: nn.Module,
        activation_fn: Activation | None = IDENTITY,
        pos_weight: Tensor | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(model, activation_fn, nn.BCEWithLogitsLoss(pos_weight=pos_weight, **kwargs))

    @property
    def pos_weight(self) -> Tensor | None:
        """The weight of positives."""
        weight: Tensor | None = self.loss_fct.pos_weight  # type: ignore[assignment]  # where buffers are
        return weight


class CrossEntropyLoss(PointwiseLoss):
    """Cross-entropy of the class that a pair of texts belongs to.

    With logits s_ik and classes y_i::

        loss = -1/N sum_i log( exp(s_iy_i) / sum_k exp(s_ik) )

    Columns: (query, document). Labels: class.

    Args:
        model: Scores the pairs; it has a label for each class.
        activation_fn: Applied to the logits, before the softmax of the loss.
        kwargs: Passed on to ``torch.nn.CrossEntropyLoss``.
    """

    needs_one_label = False
    label_hint = "a class for each pair"

    def __init__(self, model: nn.Module, activation_fn: Activation | None = IDENTITY, **kwargs: Any) -> None:
        super().__init__(model, activation_fn, nn.CrossEntropyLoss(**kwargs))
        self.num_classes: int = inner_model(model).num_labels

    def targets(self, labels: Tensor, num_pairs: int) -> Tensor:
        """Return classes (N,), or probabilities of all classes (N, K) as they are."""
        if labels.is_floating_point():
            if labels.shape != (num_pairs, self.num_classes):
                wanted = f"integers, or probabilities of shape {(num_pairs, self.num_classes)}"
                raise ValueError(f"classes must be {wanted}, got {labels.dtype} of shape {tuple(labels.shape)}")
            return labels
        classes = super().targets(labels, num_pairs).long()
        known = (classes >= 0) & (classes < self.num_classes) | (classes == self.loss_fct.ignore_index)
        if not known.all():
            row = int((~known).nonzero()[0])
            raise ValueError(f"classes must be from 0 to {self.num_classes - 1}, got {int(classes[row])} in row {row}")
        return classes

    def compute(self, logits: Tensor, labels: Tensor) -> Tensor:
        """Return the mean over the pairs."""
        dtype = logits.dtype if labels.is_floating_point() else torch.int64
        value: Tensor = self.loss_fct(logits, labels.to(logits.device, dtype))
        return value


class MSELoss(PointwiseLoss):
    """Squared difference of scores and labels, such as those of a teacher.

    With logits s_i and labels y_i::

        loss = 1/N sum_i (s_i - y_i)^2

    Columns: (query, document). Labels: score.

    Args:
        model: Scores the pairs; it must have one label.
        activation_fn: Applied to the logits.
        kwargs: Passed on to ``torch.nn.MSELoss``.

    References:
        Hofstaetter et al. 2020, Improving Efficient Neural Ranking Models with Cross-Architecture Knowledge
        Distillation, arXiv:2010.02666.
    """

    def __init__(self, model: nn.Module, activation_fn: Activation | None = IDENTITY, **kwargs: Any) -> None:
        super().__init__(model, activation_fn, nn.MSELoss(**kwargs))
