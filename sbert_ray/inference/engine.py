"""From prepared inputs to embeddings or scores: batches, forward passes, results in input order.

Shapes: N inputs, B rows of a batch, D dimensions or labels.
"""

import logging
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import dataclass, field

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from sbert_ray.inference.batching import cost_of, plan_batches, plan_packs
from sbert_ray.inference.images import Images
from sbert_ray.inference.inputs import BadInputError
from sbert_ray.inference.mixed import fewest, groups_of, packed_texts, unlabeled
from sbert_ray.inference.pipeline import prefetched
from sbert_ray.inference.prepared import Features, Prepared

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Batch:
    """A batch that is computed."""

    rows: NDArray[np.int64]
    """Which of the inputs they are (B,)."""
    features: Features
    """What the model makes of them."""
    num_positions: int
    """Token positions computed, padding included."""


@dataclass(frozen=True)
class DeviceProfile:
    """What suits a kind of device, in token positions."""

    max_tokens: int
    """Positions of a batch beyond which speed no longer grows."""
    batch_cost: int
    """What one more padded batch costs besides its positions."""


# cpu: measured with benchmarks/encode.py on one core. cuda: an estimate, no GPU at hand.
DEVICE_PROFILES = {"cpu": DeviceProfile(2048, 16), "cuda": DeviceProfile(65536, 2048)}
BATCHES_AHEAD = 1
"""Batches of images that are read while another one is computed."""
MEMORY_SHARE = 0.25
"""Of a GPU's memory, what the activations of one batch may take."""


def profile_of(device: torch.device) -> DeviceProfile:
    """Return the profile of a device's kind; an unknown kind of accelerator is taken for a GPU."""
    return DEVICE_PROFILES.get(device.type, DEVICE_PROFILES["cuda"])


