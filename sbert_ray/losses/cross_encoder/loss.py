"""What the losses of cross-encoders have in common.

Shapes: B rows of a batch, N pairs of texts that they make, K labels of the model.
"""

import reprlib
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from sbert_ray.inference.engine import to_device
from sbert_ray.inference.prepared import Features
from sbert_ray.losses.cached import cached_value
from sbert_ray.losses.columns import MiniBatches, inner_model, run_columns
from sbert_ray.losses.described import Described
from sbert_ray.losses.gathered import JointBatch
from sbert_ray.losses.values import total

Activation = Callable[[Tensor], Tensor]
Pair = tuple[Any, Any]
IDENTITY = nn.Identity()


class CrossEncoderLoss(Described, ABC):
    """A scalar to minimise, computed from the logits of pairs of texts alone.

    A subclass says in `pairs` which pairs a batch of raw texts has, and in `compute` what the loss of their logits is.
    Calling it tokenizes the pairs and runs them, those of like length together; with ``mini_batches`` it does so by
    gradient caching, so that the activations of one mini-batch are in memory at a time, for any loss.

    Args:
        model: A cross-encoder: ``preprocess`` makes features of pairs, and calling it adds ``scores`` (N, K) to them,
            before any activation.
        activation_fn: Applied to the logits; None for nothing.

    Raises:
        ValueError: The model is no cross-encoder, or gives several labels where the loss needs one.
    """

    model: nn.Module
    by_rows = False  # no share of such a loss is less work than all of it
    needs_one_label: ClassVar[bool] = True
    """Whether the model must give one score for a pair."""
    mini_batches: MiniBatches | None = None
    """How many pairs are scored at a time, by gradient caching; None is no caching."""

    def __init__(self, model: nn.Module, activation_fn: Activation | None = IDENTITY) -> None:
        super().__init__()
        name, inner = type(self).__name__, inner_model(model)
        if not hasattr(inner, "preprocess") or not hasattr(inner, "num_labels"):
            raise ValueError(f"{name} needs a CrossEncoder, got {type(model).__name__}")
        if self.needs_one_label and inner.num_labels != 1:
            raise ValueError(f"{name} needs a model with 1 label, got one with {inner.num_labels}")
        self.model = model
        self.activation_fn = IDENTITY if activation_fn is None else activation_fn

    def forward(
        self, inputs: Sequence[Sequence[Any]], labels: Any = None, prompt: str | None = None, task: str | None = None
    ) -> Tensor:
        """Return the loss of a batch.

        Args:
            inputs: Columns of B texts each, or what else the class says.
            labels: What the loss needs besides, as its class says.
            prompt: Put before the first text of each pair.
            task: Passed on to ``model.preprocess``, for models with a Router.

        Raises:
            TypeError: Columns or labels are not of the kind that they must be.
            ValueError: There are too few or too many of them.
        """
        pairs, targets = self.pairs(inputs, labels)
        inner = inner_model(self.model)
        features = to_device(inner.preprocess(pairs, prompt, task=task), inner.device)
        if self.mini_batches is not None:
            return total(cached_value(self, self.model, [features], targets, self.mini_batches, "scores"))
        return self.value(self._scores(features, len(pairs), self.pairs_at_once(len(inputs[0]))), targets)

    @abstractmethod
    def pairs(self, inputs: Sequence[Sequence[Any]], labels: Any) -> tuple[list[Pair], Any]:
        """Return the pairs to score, and what `compute` gets as labels.

        Args:
            inputs: As in `forward`.
            labels: As in `forward`.

        Raises:
            TypeError: As in `forward`.
            ValueError: As in `forward`.
        """

    @abstractmethod
    def compute(self, logits: Tensor, labels: Any) -> Tensor:
        """Return the loss.

        Args:
            logits: Of the pairs, after the activation: (N,), or (N, K) where the model may have several labels.
            labels: What `pairs` returned.
        """

    def pairs_at_once(self, num_rows: int) -> int | None:
        """Return how many pairs share a forward pass, which changes no value; None for all."""
        return num_rows

    def value(self, scores: Tensor, labels: Any) -> Tensor:
        """Return the loss of the scores (N, K) that the model gives."""
        logits = scores.reshape(len(scores), -1)  # some models leave a single label's dimension out
        return self.compute(self.activation_fn(logits[:, 0] if self.needs_one_label else logits), labels)

    def joined(self, embeddings: Sequence[Tensor], labels: Any) -> JointBatch:
        """Return what caching asks for: the scores are all there is."""
        return JointBatch(embeddings, labels, slice(0, len(embeddings[0])))

    def share(self, batch: JointBatch, rows: slice | None = None) -> Tensor:  # noqa: ARG002
        """Return the loss of a batch that `joined` returned."""
        return self.value(batch.embeddings[0], batch.labels)

    def _scores(self, features: Features, num_pairs: int, at_once: int | None) -> Tensor:
        """Return the scores (N, K) in the order of the pairs, float32 at least."""
        mini_batches = None if at_once is None or at_once >= num_pairs else MiniBatches(at_once)
        [[scores]] = run_columns(self.model, [features], ("scores",), mini_batches)
        return scores


