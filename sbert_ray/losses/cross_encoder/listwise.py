"""Losses of the documents of a query, all together.

Shapes: B queries, M documents of the longest list, N documents of all lists.
"""

from abc import abstractmethod
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from sbert_ray.losses.cross_encoder.loss import (
    IDENTITY,
    Activation,
    CrossEncoderLoss,
    Pair,
    check_columns,
    check_texts,
    is_given,
    is_list,
    numbers,
)


class ListwiseLoss(CrossEncoderLoss):
    """A loss of lists of documents, which may be of different lengths, even empty.

    A subclass implements `compute_lists`.

    Args:
        model: Scores the pairs; it must have one label.
        activation_fn: Applied to the logits.
        mini_batch_size: Pairs that share a forward pass, which changes no value; as many as there are queries if None,
            all if not positive.
    """

    def __init__(
        self, model: nn.Module, activation_fn: Activation | None = IDENTITY, mini_batch_size: int | None = None
    ) -> None:
        super().__init__(model, activation_fn)
        self.mini_batch_size = mini_batch_size

    def pairs(self, inputs: Sequence[Sequence[Any]], labels: Any) -> tuple[list[Pair], list[Tensor]]:
        """Return each query with each of its documents, and the labels of each list."""
        name = type(self).__name__
        check_columns(name, inputs, 2, 2, of_texts=1)
        queries, lists = inputs
        for row, texts in enumerate(lists):
            if not is_list(texts):
                raise TypeError(f"{name} needs a list of documents for each query, got {_kind(texts)} in row {row}")
            check_texts(name, texts, f"document {{}} of row {row}")
        pairs = [(query, text) for query, texts in zip(queries, lists, strict=True) for text in texts]
        if not pairs:
            raise ValueError(f"{name} needs at least one document, got {len(queries)} empty list(s)")
        return pairs, _labels_of_lists(name, labels, [len(texts) for texts in lists])

    def pairs_at_once(self, num_rows: int) -> int | None:
        """Return ``mini_batch_size`` as its description says."""
        if self.mini_batch_size is None:
            return num_rows
        return self.mini_batch_size if self.mini_batch_size > 0 else None

    def compute(self, logits: Tensor, labels: Sequence[Tensor]) -> Tensor:
        """Return the loss of the lists one after the other (N,), of which ``labels`` has one tensor each."""
        sizes = [len(row) for row in labels]
        places = torch.arange(max(sizes), device=logits.device)
        mask = places < torch.tensor(sizes, device=logits.device)[:, None]  # (B, M)
        return self.compute_lists(_padded(logits, mask), _padded(torch.cat(list(labels)).to(logits), mask), mask)

    @abstractmethod
    def compute_lists(self, logits: Tensor, labels: Tensor, mask: Tensor) -> Tensor:
        """Return the loss.

        Args:
            logits: (B, M), the lowest number there is where there are no documents.
            labels: Likewise.
            mask: Whether there is a document (B, M).
        """


def _padded(values: Tensor, mask: Tensor) -> Tensor:
    """Return values of all lists (N,) as (B, M), padded by a number that a softmax ignores and that is finite."""
    return values.new_full(mask.shape, torch.finfo(values.dtype).min).masked_scatter(mask, values)


def _labels_of_lists(name: str, labels: Any, sizes: Sequence[int]) -> list[Tensor]:
    """Return one tensor of labels for each list of documents.

    Raises:
        TypeError: There are other things than numbers among them.
        ValueError: There are not as many as documents.
    """
    hint = "one list per query, of a number per document"
    if not is_given(labels):
        raise ValueError(f"{name} needs labels, {hint}, got none")
    if not is_list(labels) or len(labels) != len(sizes):
        raise ValueError(f"{name} needs labels, {hint}, got {_kind(labels)} for {len(sizes)} queries")
    rows = [numbers(row, f"labels of row {place}") for place, row in enumerate(labels)]
    for place, (row, size) in enumerate(zip(rows, sizes, strict=True)):
        if row.ndim != 1:
            raise ValueError(f"{name} needs labels, {hint}, got shape {tuple(row.shape)} in row {place}")
        if len(row) != size:
            raise ValueError(f"{name} needs a label per document, got {len(row)} for {size} in row {place}")
    return rows


