"""Losses that put pairs in the order of their gold scores.

Shapes: B rows, P pairs of all rows, D dimensions.
"""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from sbert_ray.losses.labels import scores_per_row
from sbert_ray.losses.loss import LabelUse, Loss
from sbert_ray.similarity import Similarity, pairwise_angle_sim, pairwise_cos_sim


class CoSENTLoss(Loss):
    """Rank the pairs of a batch by similarity in the order of their gold scores (Consistent SENTence embedding).

    With s_i the scaled similarity of pair i and y_i its gold score::

        loss = log( 1 + sum_{(i, j): y_i < y_j} exp(s_i - s_j) )

    Only the order of the scores matters, as in Spearman's correlation, so they may be on any scale, and pairs of equal
    scores ask for nothing. More rows give many more pairs of pairs, at a cost of O(B log B).

    Columns: (sentence_A, sentence_B). Labels: similarity score.

    Args:
        model: Embeds the columns.
        scale: Inverse temperature of the similarities.
        similarity_fct: Similarity of row i with row i, such as ``pairwise_cos_sim``.

    Raises:
        ValueError: ``scale`` is not positive.

    References:
        Huang et al. 2024, CoSENT: Consistent Sentence Embedding via Similarity Ranking, doi:10.1109/TASLP.2024.3402087.
    """

    num_columns: tuple[int, int | None] = (2, 2)
    label_use: LabelUse = "required"
    label_hint = "one score per pair"

    def __init__(
        self, model: nn.Module | None, scale: float = 20.0, similarity_fct: Similarity = pairwise_cos_sim
    ) -> None:
        super().__init__(model)
        if scale <= 0:
            raise ValueError(f"scale must be positive, got {scale}")
        self.scale = scale
        self.similarity_fct = similarity_fct

    def compute(self, embeddings: Sequence[Tensor], labels: Tensor | None) -> Tensor:
        """Return the loss over all pairs of pairs of different scores."""
        assert labels is not None
        a, b = embeddings
        return self.ranked(self.similarity_fct(a, b), scores_per_row(labels, len(a), type(self).__name__))

    def ranked(self, similarities: Tensor, labels: Tensor) -> Tensor:
        """Return the loss of the similarities (P,) of pairs and of their gold scores (P,)."""
        labels, order = labels.to(similarities.device).sort()
        logits = similarities[order] * self.scale  # those of lower scores come first
        lower = torch.cat([logits.new_full((1,), float("-inf")), logits.logcumsumexp(0)])  # log sum_i exp(s_i) of them
        num_lower = torch.searchsorted(labels, labels)  # equal scores are not lower
        terms = lower[num_lower] - logits  # of every j, log sum_{i: y_i < y_j} exp(s_i - s_j)
        return torch.cat([logits.new_zeros(1), terms]).logsumexp(0)  # exp(0) is the 1 of the formula


class AnglELoss(CoSENTLoss):
    """`CoSENTLoss` of angles of embeddings as complex numbers, whose gradients do not vanish where cosines are flat.

    Rows of more than two columns are pairs of the anchor with its positive, and with each of its negatives; their
    scores are y and 1 - y, with y = 1 for rows without labels.

    Columns: (sentence_A, sentence_B) or (anchor, positive, negative_1, ..., negative_n). Labels: similarity score; or
    similarity score of the positive, or none.

    Args:
        model: Embeds the columns.
        scale: Inverse temperature of the similarities.

    References:
        Li and Li 2023, AnglE-optimized Text Embeddings, arXiv:2309.12871.
    """

    num_columns = (2, None)
    label_use = "optional"

    def __init__(self, model: nn.Module | None, scale: float = 20.0) -> None:
        super().__init__(model, scale, pairwise_angle_sim)

    def check(self, num_columns: int, labels: Tensor | None) -> None:
        """Make sure that a batch is of the form that the loss takes.

        Raises:
            ValueError: There are too few columns, or pairs come without labels.
        """
        super().check(num_columns, labels)
        if num_columns == 2 and labels is None:
            raise ValueError(f"AnglELoss needs labels, {self.label_hint}, for 2 columns, got None")

    def compute(self, embeddings: Sequence[Tensor], labels: Tensor | None) -> Tensor:
        """Return the loss over all pairs of pairs of different scores."""
        anchors, *others = embeddings
        if labels is None:
            labels = torch.ones(len(anchors), device=anchors.device)
        labels = scores_per_row(labels, len(anchors), "AnglELoss")
        scores = torch.cat([labels, *(1 - labels for _ in others[1:])])
        return self.ranked(torch.cat([self.similarity_fct(anchors, other) for other in others]), scores)

    def get_config_dict(self) -> dict[str, Any]:
        """Return the scale and the name of the similarity."""
        return {"scale": self.scale, "similarity_fct": self.similarity_fct.__name__}
