"""Losses that tell an anchor's positive from the other texts of a batch.

Shapes: B anchors (queries), K documents of each (a positive and K - 1 negatives), D dimensions, R anchors of `rows`.
"""

from collections.abc import Sequence
from typing import Any, Literal

import torch
from torch import Tensor, nn

from sbert_ray.losses.columns import MiniBatches
from sbert_ray.losses.loss import Loss
from sbert_ray.similarity import Similarity, cos_sim

Direction = Literal["query_to_doc", "query_to_query", "doc_to_query", "doc_to_doc"]
PartitionMode = Literal["joint", "per_direction"]
HardnessMode = Literal["in_batch_negatives", "hard_negatives", "all_negatives"]

DIRECTIONS = ("query_to_doc", "query_to_query", "doc_to_query", "doc_to_doc")
HARDNESS_MODES = ("in_batch_negatives", "hard_negatives", "all_negatives")


class MultipleNegativesRankingLoss(Loss):
    """Cross-entropy of finding each anchor's positive among all documents of the batch (InfoNCE).

    With anchors a_i, their positives p_i, and C all B * K documents of the batch::

        loss = -1/B sum_i log( exp(scale * sim(a_i, p_i)) / Z_i ),   Z_i = sum_{c in C} exp(scale * sim(a_i, c))

    The positives and negatives of the other anchors are the in-batch negatives, so the loss gets harder, and usually
    better, as B grows; duplicates in a batch are false negatives, so sample batches without them.

    Further directions add to Z_i, or with ``per_direction`` are losses of their own, of which the mean is taken:
    ``query_to_query`` the other anchors, ``doc_to_query`` all anchors with p_i in the place of a_i, ``doc_to_doc`` the
    documents of other anchors, also with p_i. Hardness adds ``strength * sim(a_i, c)``, as a constant, to the logits of
    negatives, so that hard ones weigh more.

    Columns: (anchor, positive) or (anchor, positive, negative_1, ..., negative_n). Labels: none.

    Args:
        model: Embeds the columns.
        scale: Inverse temperature; 20 is a temperature of 0.05.
        similarity_fct: Similarity of all pairs of rows, such as ``cos_sim`` or ``dot_score``.
        gather_across_devices: Whether documents of all workers are candidates.
        directions: Which comparisons count; ``query_to_doc`` must be among them.
        partition_mode: ``joint`` for one Z_i of all directions, ``per_direction`` for one each.
        hardness_mode: Whose logits are raised: ``in_batch_negatives``, documents of other anchors; ``hard_negatives``,
            the anchor's own negatives; ``all_negatives``; None for nobody's.
        hardness_strength: By how much, times the similarity.

    Raises:
        ValueError: An argument is not among its choices.

    References:
        van den Oord et al. 2018, Representation Learning with Contrastive Predictive Coding, arXiv:1807.03748.
        Henderson et al. 2017, Efficient Natural Language Response Suggestion, arXiv:1705.00652.
        Li et al. 2023, GTE, arXiv:2308.03281 (all directions, jointly).
        Guenther et al. 2023, Jina Embeddings 2, arXiv:2310.19923 (both ways, each by itself).
        Lan et al. 2025, LLaVE, arXiv:2503.04812 (hardness).
    """

    by_rows = True

    def __init__(
        self,
        model: nn.Module | None,
        scale: float = 20.0,
        similarity_fct: Similarity = cos_sim,
        gather_across_devices: bool = False,
        directions: Sequence[Direction] = ("query_to_doc",),
        partition_mode: PartitionMode = "joint",
        hardness_mode: HardnessMode | None = None,
        hardness_strength: float = 0.0,
    ) -> None:
        super().__init__(model)
        _check_directions(directions, partition_mode)
        if hardness_mode not in (None, *HARDNESS_MODES):
            raise ValueError(f"hardness_mode must be None or one of {list(HARDNESS_MODES)}, got {hardness_mode!r}")
        if hardness_strength < 0:
            raise ValueError(f"hardness_strength must not be negative, got {hardness_strength}")
        if scale <= 0:
            raise ValueError(f"scale must be positive, got {scale}")
        self.scale = scale
        self.similarity_fct = similarity_fct
        self.gather_across_devices = gather_across_devices
        self.directions = tuple(directions)
        self.partition_mode = partition_mode
        self.hardness_mode = hardness_mode
        self.hardness_strength = hardness_strength

    @property
    def temperature(self) -> float:
        """1 / scale."""
        return 1.0 / self.scale

    def compute(self, embeddings: Sequence[Tensor], labels: Tensor | None) -> Tensor:
        """Return the mean over the anchors."""
        return self.compute_rows(embeddings, labels, slice(0, len(embeddings[0])))

    def compute_rows(self, embeddings: Sequence[Tensor], labels: Tensor | None, rows: slice) -> Tensor:  # noqa: ARG002
        """Return the share of the anchors ``rows`` in the mean."""
        queries, documents = embeddings[0], torch.cat(list(embeddings[1:]))  # (B, D), (K * B, D): positives first
        own = torch.arange(rows.start, rows.stop, device=queries.device)  # the positive of anchor i is document i
        blocks = {name: _block(name, self.similarity_fct, queries, documents, rows) for name in self.directions}
        found = blocks["query_to_doc"][torch.arange(len(own), device=own.device), own] * self.scale  # (R,)
        for name, block in blocks.items():
            blocks[name] = self._logits(name, block, own, len(queries))
        if self.partition_mode == "joint":
            log_partition = torch.cat(list(blocks.values()), dim=1).logsumexp(1)
        else:
            log_partition = torch.stack([block.logsumexp(1) for block in blocks.values()]).mean(0)
        return (log_partition - found).sum() / len(queries)

    def _logits(self, direction: str, similarities: Tensor, own: Tensor, num_queries: int) -> Tensor:
        """Return scaled similarities (R, N), without those that an anchor has with itself or with its own documents."""
        logits = similarities * self.scale
        columns = torch.arange(similarities.shape[1], device=own.device)
        is_own = columns % num_queries == own[:, None]  # (R, N): of the same anchor
        if direction in ("query_to_query", "doc_to_doc"):
            return logits.masked_fill(is_own, float("-inf"))
        if direction == "query_to_doc" and self.hardness_mode is not None and self.hardness_strength > 0:
            is_hard = {
                "in_batch_negatives": ~is_own,
                "hard_negatives": is_own & (columns >= num_queries),
                "all_negatives": ~(is_own & (columns < num_queries)),
            }[self.hardness_mode]
            return logits + is_hard * self.hardness_strength * similarities.detach()
        return logits


