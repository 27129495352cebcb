"""Losses that tell a query's positive from the other documents of a batch.

Shapes: B queries, K documents of each (a positive and K - 1 negatives), n sampled in-batch negatives.
"""

from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from sbert_ray.losses.columns import MiniBatches
from sbert_ray.losses.cross_encoder.loss import Activation, CrossEncoderLoss, Pair, check_columns, is_given

SIGMOID = nn.Sigmoid()


class MultipleNegativesRankingLoss(CrossEncoderLoss):
    """Cross-entropy of finding each query's positive among some documents of the batch (InfoNCE).

    With queries q_i, their positives p_i, logits s, and C_i the documents of i and ``num_negatives`` of others::

        loss = -1/B sum_i log( exp(scale * act(s(q_i, p_i))) / sum_{c in C_i} exp(scale * act(s(q_i, c))) )

    The documents of others are drawn from all positives and negatives of the batch, without replacement and by torch's
    random numbers. Each of them is a pair to score, unlike in a loss over embeddings.

    Columns: (anchor, positive) or (anchor, positive, negative_1, ..., negative_n). Labels: none.

    Args:
        model: Scores the pairs; it must have one label.
        num_negatives: In-batch negatives of each query, at most all there are; None for all.
        scale: Inverse temperature, times what ``activation_fn`` gives.
        activation_fn: Applied to the logits.

    Raises:
        ValueError: ``num_negatives`` or ``scale`` is not positive.

    References:
        van den Oord et al. 2018, Representation Learning with Contrastive Predictive Coding, arXiv:1807.03748.
        Henderson et al. 2017, Efficient Natural Language Response Suggestion, arXiv:1705.00652.
    """

    def __init__(
        self,
        model: nn.Module,
        num_negatives: int | None = 4,
        scale: float = 10.0,
        activation_fn: Activation | None = SIGMOID,
    ) -> None:
        super().__init__(model, activation_fn)
        if num_negatives is not None and num_negatives < 1:
            raise ValueError(f"num_negatives must be positive, or None for all, got {num_negatives}")
        if scale <= 0:
            raise ValueError(f"scale must be positive, got {scale}")
        self.num_negatives = num_negatives
        self.scale = scale

    def pairs(self, inputs: Sequence[Sequence[Any]], labels: Any) -> tuple[list[Pair], Tensor]:
        """Return each query with its candidates, the positive first, and the place of the positive (B,)."""
        name = type(self).__name__
        check_columns(name, inputs, 2, None)
        if is_given(labels):
            raise ValueError(f"{name} takes no labels, got {type(labels).__name__}; leave the label column out")
        queries, documents = inputs[0], [text for column in inputs[1:] for text in column]  # (B,), (K * B,)
        own = torch.arange(len(documents)).view(-1, len(queries)).T  # (B, K): document i of each column is query i's
        candidates = torch.cat([own[:, :1], self.sample(len(queries), len(documents)), own[:, 1:]], dim=1)
        pairs = [(queries[row], documents[place]) for row, places in enumerate(candidates.tolist()) for place in places]
        return pairs, torch.zeros(len(queries), dtype=torch.int64)

    def sample(self, num_queries: int, num_documents: int) -> Tensor:
        """Return which documents of others are each query's negatives (B, n), drawn without replacement.

        Args:
            num_queries: B.
            num_documents: K * B, where document d is one of query d % B.
        """
        is_other = torch.arange(num_documents) % num_queries != torch.arange(num_queries)[:, None]  # (B, K * B)
        num_others = num_documents - num_documents // num_queries
        if self.num_negatives is None or self.num_negatives >= num_others:
            return is_other.nonzero()[:, 1].view(num_queries, num_others)
        return torch.multinomial(is_other.float(), self.num_negatives)

    def compute(self, logits: Tensor, labels: Tensor) -> Tensor:
        """Return the mean over the queries."""
        return F.cross_entropy(logits.view(len(labels), -1) * self.scale, labels.to(logits.device))


class CachedMultipleNegativesRankingLoss(MultipleNegativesRankingLoss):
    """`MultipleNegativesRankingLoss` of batches of any size: its activations are those of one mini-batch.

    Value and gradients are the same; the price is a second forward pass.

    Columns: (anchor, positive) or (anchor, positive, negative_1, ..., negative_n). Labels: none.

    Args:
        model: Scores the pairs; it must have one label.
        num_negatives: In-batch negatives of each query, at most all there are; None for all.
        scale: Inverse temperature, times what ``activation_fn`` gives.
        activation_fn: Applied to the logits.
        mini_batch_size: Pairs that are scored at a time.
        show_progress_bar: Whether to show the mini-batches.

    Raises:
        ValueError: ``num_negatives``, ``scale`` or ``mini_batch_size`` is not positive.

    References:
        Gao et al. 2021, Scaling Deep Contrastive Learning Batch Size under Memory Limited Setup, arXiv:2101.06983.
    """

    def __init__(
        self,
        model: nn.Module,
        num_negatives: int | None = 4,
        scale: float = 10.0,
        activation_fn: Activation | None = SIGMOID,
        mini_batch_size: int = 32,
        show_progress_bar: bool = False,
    ) -> None:
        super().__init__(model, num_negatives, scale, activation_fn)
        self.mini_batch_size = mini_batch_size
        self.mini_batches = MiniBatches(mini_batch_size, show_progress_bar=show_progress_bar)
