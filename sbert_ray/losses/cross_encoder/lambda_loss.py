"""Losses of the pairs of documents of a query that may be the wrong way round.

Shapes: B queries, M documents of the longest list.
"""

import math
from abc import abstractmethod
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from sbert_ray.losses.cross_encoder.listwise import ListwiseLoss
from sbert_ray.losses.cross_encoder.loss import IDENTITY, Activation


class WeightingScheme(nn.Module):
    """What each pair of documents, in the order of their scores, weighs in `LambdaLoss`."""

    needs_order = True
    """Whether only pairs count of which the first document has the higher label."""

    @abstractmethod
    def forward(self, gain: Tensor, discount: Tensor, true_sorted: Tensor) -> Tensor:
        """Return the weights of pairs (i, j), as (B, M, M) or what broadcasts to it.

        Args:
            gain: Of the documents (B, M), where the best ranking's sum of gain / discount is 1.
            discount: Of the ranks (1, M).
            true_sorted: Labels (B, M), those below 0 as 0.
        """


class NoWeightingScheme(WeightingScheme):
    """All pairs weigh the same: this is RankNet.

    References:
        Burges et al. 2005, Learning to Rank using Gradient Descent, doi:10.1145/1102351.1102363.
    """

    def forward(self, gain: Tensor, discount: Tensor, true_sorted: Tensor) -> Tensor:  # noqa: ARG002
        """Return 1."""
        return gain.new_ones(())


class NDCGLoss1Scheme(WeightingScheme):
    """Pairs weigh what their first document adds to the NDCG; all pairs count, whatever their labels.

    References:
        Wang et al. 2018, The LambdaLoss Framework for Ranking Metric Optimization, doi:10.1145/3269206.3271784.
    """

    needs_order = False

    def forward(self, gain: Tensor, discount: Tensor, true_sorted: Tensor) -> Tensor:  # noqa: ARG002
        """Return gain_i / discount_i (B, M, 1)."""
        return (gain / discount)[:, :, None]


class NDCGLoss2Scheme(WeightingScheme):
    """Pairs weigh what their distance in ranks could do to the NDCG, a tighter bound than `NDCGLoss1Scheme`.

    References:
        Wang et al. 2018, The LambdaLoss Framework for Ranking Metric Optimization, doi:10.1145/3269206.3271784.
    """

    def forward(self, gain: Tensor, discount: Tensor, true_sorted: Tensor) -> Tensor:  # noqa: ARG002
        """Return abs(1 / discount_d - 1 / discount_(d + 1)) * abs(gain_i - gain_j), where d is abs(i - j)."""
        ranks = torch.arange(gain.shape[1], device=gain.device)
        distances = (ranks[:, None] - ranks).abs()  # (M, M)
        steps = F.pad(discount[0].reciprocal().diff().abs(), (1, 0))  # (M,): of a distance; none of 0
        return steps[distances] * _differences(gain)


class LambdaRankScheme(WeightingScheme):
    """Pairs weigh what swapping them does to the NDCG.

    References:
        Wang et al. 2018, The LambdaLoss Framework for Ranking Metric Optimization, doi:10.1145/3269206.3271784.
        Burges et al. 2006, Learning to Rank with Nonsmooth Cost Functions, NIPS.
    """

    def forward(self, gain: Tensor, discount: Tensor, true_sorted: Tensor) -> Tensor:  # noqa: ARG002
        """Return abs(1 / discount_i - 1 / discount_j) * abs(gain_i - gain_j)."""
        return _differences(discount.reciprocal()) * _differences(gain)


class NDCGLoss2PPScheme(WeightingScheme):
    """Pairs weigh ``mu`` times what `NDCGLoss2Scheme` gives, and what `LambdaRankScheme` gives.

    Args:
        mu: The weight of the former.

    References:
        Wang et al. 2018, The LambdaLoss Framework for Ranking Metric Optimization, doi:10.1145/3269206.3271784.
    """

    def __init__(self, mu: float = 10.0) -> None:
        super().__init__()
        self.mu = mu
        self.ndcg_loss2 = NDCGLoss2Scheme()
        self.lambda_rank = LambdaRankScheme()

    def forward(self, gain: Tensor, discount: Tensor, true_sorted: Tensor) -> Tensor:
        """Return the weighted sum (B, M, M)."""
        loose: Tensor = self.ndcg_loss2(gain, discount, true_sorted)
        tight: Tensor = self.lambda_rank(gain, discount, true_sorted)
        return self.mu * loose + tight


def _differences(values: Tensor) -> Tensor:
    return (values[:, :, None] - values[:, None, :]).abs()


NDCG_LOSS_2PP = NDCGLoss2PPScheme()


