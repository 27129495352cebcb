"""Gradient caching: the loss of a batch of any size, while the activations of one mini-batch are in memory.

First all rows are embedded without gradients. The loss of these embeddings leaves a gradient for each row. In the
backward pass rows are embedded again, mini-batch by mini-batch and with the same dropout, and the gradients of their
embeddings are passed on to the weights. Value and gradients are those of the whole batch; the price is one more
forward pass.

Shapes: N rows of all columns, D dimensions, K components of a loss.

References:
    Gao et al. 2021, Scaling Deep Contrastive Learning Batch Size under Memory Limited Setup, arXiv:2101.06983.
"""

from collections.abc import Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from tqdm import tqdm

from sbert_ray.inference.prepared import Features, rows_of_width
from sbert_ray.losses.columns import Columns, MiniBatches, Part, read
from sbert_ray.losses.gathered import JointBatch
from sbert_ray.losses.values import Value, components, from_components, summed


class Cacheable(Protocol):
    """What caching asks of a loss; see `Loss`."""

    by_rows: bool

    def joined(self, embeddings: Sequence[Tensor], labels: Any) -> JointBatch:
        """Return what the loss is computed from."""

    def share(self, batch: JointBatch, rows: slice | None = None) -> Any:
        """Return the share that some anchors have in the loss."""

    def own_parameters(self) -> list[nn.Parameter]:
        """Return the weights that belong to the loss."""


@dataclass(frozen=True)
class _State:
    """What a forward pass depends on besides its input: random numbers and autocast."""

    device: torch.device
    numbers: Tensor
    device_numbers: Tensor | None
    is_autocast: bool
    autocast_dtype: torch.dtype

    @classmethod
    def now(cls, device: torch.device) -> "_State":
        kind = device.type
        numbers = torch.cuda.get_rng_state(device) if kind == "cuda" else None
        is_autocast, dtype = torch.is_autocast_enabled(kind), torch.get_autocast_dtype(kind)
        return cls(device, torch.get_rng_state(), numbers, is_autocast, dtype)

    @contextmanager
    def again(self) -> Iterator[None]:
        """Let all be as it was within a ``with`` block."""
        with (
            torch.random.fork_rng([self.device] if self.device.type == "cuda" else []),
            torch.autocast(self.device.type, self.autocast_dtype, enabled=self.is_autocast),
        ):
            torch.set_rng_state(self.numbers)
            if self.device_numbers is not None:
                torch.cuda.set_rng_state(self.device_numbers, self.device)
            yield


@dataclass(frozen=True)
class _Gradients:
    """The gradients of one component of a loss: in each column's embeddings, and in the loss's own weights."""

    num_rows: int
    """B"""
    columns: list[Tensor | None]
    """(B, D) each; None where it does not depend on a column."""
    own: list[Tensor | None]

    def add_rows(self, target: Tensor, rows: NDArray[np.int64], weight: Tensor) -> None:
        """Add to ``target`` those of some of the N rows times a weight; column c's row b is c * B + b."""
        column, row = np.divmod(rows, self.num_rows)
        for place, gradient in enumerate(self.columns):
            if gradient is not None and (is_here := column == place).any():
                chosen, where = (torch.from_numpy(found).to(target.device) for found in (row[is_here], is_here))
                target[where] += (weight * gradient[chosen]).to(target.dtype)


@dataclass(frozen=True)
class _Replay:
    """How the rows of a batch are embedded again."""

    model: nn.Module
    parts: Sequence[Part]
    states: Sequence[_State]
    output: str

    def backward(self, gradients: Sequence[_Gradients], weights: Sequence[Tensor]) -> None:
        """Add to the weights' gradients what those of the embeddings give, each component times its weight.

        Between workers, what is added last synchronizes: a part of each kind, as each may have weights of its own, in
        one backward pass.
        """
        last = {part.kind: place for place, part in enumerate(self.parts)}.values()
        must_sync = _learns_from_first_pass(self.model)
        for place in range(len(self.parts)):
            if place not in last:
                with nullcontext() if must_sync else _without_sync(self.model):
                    if (found := self._again(place, gradients, weights)) is not None:
                        found[0].backward(found[1])
                        must_sync = False
        found_last = [self._again(place, gradients, weights) for place in last]
        if pairs := [found for found in found_last if found is not None]:
            torch.autograd.backward([embeddings for embeddings, _ in pairs], [gradient for _, gradient in pairs])

    def _again(
        self, place: int, gradients: Sequence[_Gradients], weights: Sequence[Tensor]
    ) -> tuple[Tensor, Tensor] | None:
        """Return a part's embeddings and their gradient; None where all weights are frozen."""
        part = self.parts[place]
        with torch.enable_grad(), self.states[place].again():
            embeddings = read(self.model(part.features), self.output)
        if not embeddings.requires_grad:
            return None
        gradient = torch.zeros_like(embeddings)
        for found, weight in zip(gradients, weights, strict=True):
            found.add_rows(gradient, part.rows, weight)
        return embeddings, gradient


