"""Contrastive tension: two copies of a model that are to agree on what is the same text, and on nothing else.

Shapes: B rows, T tokens, D dimensions.
"""

import copy
import math
import random
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from sbert_ray.inference.prepared import Features
from sbert_ray.losses.columns import run_columns
from sbert_ray.losses.labels import matches_per_row
from sbert_ray.losses.model_loss import ModelLoss
from sbert_ray.similarity import Similarity, cos_sim


class _TwoModels(ModelLoss):
    """Losses of the given model and of a copy of it, which is trained as well, and thrown away at the end."""

    def __init__(self, model: nn.Module | None) -> None:
        super().__init__(model)
        self.model1 = copy.deepcopy(model)

    @property
    def model2(self) -> nn.Module | None:
        """The model that is kept."""
        return self.model

    def embed(self, features: Sequence[Features]) -> list[Tensor]:
        """Return the first column as the copy embeds it, and the last one as the model does."""
        assert self.model1 is not None
        assert self.model is not None
        [[copied]], [[kept]] = run_columns(self.model1, features[:1]), run_columns(self.model, features[-1:])
        return [copied, kept]


class ContrastiveTensionLoss(_TwoModels):
    """Let two copies of a model agree on texts that are the same, and on no others; it needs no labeled data.

    With f the copy, g the model, and y_i = 1 if a_i and b_i are the same text and 0 if not::

        loss = sum_i log( 1 + exp(-z_i) ) if y_i = 1, log( 1 + exp(z_i) ) if y_i = 0,   z_i = f(a_i) . g(b_i)

    The loss is a sum, so it grows with B. `ContrastiveTensionDataLoader` makes such pairs of texts.

    Columns: (sentence_A, sentence_B). Labels: 1 if they match, 0 if not; or none, and pairs of the same tokens match.

    Args:
        model: Embeds the second column; a copy of it embeds the first one.

    References:
        Carlsson et al. 2021, Semantic Re-tuning with Contrastive Tension, https://openreview.net/forum?id=Ov_sMNau-PF.
    """

    num_columns = (2, 2)
    label_use = "optional"
    label_hint = "0 or 1 per pair"

    def targets(self, features: Sequence[Features], labels: Tensor | None) -> Tensor | None:
        """Return the labels, or whether the texts of each row have the same tokens."""
        return labels if labels is not None else _are_equal(*features)

    def compute(self, embeddings: Sequence[Tensor], labels: Tensor | None) -> Tensor:
        """Return the sum over the pairs, given the embeddings of both models."""
        if labels is None:
            raise ValueError(f"ContrastiveTensionLoss of embeddings needs labels, {self.label_hint}, got None")
        copied, kept = embeddings
        logits = (copied * kept).sum(1)  # (B,)
        targets = matches_per_row(labels, len(logits), "ContrastiveTensionLoss").to(logits)
        return F.binary_cross_entropy_with_logits(logits, targets, reduction="sum")


