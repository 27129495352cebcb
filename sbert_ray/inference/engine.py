"""From prepared inputs to embeddings or scores: batches, forward passes, results in input order.

Shapes: N inputs, B rows of a batch, D dimensions or labels.
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
from sbert_ray.inference.mixed import fewest, groups_of
from sbert_ray.inference.prepared import Features, Prepared

logger = logging.getLogger(__name__)

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
class Encoder:
    """What the engine needs of a model."""

    forward: Callable[[Features], Features]
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


def run_batches(encoder: Encoder, inputs: Prepared, max_tokens: int, max_rows: int | None = None) -> Iterator[Batch]:
    """Yield the rows of each batch and the features that the model makes of them.

    A batch that does not fit into the device's memory is halved, down to single rows.
    """
    lengths, batch_cost = inputs.lengths, encoder.profile.batch_cost
    batches: list[NDArray[np.int64]] = []
    for group, limit in groups_of(inputs):
        plan = plan_batches(lengths[group], max_tokens, batch_cost, fewest([max_rows, limit]))
        batches += [group[rows] for rows in plan]
    pending = batches[::-1]
    while pending:
        rows = pending.pop()
        features = inputs.batch(rows)
        try:
            yield rows, encoder.forward(_to_device(features, encoder.device))
        except torch.OutOfMemoryError:
            if len(rows) == 1:
                raise
            num_positions = inputs.num_positions(rows)
            logger.warning("%d rows of %d positions exceed the device's memory, halving", len(rows), num_positions)
            pending += np.array_split(rows, 2)[::-1]


def embed(
    encoder: Encoder,
    inputs: Prepared,
    max_tokens: int,
    read: Callable[[Features], Tensor],
    on_batch: Callable[[int], None] | None = None,
) -> EmbedRun:
    """Compute one row of numbers for each input.

    Args:
        encoder: The model.
        inputs: N inputs, at least one.
        max_tokens: The most positions of a batch.
        read: Takes the result of a batch (B, D) out of its features, truncated and the like.
        on_batch: Called with the number of rows after each batch.
    """
    embeddings: NDArray[np.float32] | None = None
    num_padded_tokens = 0
    for rows, features in run_batches(encoder, inputs, max_tokens):
        batch = read(features).float().cpu().numpy()  # (B, D)
        if embeddings is None:
            embeddings = np.empty((len(inputs), batch.shape[1]), np.float32)
        embeddings[rows] = batch
        num_padded_tokens += inputs.num_positions(rows)
        if on_batch:
            on_batch(len(rows))
    if embeddings is None:
        raise ValueError("there must be at least one input")
    return EmbedRun(embeddings, int(inputs.lengths.sum()), num_padded_tokens)


def truncate_and_normalize(embeddings: Tensor, truncate_dim: int | None, normalize: bool) -> Tensor:
    """Return the first ``truncate_dim`` dimensions of ``embeddings`` (B, D), then scaled to length 1 if asked for."""
    embeddings = embeddings[..., :truncate_dim]
    return F.normalize(embeddings, p=2, dim=-1) if normalize else embeddings


def _to_device(features: Features, device: torch.device) -> Features:
    # The prompt's length stays on the CPU, where pooling reads it without waiting for the GPU.
    return {
        name: value.to(device) if isinstance(value, Tensor) and name != "prompt_length" else value
        for name, value in features.items()
    }
