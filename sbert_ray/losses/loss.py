"""What all losses over embeddings have in common.

Shapes: C columns, B rows of each, D dimensions.
"""

from abc import ABC, abstractmethod
from collections.abc import Iterable, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import ClassVar, Literal

import torch
from torch import Tensor, nn

from sbert_ray.embeddings import is_sparse
from sbert_ray.inference.prepared import Features
from sbert_ray.losses.cached import cached_value
from sbert_ray.losses.columns import MiniBatches, run_columns
from sbert_ray.losses.described import Described
from sbert_ray.losses.gathered import JointBatch, join_batches
from sbert_ray.losses.values import Value, scaled

LabelUse = Literal["none", "optional", "required"]


class Loss(Described, ABC):
    """A scalar to minimise, computed from embeddings alone.

    A subclass implements `compute`, and `compute_rows` where anchors can be taken some at a time. That is what lets
    gradient caching, gathering across workers, truncation and regularization wrap any loss. Calling a loss embeds all
    columns of a batch, in one packed forward pass where the model allows it, and computes it.

    Args:
        model: Takes features and returns them with a ``sentence_embedding`` (B, D); None for losses that are only
            computed from embeddings.
    """

    num_columns: tuple[int, int | None] = (2, None)
    """The fewest and the most columns."""
    label_use: LabelUse = "none"
    """Whether there must be labels."""
    label_hint: ClassVar[str] = "one label per row"
    """What they must be, for messages."""
    labels_are_embeddings: bool = False
    """Whether they are a teacher's embeddings."""
    by_rows: bool = False
    """Whether `compute_rows` does less work for fewer rows."""
    embeds_with_model: bool = True
    """Whether the columns' embeddings are those of the model, so that it can be run again, or up to another layer."""
    runs_model: ClassVar[bool] = False
    """Whether `forward` needs more of the model than embeddings, so that other losses cannot wrap this one."""
    needs_wrapper: ClassVar[str] = ""
    """The losses that this one must be wrapped in, if it makes no sense by itself."""
    mini_batches: MiniBatches | None = None
    """How many rows are embedded at a time, by gradient caching; None is all."""
    gather_across_devices: bool = False
    """Whether the loss is that of the batches of all workers put together."""

    @property
    def mini_batch_size(self) -> int | None:
        """Rows that are embedded at a time, by gradient caching; None is all."""
        return None if self.mini_batches is None else self.mini_batches.rows

    @property
    def mini_batch_num_tokens(self) -> int | None:
        """Tokens that are embedded at a time, instead of rows."""
        return None if self.mini_batches is None else self.mini_batches.tokens

    def __init__(self, model: nn.Module | None) -> None:
        super().__init__()
        self.model = model

    def forward(self, sentence_features: Iterable[Features], labels: Tensor | None = None) -> Value:
        """Return the loss of a batch.

        Args:
            sentence_features: Of each of C columns, as ``model.preprocess`` gives them.
            labels: What the loss needs besides, as its class says.

        Raises:
            ValueError: There are too few or too many columns, or labels are missing or of no use.
        """
        if self.needs_wrapper:
            raise ValueError(f"{type(self).__name__} cannot be used by itself; wrap it in {self.needs_wrapper}")
        columns = list(sentence_features)
        self.check(len(columns), labels)
        if self.model is None:
            raise ValueError(f"{type(self).__name__} has no model, so it can only be computed from embeddings")
        targets = self.targets(columns, labels)
        self.draw()
        return self.run(self.model, columns, targets)

    def run(self, model: nn.Module, features: Sequence[Features], labels: Tensor | None) -> Value:
        """Return the loss of features, which are of the form that it takes.

        Args:
            model: Makes of features what the loss is computed from.
            features: Of each column.
            labels: What `targets` returned.
        """
        if self.mini_batches is not None:
            return cached_value(self, model, features, labels, self.mini_batches)
        return self.value(self.embed(features), labels)

    def embed(self, features: Sequence[Features]) -> list[Tensor]:
        """Return the embeddings (B, D) of each column."""
        assert self.model is not None
        [embeddings] = run_columns(self.model, features)
        return embeddings

    def compute_loss_from_embeddings(self, embeddings: Iterable[Tensor], labels: Tensor | None = None) -> Value:
        """Return the loss of embeddings that are there already.

        Args:
            embeddings: One (B, D) tensor per column.
            labels: As in `forward`.

        Raises:
            ValueError: As `forward`, or the columns have other numbers of rows.
        """
        columns = list(embeddings)
        self.check_embeddings(columns, labels)
        self.draw()
        return self.value(columns, labels)

    @abstractmethod
    def compute(self, embeddings: Sequence[Tensor], labels: Tensor | None) -> Value:
        """Return the loss.

        Args:
            embeddings: One (B, D) tensor per column.
            labels: What `targets` returned.
        """

    def compute_rows(self, embeddings: Sequence[Tensor], labels: Tensor | None, rows: slice) -> Value:
        """Return the share of the loss that some anchors have; those of all anchors sum up to it.

        Args:
            embeddings: One (B, D) tensor per column, of the whole batch.
            labels: What `targets` returned, of the whole batch.
            rows: Which anchors.
        """
        share = (rows.stop - rows.start) / len(embeddings[0])
        return scaled(self.compute(embeddings, labels), share)

    def targets(self, features: Sequence[Features], labels: Tensor | None) -> Tensor | None:  # noqa: ARG002
        """Return what `compute` gets as labels: those of the batch, or what a guide makes of its features."""
        return labels

    def draw(self) -> None:
        """Draw what the loss leaves to chance, once for a batch, from Python's random numbers."""

    def value(self, embeddings: Sequence[Tensor], labels: Tensor | None) -> Value:
        """Return the loss of this worker's embeddings; with gathering, its share in that of all workers.

        Args:
            embeddings: One (B, D) tensor per column.
            labels: What `targets` returned.

        Raises:
            ValueError: Columns have other numbers of rows than each other.
        """
        return self.share(self.joined(embeddings, labels))

    def joined(self, embeddings: Sequence[Tensor], labels: Tensor | None) -> JointBatch:
        """Return what the loss is computed from: with gathering, the batches of all workers."""
        check_rows(embeddings)
        if labels is not None and is_sparse(labels):
            labels = labels.to_dense()
        return join_batches(embeddings, labels, gather=self.gather_across_devices)

    def share(self, batch: JointBatch, rows: slice | None = None) -> Value:
        """Return the share that anchors of this worker have in a loss, times the number of workers.

        So the mean over workers, of values and of gradients, is the loss of the joint batch.

        Args:
            batch: What `joined` returned.
            rows: Which anchors; all of this worker's if None.
        """
        # Similarities that differ in the third digit are the same in half precision, which autocast would take.
        with nullcontext() if self.runs_model else _no_autocast(batch.embeddings[0].device):
            if rows is None and batch.is_whole:
                return self.compute(batch.embeddings, batch.labels)
            value = self.compute_rows(batch.embeddings, batch.labels, batch.rows if rows is None else rows)
            return scaled(value, batch.num_workers)

    def check_embeddings(self, embeddings: Sequence[Tensor], labels: Tensor | None) -> None:
        """Make sure that embeddings, and what comes as their labels, are of the form that `compute` takes.

        Raises:
            ValueError: As `check`.
        """
        self.check(len(embeddings), labels)

    def check(self, num_columns: int, labels: Tensor | None) -> None:
        """Make sure that a batch is of the form that the loss takes.

        Raises:
            TypeError: Labels are no tensor.
            ValueError: There are too few or too many columns, or labels are missing or of no use.
        """
        name = type(self).__name__
        if labels is not None and not isinstance(labels, Tensor):
            raise TypeError(f"{name} takes labels as a tensor, got {type(labels).__name__}")
        least, most = self.num_columns
        if num_columns < least or (most is not None and num_columns > most):
            wanted = f"{least}" if most == least else f"at least {least}" if most is None else f"{least} to {most}"
            raise ValueError(f"{name} takes {wanted} column(s) of inputs, got {num_columns}")
        is_given = labels is not None and labels.numel() > 0
        if self.label_use == "required" and not is_given:
            raise ValueError(f"{name} needs labels, {self.label_hint}, got {None if labels is None else 'none'}")
        if self.label_use == "none" and is_given:
            assert labels is not None
            shape = tuple(labels.shape)
            raise ValueError(f"{name} takes no labels, got a tensor of shape {shape}; leave the label column out")


def _no_autocast(device: torch.device) -> AbstractContextManager[object]:
    return torch.autocast(device.type, enabled=False)


def check_rows(embeddings: Sequence[Tensor]) -> None:
    """Make sure that all columns have as many rows as each other, and at least one.

    Raises:
        ValueError: They have not.
    """
    sizes = [len(column) for column in embeddings]
    if len(set(sizes)) != 1 or not sizes[0]:
        raise ValueError(f"columns must have as many rows as each other, and at least one, got {sizes}")
