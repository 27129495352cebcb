"""Logits over the vocabulary for every token, computed some at a time, since all of them rarely fit into memory.

Shapes: B texts, T tokens with padding, H dimensions of a hidden state, V entries of the vocabulary.
"""

import threading
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any, NamedTuple, Self
from weakref import WeakKeyDictionary

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

PART_BYTES = 2**26
"""Logits computed at a time: on a CPU, from 2**25 on as fast as all of them at once."""
PROBE_TOKENS = 4


@dataclass(frozen=True, eq=False)
class TokenLogits:
    """Logits (B, T, V) that are computed where they are asked for."""

    shape: tuple[int, ...]
    """(B, T, V)"""
    dtype: torch.dtype
    compute: Callable[[slice, slice], Tensor]
    """From texts and tokens to their logits (b, t, V)."""
    by_text: bool = False
    """Whether the logits of a few tokens take as much work as those of their whole text."""
    hidden: Tensor | None = None
    """(B, T, H), where the logits are ``layer`` of them."""
    layer: nn.Module | None = None

    @classmethod
    def of(cls, logits: Tensor) -> Self:
        """Return logits (B, T, V) that are there already."""
        return cls(logits.shape, logits.dtype, lambda rows, columns: logits[rows, columns])

    @classmethod
    def projected(cls, hidden: Tensor, layer: Any) -> Self:
        """Return the logits that a layer makes of hidden states (B, T, H)."""

        def project(rows: slice, columns: slice) -> Tensor:
            projected: Tensor = layer(hidden[rows, columns])
            return projected

        size = layer.weight.shape[0] if isinstance(layer, nn.Linear) else layer(hidden[:1, :1]).shape[-1]
        return cls((*hidden.shape[:2], size), hidden.dtype, project, hidden=hidden, layer=layer)

    @property
    def linear(self) -> nn.Linear | None:
        """The layer that makes the logits, where it is a plain linear one, whose weights may be taken in parts."""
        layer = self.layer
        if type(layer) is not nn.Linear or "forward" in vars(layer):
            return None
        return None if layer._forward_hooks or layer._forward_pre_hooks else layer  # noqa: SLF001

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(self, row: int) -> Tensor:
        """Compute the logits of one text (T, V)."""
        if not 0 <= row < len(self):
            raise IndexError(f"row must be from 0 to {len(self) - 1}, got {row}")  # which ends an iteration
        return self.compute(slice(row, row + 1), slice(None))[0]

    def whole(self) -> Tensor:
        """Compute all of them."""
        return self.compute(slice(None), slice(None))

    def parts(self, max_columns: int | None = None) -> Iterator[tuple[slice, list[slice]]]:
        """Yield slices of texts, and for each the slices of tokens, to `compute` one after the other.

        Args:
            max_columns: The most tokens of a text at a time; as many as `PART_BYTES` allow if None.
        """
        num_rows, num_columns, size = self.shape
        positions = max(PART_BYTES // max(size * self.dtype.itemsize, 1), 1)
        width = max(num_columns if self.by_text else min(num_columns, positions, max_columns or num_columns), 1)
        height = max(positions // width, 1)
        columns = [slice(start, start + width) for start in range(0, num_columns, width)]
        for start in range(0, max(num_rows, 1), height):
            yield slice(start, start + height), columns


def whole(embeddings: Any) -> Any:
    """Return token embeddings, whatever they are, as a tensor, for modules that read all of them at once."""
    return embeddings.whole() if isinstance(embeddings, TokenLogits) else embeddings


class Head(NamedTuple):
    """How a masked language model ends."""

    layer: nn.Module | None
    """What the model says its projection to the vocabulary is."""
    is_last: bool
    """Whether its output is what the model returns."""
    size: int
    """V"""


_heads: WeakKeyDictionary[PreTrainedModel, Head] = WeakKeyDictionary()


def token_logits(model: PreTrainedModel, inputs: Mapping[str, Any]) -> Tensor | TokenLogits:
    """Run a masked language model up to its projection to the vocabulary, which is left for later.

    Whether a model ends with the projection that it says it has is tried out once. Where it does not, the whole model
    runs later, on some texts at a time.

    Args:
        model: Gives ``logits``.
        inputs: Its arguments, among them ``input_ids`` (B, T).
    """
    layer, head = model.get_output_embeddings(), known_head(model, inputs)
    if layer is None or not head.is_last:
        shape = (*inputs["input_ids"].shape, head.size)
        return TokenLogits(shape, model.dtype, partial(_run, model, inputs), by_text=True)
    logits, seen = _logits_and_input(model, layer, inputs, is_cut=True)
    if not seen:
        return logits  # of a compiled model, which calls no hooks
    [hidden] = seen
    return TokenLogits.projected(hidden, layer)


def known_head(model: PreTrainedModel, inputs: Mapping[str, Any]) -> Head:
    """Return how a model ends, which is tried out at the first call."""
    layer, head = model.get_output_embeddings(), _heads.get(model)
    if head is None or head.layer is not layer:
        head = _heads[model] = _probe(model, layer, inputs)
    return head


def _run(model: PreTrainedModel, inputs: Mapping[str, Any], rows: slice, columns: slice) -> Tensor:
    some = {name: value[rows] if isinstance(value, Tensor) else value for name, value in inputs.items()}
    logits: Tensor = model(**some).logits
    return logits[:, columns]


@torch.no_grad()
def _probe(model: PreTrainedModel, layer: nn.Module | None, inputs: Mapping[str, Any]) -> Head:
    few = {n: value[:1, :PROBE_TOKENS] if isinstance(value, Tensor) else value for n, value in inputs.items()}
    if "attention_mask" in few:
        few["attention_mask"] = torch.ones_like(few["attention_mask"])
    logits, seen = _logits_and_input(model, layer, few)
    is_last = False
    if layer is not None and len(seen) == 1 and seen[0].shape[:-1] == logits.shape[:-1]:
        again = layer(seen[0])
        is_last = again.shape == logits.shape and torch.allclose(again, logits, rtol=1e-5, atol=1e-6)
    return Head(layer, is_last, logits.shape[-1])


def _logits_and_input(
    model: PreTrainedModel, layer: nn.Module | None, inputs: Mapping[str, Any], is_cut: bool = False
) -> tuple[Tensor, list[Tensor]]:
    """Return a model's logits and what one of its layers was given, of which it sees no token at all if ``is_cut``."""
    thread = threading.get_ident()  # another thread may run the same model
    seen: list[Tensor] = []

    def note(_: nn.Module, args: tuple[Any, ...]) -> tuple[Any, ...] | None:
        if threading.get_ident() != thread or not args:
            return None
        seen.append(args[0])
        return (args[0][:, :0], *args[1:]) if is_cut else None

    handle = None if layer is None else layer.register_forward_pre_hook(note)
    try:
        return model(**inputs).logits, seen
    finally:
        if handle is not None:
            handle.remove()