def _check_directions(directions: Sequence[str], partition_mode: str) -> None:
    if unknown := [name for name in directions if name not in DIRECTIONS]:
        raise ValueError(f"directions must be among {list(DIRECTIONS)}, got {unknown}")
    if "query_to_doc" not in directions:
        raise ValueError(f"directions must contain 'query_to_doc', got {list(directions)}")
    if len(set(directions)) != len(directions):
        raise ValueError(f"directions must differ from each other, got {list(directions)}")
    if partition_mode not in ("joint", "per_direction"):
        raise ValueError(f"partition_mode must be 'joint' or 'per_direction', got {partition_mode!r}")
    within = {"query_to_query", "doc_to_doc"} & set(directions)
    if partition_mode == "per_direction" and within:
        raise ValueError(f"partition_mode 'per_direction' has no positives in {sorted(within)}; use 'joint'")


def _block(direction: Direction, sim: Similarity, queries: Tensor, documents: Tensor, rows: slice) -> Tensor:
    """Return similarities (R, N) of the anchors ``rows``, or of their positives, with all queries or documents."""
    match direction:
        case "query_to_doc":
            return sim(queries[rows], documents)
        case "query_to_query":
            return sim(queries[rows], queries)
        case "doc_to_query":
            return sim(queries, documents[rows]).T
        case "doc_to_doc":
            return sim(documents, documents[rows]).T