@dataclass
class Budget:
    """How large batches may be, as the device's memory has shown; a model keeps it from call to call."""

    max_positions: int | None = None
    """The most positions of a batch; None until one has not fitted."""
    num_halvings: int = 0
    """How often one has not."""

    def fits(self, num_positions: int) -> bool:
        """Return whether a batch is not known to be too large."""
        return self.max_positions is None or num_positions <= self.max_positions

    def halve(self, num_positions: int) -> None:
        """Remember that a batch did not fit."""
        most = max(num_positions // 2, 1)
        self.max_positions = most if self.max_positions is None else min(most, self.max_positions)
        self.num_halvings += 1


@dataclass(frozen=True)
class Encoder:
    """What the engine needs of a model."""

    forward: Callable[[Features], Features]
    device: torch.device
    packed_features: Callable[[Prepared], Features | None] = lambda _: None
    """Gives for inputs of one kind what the features of their batches hold besides, if texts come packed, that is
    without padding; None if the model takes them padded."""
    attention_length: int | None = None
    """Tokens at which attention is half of a text's work."""
    budget: Budget = field(default_factory=Budget)


@dataclass(frozen=True)
class EmbedRun:
    """Embeddings, and the work they took."""

    embeddings: NDArray[np.float32]
    """(N, D), in input order"""
    num_tokens: int
    """Real tokens of all texts."""
    num_padded_tokens: int
    """Positions computed, padding included."""
    num_halvings: int = 0
    """How often a batch did not fit into the device's memory."""


@dataclass(frozen=True)
class _Planned:
    """A batch to be computed."""

    inputs: Prepared
    rows: NDArray[np.int64]
    """Of ``inputs`` (B,)."""
    group: NDArray[np.int64]
    """Which of all inputs those of ``inputs`` are."""
    packed: Features | None

    @property
    def num_positions(self) -> int:
        if self.packed is not None:
            return int(self.inputs.lengths[self.rows].sum())
        return self.inputs.num_positions(self.rows)

    def features(self) -> Features:
        if self.packed is not None:
            return packed_texts(self.inputs, self.rows) | self.packed
        try:
            return self.inputs.batch(self.rows)
        except BadInputError as error:
            raise BadInputError(int(self.group[error.row]), error.reason) from error.__cause__

    def halves(self) -> "list[_Planned]":
        parts = np.array_split(self.rows, 2)
        return [_Planned(self.inputs, rows, self.group, self.packed) for rows in parts]


def run_batches(encoder: Encoder, inputs: Prepared, max_tokens: int, max_rows: int | None = None) -> Iterator[Batch]:
    """Compute batch by batch.

    A batch that does not fit into the device's memory is halved, down to single rows, and no later one is as large.
    Batches depend on ``inputs`` and the limits alone, unless that happens.

    Args:
        encoder: The model.
        inputs: N inputs.
        max_tokens: The most work of a batch, in token positions of short texts.
        max_rows: The most rows of a batch.
    """
    planned = _plan(encoder, inputs, max_tokens, max_rows)
    if len(planned) > 1 and any(isinstance(unlabeled(batch.inputs), Images) for batch in planned):
        with closing(prefetched(planned, _Planned.features, BATCHES_AHEAD)) as made:  # read while others are computed
            for batch, features in zip(planned, made, strict=True):
                yield from _compute(encoder, batch, features)
    else:
        for batch in planned:
            yield from _compute(encoder, batch, batch.features())


def _compute(encoder: Encoder, batch: _Planned, features: Features) -> Iterator[Batch]:
    num_positions = batch.num_positions
    if len(batch.rows) == 1 or encoder.budget.fits(num_positions):
        try:
            computed = encoder.forward(to_device(features, encoder.device))
        except torch.OutOfMemoryError:
            if len(batch.rows) == 1:
                raise
            encoder.budget.halve(num_positions)
            message = "%d rows of %d positions exceed the device's memory, halving"
            logger.warning(message, len(batch.rows), num_positions)
        else:
            yield Batch(batch.group[batch.rows], computed, num_positions)
            return
    for half in batch.halves():
        yield from _compute(encoder, half, half.features())


def _plan(encoder: Encoder, inputs: Prepared, max_tokens: int, max_rows: int | None) -> list[_Planned]:
    planned: list[_Planned] = []
    for group, part in groups_of(inputs):
        lengths, most = part.lengths, fewest([max_rows, part.max_rows])
        costs = cost_of(lengths, encoder.attention_length)
        packed = encoder.packed_features(part)
        # Texts without a single token cannot be told apart where there is no padding.
        padded = np.arange(len(part)) if packed is None else np.flatnonzero(lengths == 0)
        batches = plan_batches(costs[padded], max_tokens, profile_of(encoder.device).batch_cost, most)
        planned += [_Planned(part, padded[rows], group, None) for rows in batches]
        if packed is not None:
            full = np.flatnonzero(lengths)
            packs = plan_packs(lengths[full], costs[full], max_tokens, most)
            planned += [_Planned(part, full[rows], group, packed) for rows in packs]
    return planned


def max_tokens_for(device: torch.device, bytes_per_position: int) -> int:
    """Return the most positions of a batch that suit a device: its profile's, or fewer where its memory is small.

    It depends on the kind of device alone, not on what else is in its memory now, so that the same inputs make the
    same batches.

    Args:
        device: The device.
        bytes_per_position: What the activations of one position take at a time.
    """
    suits = profile_of(device).max_tokens
    if device.type != "cuda" or not bytes_per_position:
        return suits
    total = torch.cuda.get_device_properties(device).total_memory
    return max(min(suits, int(total * MEMORY_SHARE) // bytes_per_position), 1)


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
    num_padded_tokens, num_halvings = 0, encoder.budget.num_halvings
    for batch in run_batches(encoder, inputs, max_tokens):
        found = read(batch.features).float().cpu().numpy()  # (B, D)
        if embeddings is None:
            embeddings = np.empty((len(inputs), found.shape[1]), np.float32)
        embeddings[batch.rows] = found
        num_padded_tokens += batch.num_positions
        if on_batch:
            on_batch(len(batch.rows))
    if embeddings is None:
        raise ValueError("there must be at least one input")
    num_halvings = encoder.budget.num_halvings - num_halvings
    return EmbedRun(embeddings, int(inputs.lengths.sum()), num_padded_tokens, num_halvings)


def truncate_and_normalize(embeddings: Tensor, truncate_dim: int | None, normalize: bool) -> Tensor:
    """Return the first ``truncate_dim`` dimensions of ``embeddings`` (B, D), then scaled to length 1 if asked for."""
    embeddings = embeddings[..., :truncate_dim]
    return F.normalize(embeddings, p=2, dim=-1) if normalize else embeddings


def to_device(features: Features, device: torch.device) -> Features:
    """Return features on a device, all but the prompt's length, which pooling reads without waiting for the GPU."""
    return {
        name: value.to(device) if isinstance(value, Tensor) and name != "prompt_length" else value
        for name, value in features.items()
    }
