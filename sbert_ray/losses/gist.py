"""A contrastive loss whose false negatives are told by a guide.

Shapes: B anchors, C columns, D dimensions, R anchors of `rows`, N candidates.
"""

from collections.abc import Sequence
from typing import Any, Literal

import torch
from torch import Tensor, nn

from sbert_ray.inference.engine import to_device
from sbert_ray.inference.prepared import Features
from sbert_ray.losses.columns import MiniBatches, run_columns
from sbert_ray.losses.loss import Loss
from sbert_ray.similarity import cos_sim

MarginStrategy = Literal["absolute", "relative"]


class GISTEmbedLoss(Loss):
    """InfoNCE without the candidates that a guide finds closer to the anchor than its positive.

    With cosines s of the model and g of the guide, and anchor i, positive i::

        loss = -1/B sum_i log( exp(s(a_i, p_i) / T) / sum_c exp(s_c / T) )

    over c among the similarities of a_i with all positives, anchors and negatives, and of p_i with all positives. Left
    out are those of a text with itself, and those of which the guide says g_c > t_i, where t_i is g(a_i, p_i) - margin,
    or g(a_i, p_i) - |g(a_i, p_i)| margin.

    Columns: (anchor, positive) or (anchor, positive, negative). Labels: none.

    Args:
        model: Embeds the columns.
        guide: A model that is not trained; texts are tokenized again for it where its tokenizer differs.
        temperature: T.
        margin_strategy: ``absolute`` or ``relative``.
        margin: How much less similar than its positive a candidate must be.
        contrast_anchors: Whether other anchors are candidates.
        contrast_positives: Whether other positives are compared with the anchor's positive.
        gather_across_devices: Whether candidates of all workers count.

    Raises:
        ValueError: ``margin_strategy`` is unknown, or ``temperature`` is not positive.

    References:
        Solatorio 2024, GISTEmbed, arXiv:2402.16829.
    """

    num_columns: tuple[int, int | None] = (2, 3)
    by_rows = True

    def __init__(
        self,
        model: nn.Module | None,
        guide: nn.Module | None,
        temperature: float = 0.01,
        margin_strategy: MarginStrategy = "absolute",
        margin: float = 0.0,
        contrast_anchors: bool = True,
        contrast_positives: bool = True,
        gather_across_devices: bool = False,
    ) -> None:
        super().__init__(model)
        if margin_strategy not in ("absolute", "relative"):
            raise ValueError(f"margin_strategy must be 'absolute' or 'relative', got {margin_strategy!r}")
        if temperature <= 0:
            raise ValueError(f"temperature must be positive, got {temperature}")
        self.guide = guide
        self.temperature = temperature
        self.margin_strategy = margin_strategy
        self.margin = margin
        self.contrast_anchors = contrast_anchors
        self.contrast_positives = contrast_positives
        self.gather_across_devices = gather_across_devices
        self.must_retokenize = _reads_otherwise(guide, model)

    def targets(self, features: Sequence[Features], labels: Tensor | None) -> Tensor:  # noqa: ARG002
        """Return the guide's embeddings (B, C, D)."""
        if self.guide is None:
            raise ValueError(f"{type(self).__name__} needs a guide")
        if self.must_retokenize:
            features = [_retokenized(column, self.model, self.guide) for column in features]
        self.guide.eval()
        with torch.no_grad():
            [embeddings] = run_columns(self.guide, features, mini_batches=self.mini_batches)
        return torch.stack(embeddings, dim=1).to(_device(self.model, embeddings[0]))

    def check_embeddings(self, embeddings: Sequence[Tensor], labels: Tensor | None) -> None:
        """Make sure that labels are the guide's embeddings (B, C, D).

        Raises:
            ValueError: They are missing or of another shape.
        """
        self.check(len(embeddings), None)
        wanted = (len(embeddings[0]), len(embeddings))
        if labels is None or labels.ndim != 3 or labels.shape[:2] != wanted:
            shape = None if labels is None else tuple(labels.shape)
            raise ValueError(f"labels must be the guide's embeddings of shape {(*wanted, 'D')}, got {shape}")

    def compute(self, embeddings: Sequence[Tensor], labels: Tensor | None) -> Tensor:
        """Return the mean over the anchors; ``labels`` are the guide's embeddings (B, C, D)."""
        return self.compute_rows(embeddings, labels, slice(0, len(embeddings[0])))

    def compute_rows(self, embeddings: Sequence[Tensor], labels: Tensor | None, rows: slice) -> Tensor:
        """Return the share of the anchors ``rows`` in the mean."""
        assert labels is not None
        scores = self._similarities(embeddings, rows)  # (R, N), positives first
        guided = self._similarities(labels.unbind(1), rows)
        positives = torch.arange(rows.start, rows.stop, device=scores.device)[:, None]  # (R, 1)
        of_positive = guided.gather(1, positives)
        slack = of_positive.abs() * self.margin if self.margin_strategy == "relative" else self.margin
        is_false = guided > of_positive - slack
        is_false.scatter_(1, positives, False)  # the own positive counts whatever the guide says
        logits = scores.masked_fill(is_false, float("-inf")) / self.temperature
        return (logits.logsumexp(1) - logits.gather(1, positives)[:, 0]).sum() / len(embeddings[0])

    def _similarities(self, embeddings: Sequence[Tensor], rows: slice) -> Tensor:
        anchors, positives, *negatives = embeddings
        blocks = [cos_sim(anchors[rows], positives)]
        if self.contrast_anchors:
            blocks.append(_without_self(cos_sim(anchors[rows], anchors), rows))
        if self.contrast_positives:
            blocks.append(_without_self(cos_sim(positives[rows], positives), rows))
        blocks += [cos_sim(anchors[rows], column) for column in negatives]
        return torch.cat(blocks, dim=1)

    def own_parameters(self) -> list[nn.Parameter]:
        """Return none: the guide's weights stay as they are."""
        return []