class LambdaLoss(ListwiseLoss):
    """Likelihood of the right order of pairs of documents, which weigh what they mean to a ranking metric.

    With documents in the order of their logits s, labels y, gain (2^y - 1) / maxDCG, discount log2(1 + rank), and the
    pairs P of all queries with y_i > y_j, of which one is among the first k::

        loss = -1/|P| sum_{(i, j) in P} weight_ij * log( sigmoid(sigma * (s_i - s_j)) )

    Columns: (query, [document_1, ..., document_n]). Labels: [score_1, ..., score_n].

    Args:
        model: Scores the pairs; it must have one label.
        weighting_scheme: Gives the weights; None for 1 each.
        k: Ranks that the metric looks at; all if None.
        sigma: How steep the sigmoid is.
        eps: The least maxDCG, so that labels of 0 do no harm.
        reduction_log: ``natural`` or ``binary``, which logarithm.
        activation_fn: Applied to the logits.
        mini_batch_size: Pairs that share a forward pass, which changes no value; as many as there are queries if None,
            all if not positive.

    Raises:
        ValueError: An argument is not positive, or not among its choices.

    References:
        Wang et al. 2018, The LambdaLoss Framework for Ranking Metric Optimization, doi:10.1145/3269206.3271784.
    """

    def __init__(
        self,
        model: nn.Module,
        weighting_scheme: WeightingScheme | None = NDCG_LOSS_2PP,
        k: int | None = None,
        sigma: float = 1.0,
        eps: float = 1e-10,
        reduction_log: Literal["natural", "binary"] = "binary",
        activation_fn: Activation | None = IDENTITY,
        mini_batch_size: int | None = None,
    ) -> None:
        super().__init__(model, activation_fn, mini_batch_size)
        if k is not None and k < 1:
            raise ValueError(f"k must be positive, or None for all ranks, got {k}")
        for name, value in (("sigma", sigma), ("eps", eps)):
            if value <= 0:
                raise ValueError(f"{name} must be positive, got {value}")
        if reduction_log not in ("natural", "binary"):
            raise ValueError(f"reduction_log must be 'natural' or 'binary', got {reduction_log!r}")
        self.weighting_scheme = NoWeightingScheme() if weighting_scheme is None else weighting_scheme
        self.k = k
        self.sigma = sigma
        self.eps = eps
        self.reduction_log = reduction_log

    def compute_lists(self, logits: Tensor, labels: Tensor, mask: Tensor) -> Tensor:
        """Return the mean over the pairs that count, of all queries; 0 if there are none."""
        order = logits.argsort(dim=1, descending=True, stable=True)  # what is no document is last
        logits, labels = logits.gather(1, order), labels.gather(1, order)
        discount = torch.arange(2, labels.shape[1] + 2, device=labels.device, dtype=labels.dtype).log2()[None]  # (1, M)
        weights: Tensor = self.weighting_scheme(self._gain(labels, discount), discount, labels.clamp(min=0))
        counts = self._counts(labels, mask)  # (B, M, M)
        margins = (logits[:, :, None] - logits[:, None, :])[counts]
        losses = -F.logsigmoid(self.sigma * margins) * weights.expand_as(counts)[counts]
        mean = losses.sum() / max(len(losses), 1)
        return mean / math.log(2) if self.reduction_log == "binary" else mean

    def _counts(self, labels: Tensor, mask: Tensor) -> Tensor:
        """Return whether pairs (i, j) count (B, M, M)."""
        counts = mask[:, :, None] & mask[:, None, :]
        if getattr(self.weighting_scheme, "needs_order", True):
            counts = counts & (labels[:, :, None] > labels[:, None, :])
        if self.k is not None:
            is_first = torch.arange(labels.shape[1], device=labels.device) < self.k
            counts = counts & (is_first[:, None] | is_first)
        return counts

    def _gain(self, labels: Tensor, discount: Tensor) -> Tensor:
        """Return (2^y - 1) / maxDCG (B, M), both times 2^-top, the highest label's, as 2^y may be infinite."""
        labels = labels.clamp(min=0)
        top: Tensor = labels.amax(1, keepdim=True)
        gain: Tensor = torch.exp2(labels - top) - torch.exp2(-top)
        best: Tensor = (gain.sort(dim=1, descending=True).values / discount)[:, : self.k].sum(1, keepdim=True)
        return gain / torch.maximum(best, torch.exp2(-top) * self.eps)  # where the latter is 0, best is about 1 or more


class RankNetLoss(LambdaLoss):
    """Likelihood of the right order of pairs of documents, which all weigh the same.

    With logits s, labels y, and the pairs P of all queries with y_i > y_j::

        loss = -1/|P| sum_{(i, j) in P} log( sigmoid(sigma * (s_i - s_j)) )

    Columns: (query, [document_1, ..., document_n]). Labels: [score_1, ..., score_n].

    Args:
        model: Scores the pairs; it must have one label.
        k: Of each pair one document must be among as many with the highest scores; all count if None.
        sigma: How steep the sigmoid is.
        eps: Of no use here.
        reduction_log: ``natural`` or ``binary``, which logarithm.
        activation_fn: Applied to the logits.
        mini_batch_size: Pairs that share a forward pass, which changes no value; as many as there are queries if None,
            all if not positive.

    Raises:
        ValueError: An argument is not positive, or not among its choices.

    References:
        Burges et al. 2005, Learning to Rank using Gradient Descent, doi:10.1145/1102351.1102363.
    """

    def __init__(
        self,
        model: nn.Module,
        k: int | None = None,
        sigma: float = 1.0,
        eps: float = 1e-10,
        reduction_log: Literal["natural", "binary"] = "binary",
        activation_fn: Activation | None = IDENTITY,
        mini_batch_size: int | None = None,
    ) -> None:
        super().__init__(model, None, k, sigma, eps, reduction_log, activation_fn, mini_batch_size)