def _kind(values: Any) -> str:
    return f"{len(values)} of them" if is_list(values) else type(values).__name__


class ListNetLoss(ListwiseLoss):
    """Cross-entropy of the probabilities that scores, and labels, give documents of being ranked first.

    With logits s_ij and labels y_ij of document j of query i::

        loss = -1/B sum_i sum_j softmax(y_i)_j * log softmax(s_i)_j

    Columns: (query, [document_1, ..., document_n]). Labels: [score_1, ..., score_n].

    Args:
        model: Scores the pairs; it must have one label.
        activation_fn: Applied to the logits.
        mini_batch_size: Pairs that share a forward pass, which changes no value; as many as there are queries if None,
            all if not positive.

    References:
        Cao et al. 2007, Learning to Rank: From Pairwise Approach to Listwise Approach, doi:10.1145/1273496.1273513.
    """

    def compute_lists(self, logits: Tensor, labels: Tensor, mask: Tensor) -> Tensor:
        """Return the mean over the queries."""
        log_probabilities = logits.log_softmax(1).masked_fill(~mask, 0)
        return -(labels.softmax(1) * log_probabilities).sum(1).mean()


MOST_RANKS = 120
"""Of which 2^n is a number in float32."""


class PListMLELambdaWeight(nn.Module):
    """What each rank weighs in `PListMLELoss`: 2^(n - r) - 1 for rank r of n, from 1, unless told otherwise.

    Args:
        rank_discount_fn: From whether there is a document at each rank (B, M) to the weights (B, M).
    """

    def __init__(self, rank_discount_fn: Callable[[Tensor], Tensor] | None = None) -> None:
        super().__init__()
        self.rank_discount_fn = rank_discount_fn

    def forward(self, mask: Tensor) -> Tensor:
        """Return the weights (B, M), zero where there is no document; for long lists a fraction of them.

        Args:
            mask: Whether there is a document (B, M).
        """
        if self.rank_discount_fn is not None:
            return self.rank_discount_fn(mask)
        sizes = mask.sum(1, keepdim=True)
        ranks_below = sizes - torch.arange(1, mask.shape[1] + 1, device=mask.device)  # (B, M)
        shift = (sizes - MOST_RANKS).clamp(min=0).float()  # what is divided by its sum may be small as well as large
        return torch.where(mask, torch.exp2(ranks_below - shift) - torch.exp2(-shift), 0)


LAMBDA_WEIGHT = PListMLELambdaWeight()


class PListMLELoss(ListwiseLoss):
    """Likelihood of the right ranking, in which the documents are picked one by one; what ranks first weighs most.

    With logits s_i1, ..., s_in in the right order, and weights w_r that sum up to 1::

        loss = -1/B sum_i sum_r w_r * log( exp(s_ir) / sum_{k >= r} exp(s_ik) )

    Columns: (query, [document_1, ..., document_n]). Labels: [score_1, ..., score_n].

    Args:
        model: Scores the pairs; it must have one label.
        lambda_weight: Gives the weights, before they are divided by their sum; None for 1 each, and no division.
        activation_fn: Applied to the logits.
        mini_batch_size: Pairs that share a forward pass, which changes no value; as many as there are queries if None,
            all if not positive.
        respect_input_order: Whether documents come in the right order, whatever their labels; else the one with the
            highest label is first, and equal ones stay in their order.

    References:
        Lan et al. 2014, Position-Aware ListMLE: A Sequential Learning Process for Ranking, UAI.
    """

    def __init__(
        self,
        model: nn.Module,
        lambda_weight: PListMLELambdaWeight | None = LAMBDA_WEIGHT,
        activation_fn: Activation | None = IDENTITY,
        mini_batch_size: int | None = None,
        respect_input_order: bool = True,
    ) -> None:
        super().__init__(model, activation_fn, mini_batch_size)
        self.lambda_weight = lambda_weight
        self.respect_input_order = respect_input_order

    def compute_lists(self, logits: Tensor, labels: Tensor, mask: Tensor) -> Tensor:
        """Return the mean over the queries."""
        if not self.respect_input_order:
            logits = logits.gather(
                1, labels.argsort(dim=1, descending=True, stable=True)
            )  # what is no document is last
        log_remaining = logits.flip(1).logcumsumexp(1).flip(1)  # (B, M): of the documents k >= r
        weighted = (logits - log_remaining) * self._weights(mask, logits.dtype)
        return -weighted.masked_fill(~mask, 0).sum(1).mean()

    def _weights(self, mask: Tensor, dtype: torch.dtype) -> Tensor | float:
        if self.lambda_weight is None:
            return 1.0
        weights: Tensor = self.lambda_weight(mask).to(dtype).masked_fill(~mask, 0)
        return weights / weights.sum(1, keepdim=True).clamp(min=torch.finfo(dtype).tiny)  # a list of one weighs nothing