def check_columns(
    name: str, inputs: Sequence[Sequence[Any]], least: int, most: int | None, of_texts: int | None = None
) -> None:
    """Make sure that there are as many columns as a loss takes, and as many rows of texts in each, at least one.

    Args:
        name: The loss, for messages.
        inputs: The columns.
        least: The fewest columns.
        most: The most columns, or None.
        of_texts: How many of the columns, from the first, hold texts; all if None.

    Raises:
        TypeError: A column is no list, or holds something else.
        ValueError: There are not as many columns or rows.
    """
    if len(inputs) < least or (most is not None and len(inputs) > most):
        wanted = f"{least}" if most == least else f"at least {least}"
        raise ValueError(f"{name} takes {wanted} columns of inputs, got {len(inputs)}")
    for place, column in enumerate(inputs):
        if not is_list(column):
            raise TypeError(f"{name} takes lists of texts as columns, got {type(column).__name__} as column {place}")
    sizes = [len(column) for column in inputs]
    if len(set(sizes)) != 1 or not sizes[0]:
        raise ValueError(f"columns must have as many rows as each other, and at least one, got {sizes}")
    for place, column in enumerate(inputs[:of_texts]):
        check_texts(name, column, f"row {{}} of column {place}")


def check_texts(name: str, values: Sequence[Any], where: str) -> None:
    """Make sure that values are texts.

    Args:
        name: The loss, for messages.
        values: The values.
        where: Which of them a value is, with ``{}`` for its place among them.

    Raises:
        TypeError: One is something else.
    """
    for place, value in enumerate(values):
        if not isinstance(value, str):
            raise TypeError(f"{name} takes texts, got {type(value).__name__} as {where.format(place)}")


def is_list(values: Any) -> bool:
    """Return whether something is a list, a tuple, an array or the like, and no text."""
    if isinstance(values, (str, bytes, dict)) or getattr(values, "ndim", 1) == 0:
        return False
    return hasattr(values, "__len__") and hasattr(values, "__getitem__")


def is_given(labels: Any) -> bool:
    """Return whether there are labels; a trainer may give an empty tensor for none."""
    if isinstance(labels, Tensor):
        return labels.numel() > 0
    return labels is not None and not (is_list(labels) and not len(labels))


def numbers(values: Any, what: str) -> Tensor:
    """Return numbers, in a tensor, a list or an array, as a tensor.

    Args:
        values: The numbers.
        what: What they are, for messages.

    Raises:
        TypeError: They are no numbers, or no rows of as many.
    """
    try:
        return torch.as_tensor(values)
    except (TypeError, ValueError, RuntimeError) as error:
        raise TypeError(f"{what} must be numbers, got {reprlib.repr(values)}") from error
