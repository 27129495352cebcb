"""A margin loss with the hardest negative of a large batch.

Shapes: B pairs, D dimensions, R anchors of `rows`.
"""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from sbert_ray.losses.columns import MiniBatches
from sbert_ray.losses.loss import Loss
from sbert_ray.similarity import cos_sim


class MegaBatchMarginLoss(Loss):
    """Margins for the cosines of each anchor with its positive, and with the hardest of all other positives.

        loss = 1/B sum_i relu(m_p - cos(a_i, p_i)) + relu(max_{j != i} cos(a_i, p_j) - m_n)

    Batches should be large, 500 pairs and more, so that hard negatives are among them.

    Columns: (anchor, positive). Labels: none.

    Args:
        model: Embeds the columns.
        positive_margin: m_p.
        negative_margin: m_n.
        use_mini_batched_version: Whether activations are those of one mini-batch, by gradient caching.
        mini_batch_size: Rows that are embedded at a time then.
        mini_batch_num_tokens: Tokens that are embedded at a time then, instead of rows.
        show_progress_bar: Whether to show the mini-batches.

    References:
        Wieting and Gimpel 2018, ParaNMT-50M, doi:10.18653/v1/P18-1042.
    """

    num_columns = (2, 2)
    by_rows = True

    def __init__(
        self,
        model: nn.Module | None,
        positive_margin: float = 0.8,
        negative_margin: float = 0.3,
        use_mini_batched_version: bool = True,
        mini_batch_size: int = 50,
        mini_batch_num_tokens: int | None = None,
        show_progress_bar: bool = False,
    ) -> None:
        super().__init__(model)
        self.positive_margin = positive_margin
        self.negative_margin = negative_margin
        self.use_mini_batched_version = use_mini_batched_version
        if use_mini_batched_version:
            self.mini_batches = MiniBatches(mini_batch_size, mini_batch_num_tokens, show_progress_bar)

    def compute(self, embeddings: Sequence[Tensor], labels: Tensor | None) -> Tensor:
        """Return the mean over the anchors."""
        return self.compute_rows(embeddings, labels, slice(0, len(embeddings[0])))

    def compute_rows(self, embeddings: Sequence[Tensor], labels: Tensor | None, rows: slice) -> Tensor:  # noqa: ARG002
        """Return the share of the anchors ``rows`` in the mean."""
        anchors, positives = embeddings
        scores = cos_sim(anchors[rows], positives)  # (R, B)
        own = torch.arange(rows.start, rows.stop, device=scores.device)[:, None]  # (R, 1)
        positive = scores.gather(1, own)[:, 0]
        hardest = scores.scatter(1, own, float("-inf")).amax(1)  # -inf where a pair is alone, and costs nothing
        losses = (self.positive_margin - positive).relu() + (hardest - self.negative_margin).relu()
        return losses.sum() / len(anchors)