class _Cached(torch.autograd.Function):
    """The components (K,) of a loss, whose backward pass is the replay."""

    @staticmethod
    def forward(ctx: Any, replay: _Replay, values: Tensor, gradients: Sequence[_Gradients], *_: Tensor) -> Tensor:
        ctx.replay, ctx.gradients = replay, gradients
        return values

    @staticmethod
    def backward(ctx: Any, *weights: Tensor) -> tuple[Tensor | None, ...]:
        by_component = weights[0].unbind()  # K
        ctx.replay.backward(ctx.gradients, by_component)
        own = []
        for found in zip(*(gradients.own for gradients in ctx.gradients), strict=True):
            parts = [weight * part for weight, part in zip(by_component, found, strict=True) if part is not None]
            own.append(sum(parts) if parts else None)
        return (None, None, None, None, *own)


def cached_value(
    loss: Cacheable,
    model: nn.Module,
    features: Sequence[Features],
    labels: Any,
    mini_batches: MiniBatches,
    output: str = "sentence_embedding",
) -> Value:
    """Return a loss whose backward pass embeds the batch again, mini-batch by mini-batch.

    Args:
        loss: Any loss over embeddings.
        model: Takes features and returns them with ``output`` in them.
        features: Of each column.
        labels: Passed on to the loss.
        mini_batches: How many rows are in memory at a time.
        output: What the loss is computed from.
    """
    columns = Columns.of(features)
    parts = list(columns.parts(model, mini_batches))
    states: list[_State] = []
    with torch.no_grad():
        shown = tqdm(parts, "embedding mini-batches", disable=not mini_batches.show_progress_bar, leave=False)
        batch = loss.joined(columns.split(_embedded(model, shown, states, output), parts), labels)
    if not torch.is_grad_enabled():
        return summed([loss.share(batch, rows) for rows in _anchors(loss, batch)])
    own = [parameter for parameter in loss.own_parameters() if parameter.requires_grad]
    values, gradients = _differentiate(loss, batch.detached(), own)
    joined = torch.stack(list(values.values()))
    start = torch.zeros((), device=joined.device, requires_grad=True)  # so that there is a backward pass
    cached = _Cached.apply(_Replay(model, parts, states, output), joined, gradients, start, *own)
    return from_components(dict(zip(values, cached.unbind(), strict=True)))


def _embedded(model: nn.Module, parts: Iterable[Part], states: list[_State], output: str) -> Tensor:
    """Return the embeddings (N, D) of all parts, and note what each pass depended on."""
    outputs = []
    for part in parts:
        states.append(_State.now(_device(part.features)))
        outputs.append(read(model(part.features), output))
    return torch.cat(outputs)


def _differentiate(
    loss: Cacheable, batch: JointBatch, own: Sequence[nn.Parameter]
) -> tuple[dict[str, Tensor], list[_Gradients]]:
    """Return the components of a loss, and the gradients of each in this worker's embeddings and in its own weights."""
    values: dict[str, Tensor] = {}
    found: dict[str, list[Tensor | None]] = {}
    leaves = [*batch.embeddings, *own]
    with torch.enable_grad():
        for rows in _anchors(loss, batch):
            parts = components(loss.share(batch, rows))
            for place, (name, value) in enumerate(parts.items()):
                values[name] = value.detach() + values.get(name, 0.0)
                more: Sequence[Tensor | None] = [None] * len(leaves)
                if value.requires_grad:
                    more = torch.autograd.grad(value, leaves, retain_graph=place < len(parts) - 1, allow_unused=True)
                found[name] = [_plus(*pair) for pair in zip(found.get(name, [None] * len(leaves)), more, strict=True)]
    number = len(batch.embeddings)
    size = batch.rows.stop - batch.rows.start
    gradients = [_Gradients(size, _own_rows(batch, part[:number]), part[number:]) for part in found.values()]
    return values, gradients


def _own_rows(batch: JointBatch, gradients: Sequence[Tensor | None]) -> list[Tensor | None]:
    if batch.is_whole:
        return list(gradients)
    # All workers take part in the sum, whatever their own share depends on.
    zeros = [torch.zeros_like(column) for column in batch.embeddings]
    return [batch.own_gradient(zero if part is None else part) for part, zero in zip(gradients, zeros, strict=True)]


def _plus(first: Tensor | None, second: Tensor | None) -> Tensor | None:
    if first is None or second is None:
        return second if first is None else first
    return first + second


def _anchors(loss: Cacheable, batch: JointBatch) -> Iterator[slice | None]:
    """Yield anchors, so many that their scores with all rows take little memory; None for all at once."""
    if not loss.by_rows:
        yield None
        return
    size = rows_of_width(sum(map(len, batch.embeddings)))
    for start in range(batch.rows.start, batch.rows.stop, size):
        yield slice(start, min(start + size, batch.rows.stop))


def _device(features: Features) -> torch.device:
    tensors = (value for name, value in features.items() if isinstance(value, Tensor) and name != "prompt_length")
    return next((tensor.device for tensor in tensors), torch.device("cpu"))


def _without_sync(model: nn.Module) -> AbstractContextManager[None]:
    """Keep DistributedDataParallel from averaging gradients that are not complete yet."""
    no_sync = getattr(model, "no_sync", None)
    return nullcontext() if no_sync is None else no_sync()


def _learns_from_first_pass(model: nn.Module) -> bool:
    """Return whether DistributedDataParallel learns from its first backward pass which weights there are."""
    return bool(getattr(model, "static_graph", False))
