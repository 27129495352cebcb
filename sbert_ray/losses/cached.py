"""Gradient caching: the loss of a batch of any size, while the activations of one mini-batch are in memory.

First all rows are embedded without gradients. The loss of these embeddings leaves a gradient for each row. In the
backward pass rows are embedded again, mini-batch by mini-batch and with the same dropout, and the gradients of their
embeddings are passed on to the weights. Value and gradients are those of the whole batch; the price is one more
forward pass.

Shapes: N rows of all columns, D dimensions, K components of a loss.

References:
    Gao et al. 2021, Scaling Deep Contrastive Learning Batch Size under Memory Limited Setup, arXiv:2101.06983.
"""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor, nn
from tqdm import tqdm

from sbert_ray.inference.prepared import Features, rows_of_width
from sbert_ray.losses.columns import Columns, MiniBatches, Part, read
from sbert_ray.losses.gathered import JointBatch


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
class _Replay:
    """How the rows of a batch are embedded again."""

    model: nn.Module
    parts: Sequence[Part]
    states: Sequence[_State]
    output: str

    def backward(self, gradients: Tensor) -> None:
        """Add to the weights' gradients what those of the rows' embeddings (N, D), in the order of the parts, give."""
        starts = torch.tensor([0, *(len(part.rows) for part in self.parts)]).cumsum(0).tolist()
        for place, (part, state) in enumerate(zip(self.parts, self.states, strict=True)):
            is_last = place == len(self.parts) - 1
            with torch.enable_grad(), nullcontext() if is_last else _without_sync(self.model), state.again():
                embeddings = read(self.model(part.features), self.output)
                if embeddings.requires_grad:  # a model without trainable weights has nothing to pass on to
                    embeddings.backward(gradients[starts[place] : starts[place + 1]])


class _Cached(torch.autograd.Function):
    """The components (K,) of a loss, whose backward pass is the replay."""

    @staticmethod
    def forward(
        ctx: Any, replay: _Replay, values: Tensor, gradients: Tensor, own: Sequence[Tensor], *_: Tensor
    ) -> Tensor:
        ctx.replay, ctx.gradients, ctx.own = replay, gradients, own
        return values

    @staticmethod
    def backward(ctx: Any, *weights: Tensor) -> tuple[Tensor | None, ...]:
        weight = weights[0]  # (K,)
        ctx.replay.backward(torch.einsum("k,knd->nd", weight.to(ctx.gradients.dtype), ctx.gradients))
        own = [torch.tensordot(weight.to(gradient.dtype), gradient, dims=1) for gradient in ctx.own]
        return (None, None, None, None, None, *own)


def cached_value(
    loss: Cacheable,
    model: nn.Module,
    features: Sequence[Features],
    labels: Any,
    mini_batches: MiniBatches,
    output: str = "sentence_embedding",
) -> Any:
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
    states, outputs = [], []
    with torch.no_grad():
        for part in tqdm(parts, "embedding mini-batches", disable=not mini_batches.show_progress_bar, leave=False):
            states.append(_State.now(_device(part.features)))
            outputs.append(read(model(part.features), output))
        batch = loss.joined(columns.split(torch.cat(outputs), parts), labels)
    if not torch.is_grad_enabled():
        return _summed([loss.share(batch, rows) for rows in _anchors(loss, batch)])
    own = [parameter for parameter in loss.own_parameters() if parameter.requires_grad]
    names, values, gradients = _differentiate(loss, batch.detached(), own)
    order = torch.from_numpy(np.concatenate([part.rows for part in parts])).to(values.device)
    embedded = torch.stack([torch.cat(found[: len(columns.sizes)])[order] for found in gradients])  # (K, N, D)
    of_own = [torch.stack(found) for found in zip(*(found[len(columns.sizes) :] for found in gradients), strict=True)]
    start = torch.zeros((), device=values.device, requires_grad=True)  # so that there is a backward pass
    cached = _Cached.apply(_Replay(model, parts, states, output), values, embedded, of_own, start, *own)
    return cached[0] if names == [""] else dict(zip(names, cached.unbind(), strict=True))


def _differentiate(
    loss: Cacheable, batch: JointBatch, own: Sequence[nn.Parameter]
) -> tuple[list[str], Tensor, list[list[Tensor]]]:
    """Return the names and values (K,) of a loss's components, and the gradients of each.

    These are in this worker's embeddings (B, D) of each column, and in the loss's own weights.
    """
    values: dict[str, Tensor] = {}
    gradients: dict[str, list[Tensor]] = {}
    leaves = [*batch.embeddings, *own]
    with torch.enable_grad():
        for rows in _anchors(loss, batch):
            parts = _by_name(loss.share(batch, rows))
            for place, (name, value) in enumerate(parts.items()):
                found = torch.autograd.grad(
                    value, leaves, retain_graph=place < len(parts) - 1, allow_unused=True, materialize_grads=True
                )
                before = gradients.get(name)
                summed = found if before is None else (a + b for a, b in zip(before, found, strict=True))
                gradients[name] = list(summed)
                values[name] = value.detach() + values.get(name, 0.0)
    num_columns = len(batch.embeddings)
    for of_name in gradients.values():
        of_name[:num_columns] = [batch.own_gradient(gradient) for gradient in of_name[:num_columns]]
    return list(values), torch.stack(list(values.values())), list(gradients.values())


def _anchors(loss: Cacheable, batch: JointBatch) -> Iterator[slice | None]:
    """Yield anchors, so many that their scores with all rows take little memory; None for all at once."""
    if not loss.by_rows:
        yield None
        return
    size = rows_of_width(sum(map(len, batch.embeddings)))
    for start in range(batch.rows.start, batch.rows.stop, size):
        yield slice(start, min(start + size, batch.rows.stop))


def _by_name(value: Any) -> Mapping[str, Tensor]:
    return value if isinstance(value, dict) else {"": value}


def _summed(values: Sequence[Any]) -> Any:
    if not isinstance(values[0], dict):
        return torch.stack(list(values)).sum()
    return {name: torch.stack([value[name] for value in values]).sum() for name in values[0]}


def _device(features: Features) -> torch.device:
    tensors = (value for name, value in features.items() if isinstance(value, Tensor) and name != "prompt_length")
    return next((tensor.device for tensor in tensors), torch.device("cpu"))


def _without_sync(model: nn.Module) -> AbstractContextManager[None]:
    """Keep DistributedDataParallel from averaging gradients that are not complete yet."""
    no_sync = getattr(model, "no_sync", None)
    return nullcontext() if no_sync is None else no_sync()
