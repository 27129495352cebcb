"""From tokenized texts to embeddings: batches, forward passes, results in input order.

Shapes: N texts, B rows of a batch, T tokens with padding, D dimensions.
"""

import logging
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from sbert_ray.inference.batching import plan_batches
from sbert_ray.inference.tokenized import TokenizedTexts

logger = logging.getLogger(__name__)

Features = dict[str, Tensor]
Batch = tuple[NDArray[np.int64], Features]
"""The rows of a batch, and what the model makes of them."""


@dataclass(frozen=True)
class DeviceProfile:
    """What suits a kind of device, in token positions."""

    max_tokens: int
    """Positions of a batch beyond which speed no longer grows."""
    batch_cost: int
    """What one more batch costs besides its positions."""


# cpu: measured with benchmarks/encode.py on one core. cuda: an estimate, no GPU at hand.
DEVICE_PROFILES = {"cpu": DeviceProfile(4096, 16), "cuda": DeviceProfile(65536, 2048)}


@dataclass(frozen=True)
class Padding:
    """How a tokenizer pads."""

    token_id: int = 0
    type_id: int = 0
    side: str = "right"


@dataclass(frozen=True)
class Encoder:
    """What the engine needs of a model."""

    forward: Callable[[Features], Features]
    padding: Padding
    device: torch.device

    @property
    def profile(self) -> DeviceProfile:
        """The profile of this device's kind; an unknown kind of accelerator is taken for a GPU."""
        return DEVICE_PROFILES.get(self.device.type, DEVICE_PROFILES["cuda"])


@dataclass(frozen=True)
class EmbedRun:
    """Embeddings, and the work they took."""

    embeddings: NDArray[np.float32]
    """(N, D), in input order"""
    num_tokens: int
    """Real tokens of all texts."""
    num_padded_tokens: int
    """Positions computed, padding included."""


def run_batches(encoder: Encoder, tokens: TokenizedTexts, max_tokens: int) -> Iterator[Batch]:
    """Yield the rows of each batch and the features that the model makes of them.

    A batch that does not fit into the device's memory is halved, down to single rows.
    """
    pending = plan_batches(tokens.lengths, max_tokens, encoder.profile.batch_cost)[::-1]
    while pending:
        rows = pending.pop()
        features = pad_batch(tokens, rows, encoder.padding)
        try:
            yield rows, encoder.forward(_to_device(features, encoder.device))
        except torch.OutOfMemoryError:
            if len(rows) == 1:
                raise
            logger.warning("%d rows of %d tokens exceed the device's memory, halving", *features["input_ids"].shape)
            pending += np.array_split(rows, 2)[::-1]


def embed(
    encoder: Encoder,
    tokens: TokenizedTexts,
    max_tokens: int,
    finish: Callable[[Tensor], Tensor],
    on_batch: Callable[[int], None] | None = None,
) -> EmbedRun:
    """Embed tokenized texts.

    Args:
        encoder: The model.
        tokens: N texts.
        max_tokens: The most positions of a batch.
        finish: Applied to each batch of embeddings (B, D), for truncation and the like.
        on_batch: Called with the number of rows after each batch.
    """
    embeddings: NDArray[np.float32] | None = None
    num_padded_tokens = 0
    for rows, features in run_batches(encoder, tokens, max_tokens):
        batch = finish(features["sentence_embedding"].float()).cpu().numpy()  # (B, D)
        if embeddings is None:
            embeddings = np.empty((len(tokens), batch.shape[1]), np.float32)
        embeddings[rows] = batch
        num_padded_tokens += features["input_ids"].numel()
        if on_batch:
            on_batch(len(rows))
    if embeddings is None:
        raise ValueError("tokens must hold at least one text")
    return EmbedRun(embeddings, int(tokens.lengths.sum()), num_padded_tokens)


def truncate_and_normalize(embeddings: Tensor, truncate_dim: int | None, normalize: bool) -> Tensor:
    """Return the first ``truncate_dim`` dimensions of ``embeddings`` (B, D), then scaled to length 1 if asked for."""
    embeddings = embeddings[..., :truncate_dim]
    return F.normalize(embeddings, p=2, dim=-1) if normalize else embeddings


def pad_batch(tokens: TokenizedTexts, rows: NDArray[np.int64], padding: Padding) -> Features:
    """Return the features of ``rows``: ids and mask (B, T), T being the longest of them.

    Rows of one length have a mask of ones only, which transformers' models take for no mask at all.
    """
    lengths = tokens.lengths[rows]
    width = max(int(lengths.max(initial=0)), 1)
    columns = np.arange(width)
    mask = columns < lengths[:, None] if padding.side == "right" else columns >= width - lengths[:, None]  # (B, T)
    positions = tokens.positions(rows)

    def padded(values: NDArray[np.int32], fill: int) -> Tensor:
        batch = np.full(mask.shape, fill, np.int64)
        batch[mask] = values[positions]
        return torch.from_numpy(batch)

    features = {
        "input_ids": padded(tokens.ids, padding.token_id),
        "attention_mask": torch.from_numpy(mask.astype(np.int64)),
    }
    if tokens.type_ids is not None:
        features["token_type_ids"] = padded(tokens.type_ids, padding.type_id)
    if tokens.prompt_length is not None:
        features["prompt_length"] = torch.tensor([tokens.prompt_length])
    return features


def _to_device(features: Features, device: torch.device) -> Features:
    # The prompt's length stays on the CPU, where pooling reads it without waiting for the GPU.
    return {name: tensor if name == "prompt_length" else tensor.to(device) for name, tensor in features.items()}