def _without_self(similarities: Tensor, rows: slice) -> Tensor:
    """Take out what a text has with itself, by a similarity that lies above every threshold for guide and model."""
    own = torch.arange(rows.start, rows.stop, device=similarities.device)[:, None]
    return similarities.scatter(1, own, float("inf"))


def _reads_otherwise(guide: Any, model: Any) -> bool:
    """Return whether the guide cannot take the model's tokens."""
    if any(getattr(one, "tokenizer", None) is None for one in (model, guide)):
        return False
    lengths = [one.max_seq_length or float("inf") for one in (model, guide)]
    return model.tokenizer.get_vocab() != guide.tokenizer.get_vocab() or lengths[1] < lengths[0]


def _retokenized(features: Features, model: Any, guide: Any) -> Features:
    texts = model.tokenizer.batch_decode(features["input_ids"], skip_special_tokens=True)
    return to_device(guide.preprocess(texts), _device(guide, features["input_ids"]))


def _device(model: Any, tensor: Tensor) -> torch.device:
    found = next(model.parameters(), tensor) if model is not None else tensor
    return found.device


class CachedGISTEmbedLoss(GISTEmbedLoss):
    """`GISTEmbedLoss` of batches of any size, by gradient caching, with any number of negatives.

    Columns: (anchor, positive) or (anchor, positive, negative_1, ..., negative_n). Labels: none.

    Args:
        model: Embeds the columns.
        guide: A model that is not trained.
        temperature: As in `GISTEmbedLoss`.
        mini_batch_size: Rows that are embedded at a time.
        mini_batch_num_tokens: Tokens that are embedded at a time, instead of rows.
        show_progress_bar: Whether to show the mini-batches.
        margin_strategy: As in `GISTEmbedLoss`, like all that follow.
        margin: How much less similar than its positive a candidate must be.
        contrast_anchors: Whether other anchors are candidates.
        contrast_positives: Whether other positives are compared with the anchor's positive.
        gather_across_devices: Whether candidates of all workers count.

    References:
        Solatorio 2024, GISTEmbed, arXiv:2402.16829.
        Gao et al. 2021, Scaling Deep Contrastive Learning Batch Size under Memory Limited Setup, arXiv:2101.06983.
    """

    num_columns = (2, None)

    def __init__(  # noqa: PLR0913, PLR0917 (the public signature)
        self,
        model: nn.Module | None,
        guide: nn.Module | None,
        temperature: float = 0.01,
        mini_batch_size: int = 32,
        mini_batch_num_tokens: int | None = None,
        show_progress_bar: bool = False,
        margin_strategy: MarginStrategy = "absolute",
        margin: float = 0.0,
        contrast_anchors: bool = True,
        contrast_positives: bool = True,
        gather_across_devices: bool = False,
    ) -> None:
        super().__init__(
            model,
            guide=guide,
            temperature=temperature,
            margin_strategy=margin_strategy,
            margin=margin,
            contrast_anchors=contrast_anchors,
            contrast_positives=contrast_positives,
            gather_across_devices=gather_across_devices,
        )
        self.mini_batches = MiniBatches(mini_batch_size, mini_batch_num_tokens, show_progress_bar)