class CachedMultipleNegativesRankingLoss(MultipleNegativesRankingLoss):
    """`MultipleNegativesRankingLoss` of batches of any size: its activations are those of one mini-batch.

    Value and gradients are the same; the price is a second forward pass.

    Columns: (anchor, positive) or (anchor, positive, negative_1, ..., negative_n). Labels: none.

    Args:
        model: Embeds the columns.
        scale: Inverse temperature; 20 is a temperature of 0.05.
        similarity_fct: Similarity of all pairs of rows, such as ``cos_sim`` or ``dot_score``.
        mini_batch_size: Rows that are embedded at a time.
        mini_batch_num_tokens: Tokens that are embedded at a time, instead of rows.
        gather_across_devices: Whether documents of all workers are candidates.
        directions: As in `MultipleNegativesRankingLoss`, like all that follow.
        partition_mode: ``joint`` or ``per_direction``.
        show_progress_bar: Whether to show the mini-batches.
        hardness_mode: Whose logits are raised.
        hardness_strength: By how much.

    References:
        Gao et al. 2021, Scaling Deep Contrastive Learning Batch Size under Memory Limited Setup, arXiv:2101.06983.
    """

    def __init__(  # noqa: PLR0913, PLR0917 (the public signature)
        self,
        model: nn.Module | None,
        scale: float = 20.0,
        similarity_fct: Similarity = cos_sim,
        mini_batch_size: int = 32,
        mini_batch_num_tokens: int | None = None,
        gather_across_devices: bool = False,
        directions: Sequence[Direction] = ("query_to_doc",),
        partition_mode: PartitionMode = "joint",
        show_progress_bar: bool = False,
        hardness_mode: HardnessMode | None = None,
        hardness_strength: float = 0.0,
    ) -> None:
        super().__init__(
            model,
            scale=scale,
            similarity_fct=similarity_fct,
            gather_across_devices=gather_across_devices,
            directions=directions,
            partition_mode=partition_mode,
            hardness_mode=hardness_mode,
            hardness_strength=hardness_strength,
        )
        self.mini_batches = MiniBatches(mini_batch_size, mini_batch_num_tokens, show_progress_bar)


class MultipleNegativesSymmetricRankingLoss(MultipleNegativesRankingLoss):
    """The mean of `MultipleNegativesRankingLoss` from anchors to documents, and from positives to anchors.

    Deprecated by the peer: it is ``directions=("query_to_doc", "doc_to_query"), partition_mode="per_direction"``.

    Columns: (anchor, positive) or (anchor, positive, negative_1, ..., negative_n). Labels: none.

    Args:
        model: Embeds the columns.
        scale: Inverse temperature.
        similarity_fct: Similarity of all pairs of rows.
        gather_across_devices: Whether documents of all workers are candidates.

    References:
        Guenther et al. 2023, Jina Embeddings 2, arXiv:2310.19923.
    """

    def __init__(
        self,
        model: nn.Module | None,
        scale: float = 20.0,
        similarity_fct: Similarity = cos_sim,
        gather_across_devices: bool = False,
    ) -> None:
        both: tuple[Direction, ...] = ("query_to_doc", "doc_to_query")
        super().__init__(
            model,
            scale=scale,
            similarity_fct=similarity_fct,
            gather_across_devices=gather_across_devices,
            directions=both,
            partition_mode="per_direction",
        )

    def get_config_dict(self) -> dict[str, Any]:
        """Return what the loss comes to, for model cards."""
        settings = ("scale", "similarity_fct", "gather_across_devices", "directions", "partition_mode")
        every = MultipleNegativesRankingLoss(None, **{name: getattr(self, name) for name in settings})
        return every.get_config_dict() | super().get_config_dict()


class CachedMultipleNegativesSymmetricRankingLoss(MultipleNegativesSymmetricRankingLoss):
    """`MultipleNegativesSymmetricRankingLoss` of batches of any size, by gradient caching.

    Columns: (anchor, positive) or (anchor, positive, negative_1, ..., negative_n). Labels: none.

    Args:
        model: Embeds the columns.
        scale: Inverse temperature.
        similarity_fct: Similarity of all pairs of rows.
        mini_batch_size: Rows that are embedded at a time.
        mini_batch_num_tokens: Tokens that are embedded at a time, instead of rows.
        gather_across_devices: Whether documents of all workers are candidates.
        show_progress_bar: Whether to show the mini-batches.

    References:
        Gao et al. 2021, Scaling Deep Contrastive Learning Batch Size under Memory Limited Setup, arXiv:2101.06983.
    """

    def __init__(
        self,
        model: nn.Module | None,
        scale: float = 20.0,
        similarity_fct: Similarity = cos_sim,
        mini_batch_size: int = 32,
        mini_batch_num_tokens: int | None = None,
        gather_across_devices: bool = False,
        show_progress_bar: bool = False,
    ) -> None:
        super().__init__(model, scale, similarity_fct, gather_across_devices)
        self.mini_batches = MiniBatches(mini_batch_size, mini_batch_num_tokens, show_progress_bar)
