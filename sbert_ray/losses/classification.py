"""The loss of a classifier of pairs.

Shapes: B rows, D dimensions, K classes.
"""

from collections.abc import Callable, Iterable, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from sbert_ray.inference.prepared import Features
from sbert_ray.losses.columns import run_columns
from sbert_ray.losses.labels import classes_per_row
from sbert_ray.losses.loss import Loss
from sbert_ray.losses.weights import linear_for


class SoftmaxLoss(Loss):
    """Classify pairs by a linear layer over both embeddings, which is trained along and then thrown away.

    With u and v the embeddings of a pair, ``|`` what puts vectors together, and y_i the class of pair i::

        loss = 1/B sum_i -log softmax( W [u_i | v_i | |u_i - v_i|] + b )[y_i]

    Losses that compare embeddings as they will be compared later, such as `MultipleNegativesRankingLoss`, are usually
    better.

    Columns: (sentence_A, sentence_B). Labels: class, or the probability of each class.

    Args:
        model: Embeds the columns.
        embedding_dimension: D.
        num_labels: K.
        concatenation_sent_rep: Whether the classifier sees u and v.
        concatenation_sent_difference: Whether it sees ``|u - v|``.
        concatenation_sent_multiplication: Whether it sees ``u * v``.
        loss_fct: Compares logits (B, K) with labels.

    Raises:
        ValueError: The classifier would see nothing.

    References:
        Conneau et al. 2017, InferSent, arXiv:1705.02364.
        Reimers and Gurevych 2019, Sentence-BERT, arXiv:1908.10084.
    """

    num_columns = (2, 2)
    label_use = "optional"
    label_hint = "one class per pair"

    def __init__(
        self,
        model: nn.Module | None,
        embedding_dimension: int,
        num_labels: int,
        concatenation_sent_rep: bool = True,
        concatenation_sent_difference: bool = True,
        concatenation_sent_multiplication: bool = False,
        loss_fct: Callable[[Tensor, Tensor], Tensor] = nn.CrossEntropyLoss(),  # noqa: B008 (it has no state)
    ) -> None:
        super().__init__(model)
        num_parts = 2 * concatenation_sent_rep + concatenation_sent_difference + concatenation_sent_multiplication
        if not num_parts:
            raise ValueError("one of the concatenation_sent_* arguments must be True, got none")
        self.embedding_dimension = embedding_dimension
        self.num_labels = num_labels
        self.concatenation_sent_rep = concatenation_sent_rep
        self.concatenation_sent_difference = concatenation_sent_difference
        self.concatenation_sent_multiplication = concatenation_sent_multiplication
        self.loss_fct = loss_fct
        self.classifier = linear_for(model, num_parts * embedding_dimension, num_labels)

    def forward(self, sentence_features: Iterable[Features], labels: Tensor | None = None) -> Any:
        """Return the loss of a batch; without labels the embeddings of both columns and the logits (B, K).

        Args:
            sentence_features: Of both columns, as ``model.preprocess`` gives them.
            labels: One class per pair (B,), or probabilities (B, K).

        Raises:
            ValueError: There are not two columns, or labels are of no use.
        """
        if labels is not None:
            return super().forward(sentence_features, labels)
        columns = list(sentence_features)
        self.check(len(columns), None)
        assert self.model is not None
        [embeddings] = run_columns(self.model, columns)
        return embeddings, self.logits(embeddings)

    def compute(self, embeddings: Sequence[Tensor], labels: Tensor | None) -> Tensor:
        """Return what ``loss_fct`` makes of the logits and the labels."""
        if labels is None:
            raise ValueError(f"SoftmaxLoss needs labels, {self.label_hint}, got None")
        targets = self._targets(labels, len(embeddings[0]))
        logits = self.logits(embeddings)
        return self.loss_fct(logits, targets.to(logits.device))

    def logits(self, embeddings: Sequence[Tensor]) -> Tensor:
        """Return the logits (B, K) of the pairs of two columns."""
        u, v = embeddings
        parts = [u, v] if self.concatenation_sent_rep else []
        if self.concatenation_sent_difference:
            parts.append((u - v).abs())
        if self.concatenation_sent_multiplication:
            parts.append(u * v)
        logits: Tensor = self.classifier(torch.cat(parts, dim=1))
        return logits

    def _targets(self, labels: Tensor, num_rows: int) -> Tensor:
        if labels.is_floating_point() and labels.shape == (num_rows, self.num_labels):
            return labels.to(self.classifier.weight.dtype)
        classes = classes_per_row(labels, num_rows, "SoftmaxLoss").long()
        ignored = getattr(self.loss_fct, "ignore_index", 0)
        is_known = ((classes >= 0) & (classes < self.num_labels)) | (classes == ignored)
        if wrong := torch.unique(classes[~is_known]).tolist():
            raise ValueError(f"SoftmaxLoss needs classes from 0 to {self.num_labels - 1}, got {wrong[:3]}")
        return classes

    def get_config_dict(self) -> dict[str, Any]:
        """Return the number of classes, and what the classifier sees."""
        unsaid = ("embedding_dimension", "loss_fct")
        return {name: value for name, value in super().get_config_dict().items() if name not in unsaid}