class ContrastiveTensionLossInBatchNegatives(_TwoModels):
    """`ContrastiveTensionLoss` with all other texts of the batch as those that are not the same.

    With f the copy, g the model, sim the similarity, and t the logarithm of the scale, which is trained along::

        z_ij = exp(t) sim( f(a_i), g(a_j) )
        loss = -1/(2B) sum_i ( log softmax_j(z_ij)[i] + log softmax_j(z_ji)[i] )

    It learns from many more pairs than `ContrastiveTensionLoss` does of as many texts, and is usually better.

    Columns: (text). Labels: none.

    Args:
        model: Embeds the column; a copy of it does too.
        scale: Inverse temperature to start with.
        similarity_fct: Similarity of all pairs of rows, such as ``cos_sim``.

    Raises:
        ValueError: ``scale`` is not positive.

    References:
        Carlsson et al. 2021, Semantic Re-tuning with Contrastive Tension, https://openreview.net/forum?id=Ov_sMNau-PF.
    """

    num_columns = (1, 1)
    label_use = "none"

    def __init__(self, model: nn.Module | None, scale: float = 20.0, similarity_fct: Similarity = cos_sim) -> None:
        super().__init__(model)
        if scale <= 0:
            raise ValueError(f"scale must be positive, got {scale}")
        self.scale = scale
        self.similarity_fct = similarity_fct
        like = None if model is None else next(model.parameters(), None)
        self.logit_scale = nn.Parameter(torch.tensor(math.log(scale), device=None if like is None else like.device))

    def compute(self, embeddings: Sequence[Tensor], labels: Tensor | None) -> Tensor:  # noqa: ARG002
        """Return the mean over the texts, both ways, given the embeddings of both models."""
        copied, kept = embeddings
        logits = self.similarity_fct(copied, kept) * self.logit_scale.exp()  # (B, B)
        own = torch.arange(len(logits), device=logits.device)
        return (F.cross_entropy(logits, own) + F.cross_entropy(logits.T, own)) / 2


def _are_equal(a: Features, b: Features) -> Tensor:
    """Return which rows of two columns have the same tokens (B,)."""
    tokens = []
    for column in (a, b):
        if "input_ids" not in column or "attention_mask" not in column:
            raise ValueError(f"ContrastiveTensionLoss needs labels for a model without tokens, got {sorted(column)}")
        mask = column["attention_mask"].bool()
        padded = column["input_ids"].new_full(mask.shape, -1)  # -1 is no token
        places = torch.arange(mask.shape[1], device=mask.device)
        padded[places < mask.sum(1, keepdim=True)] = column["input_ids"][mask]  # all on the left
        tokens.append(padded)
    width = max(part.shape[1] for part in tokens)
    first, second = (F.pad(part, (0, width - part.shape[1]), value=-1) for part in tokens)
    return (first == second).all(1)


@dataclass(frozen=True)
class Pair:
    """Two texts, and whether they are the same."""

    texts: list[str]
    label: int


class ContrastiveTensionDataLoader:
    """Batches of pairs for `ContrastiveTensionLoss`: texts with themselves, and with others.

    Texts are in another order each time, and each is in one pair at most. Pairs are as objects with ``texts`` and
    ``label``; a ``collate_fn`` that is set makes anything else of a batch's list of them.

    Args:
        sentences: The texts.
        batch_size: Pairs of a batch.
        pos_neg_ratio: Of how many pairs one is a text with itself.

    Raises:
        ValueError: ``pos_neg_ratio`` is not positive, or the batch size not a multiple of it.
    """

    def __init__(self, sentences: Sequence[str], batch_size: int, pos_neg_ratio: int = 8) -> None:
        if pos_neg_ratio < 1 or batch_size % pos_neg_ratio or batch_size < 1:
            raise ValueError(f"batch_size must be a multiple of pos_neg_ratio, got {batch_size} and {pos_neg_ratio}")
        self.sentences = sentences
        self.batch_size = batch_size
        self.pos_neg_ratio = pos_neg_ratio
        self.collate_fn: Callable[[list[Pair]], Any] | None = None

    def __len__(self) -> int:
        """Return how many batches the texts are enough for."""
        return len(self.sentences) // (2 * self.batch_size - self.batch_size // self.pos_neg_ratio)

    def __iter__(self) -> Iterator[Any]:
        """Yield batches."""
        order = iter(random.sample(range(len(self.sentences)), len(self.sentences)))
        for _ in range(len(self)):
            batch = [self._pair(place, order) for place in range(self.batch_size)]
            yield batch if self.collate_fn is None else self.collate_fn(batch)

    def _pair(self, place: int, order: Iterator[int]) -> Pair:
        is_same = place % self.pos_neg_ratio == 0
        first = self.sentences[next(order)]
        return Pair([first, first if is_same else self.sentences[next(order)]], int(is_same))