class ListMLELoss(PListMLELoss):
    """Likelihood of the right ranking, in which the documents are picked one by one.

    With logits s_i1, ..., s_in in the right order::

        loss = -1/B sum_i sum_r log( exp(s_ir) / sum_{k >= r} exp(s_ik) )

    Columns: (query, [document_1, ..., document_n]). Labels: [score_1, ..., score_n].

    Args:
        model: Scores the pairs; it must have one label.
        activation_fn: Applied to the logits.
        mini_batch_size: Pairs that share a forward pass, which changes no value; as many as there are queries if None,
            all if not positive.
        respect_input_order: Whether documents come in the right order, whatever their labels; else the one with the
            highest label is first, and equal ones stay in their order.

    References:
        Xia et al. 2008, Listwise Approach to Learning to Rank: Theory and Algorithm, doi:10.1145/1390156.1390306.
    """

    def __init__(
        self,
        model: nn.Module,
        activation_fn: Activation | None = IDENTITY,
        mini_batch_size: int | None = None,
        respect_input_order: bool = True,
    ) -> None:
        super().__init__(model, None, activation_fn, mini_batch_size, respect_input_order)


class ADRMSELoss(ListwiseLoss):
    """Squared difference of the ranks that labels give and those that scores give, the first ranks weighing most.

    With logits s, rank_j by the labels, from 1 and the mean of those that equal documents share, and a smooth rank::

        approx_j = 1 + sum_{k != j} sigmoid(alpha * (s_k - s_j))
        loss = 1/N sum_j (rank_j - approx_j)^2 / log2(rank_j + 1)

    Columns: (query, [document_1, ..., document_n]). Labels: [score_1, ..., score_n].

    Args:
        model: Scores the pairs; it must have one label.
        alpha: How close smooth ranks are to true ones.
        activation_fn: Applied to the logits.
        mini_batch_size: Pairs that share a forward pass, which changes no value; as many as there are queries if None,
            all if not positive.

    Raises:
        ValueError: ``alpha`` is not positive.

    References:
        Schlatt et al. 2024, Rank-DistiLLM: Closing the Effectiveness Gap Between Cross-Encoders and LLMs for Passage
        Re-Ranking, arXiv:2405.07920.
    """

    def __init__(
        self,
        model: nn.Module,
        alpha: float = 1.0,
        activation_fn: Activation | None = IDENTITY,
        mini_batch_size: int | None = None,
    ) -> None:
        super().__init__(model, activation_fn, mini_batch_size)
        if alpha <= 0:
            raise ValueError(f"alpha must be positive, got {alpha}")
        self.alpha = alpha

    def compute_lists(self, logits: Tensor, labels: Tensor, mask: Tensor) -> Tensor:
        """Return the mean over the documents."""
        ranks = _ranks(labels, mask, lambda higher: higher.sign() / 2 + 0.5)  # 1, 1/2 or 0 documents are before
        approximate = _ranks(logits, mask, lambda higher: (self.alpha * higher).sigmoid())
        return ((ranks - approximate).square() / (ranks + 1).log2())[mask].mean()


def _ranks(values: Tensor, mask: Tensor, before: Callable[[Tensor], Tensor]) -> Tensor:
    """Return the rank of each document (B, M), given how much of one is before another that is so much lower."""
    higher = values[:, None, :] - values[:, :, None]  # (B, M, M): by how much k is higher than j
    return 0.5 + (before(higher) * mask[:, None, :]).sum(2)  # each is half before itself
