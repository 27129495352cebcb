"""Attention within each text of a packed batch, for every model that lets transformers choose its attention.

A model sees one row of L tokens, and the position of each in its text. What keeps texts apart is the attention function
that is registered here. Where no batch is packed, it is the usual one, so that models keep it once they have it.

Shapes: L tokens of all texts, n texts of one length T, h heads, D dimensions of a head.
"""

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cache
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from transformers import AttentionInterface, PreTrainedModel
from transformers.masking_utils import AttentionMaskInterface

from sbert_ray.inference.packing import Packing

NAME = "sbert_ray_packed"
"""What transformers calls it."""
USUAL = "sdpa"

_current = threading.local()
MaskFunction = Callable[[Any, Any, Tensor, Tensor], Tensor]
"""From text, head, and places of queries and keys to whether they may see each other."""


@contextmanager
def packed(packing: Packing) -> Iterator[None]:
    """Let models that this thread runs within the block take their one row for a packed batch."""
    before = getattr(_current, "packing", None)
    _current.packing = packing
    try:
        yield
    finally:
        _current.packing = before


def can_attend_packed(model: PreTrainedModel) -> bool:
    """Return whether the model leaves its attention to transformers, and has the usual one or this one."""
    config = model.config
    is_usual = config._attn_implementation in (NAME, USUAL)  # noqa: SLF001
    # Chunks are counted from the start of the row, and a compiled model would be compiled for every length.
    is_odd = getattr(config, "attention_chunk_size", None) or getattr(model, "_compiled_call_impl", None) is not None
    return is_usual and not is_odd and bool(getattr(model, "_supports_attention_backend", False))


def attend_packed(model: PreTrainedModel) -> None:
    """Give a model this attention, which is the usual one wherever no batch is packed."""
    if model.config._attn_implementation != NAME:  # noqa: SLF001
        model.set_attn_implementation(NAME)


@dataclass
class _Mask:
    """Which tokens of a text may see each other, as a model's mask function says it of the whole row."""

    function: MaskFunction
    packing: Packing
    _made: dict[Any, Any] = field(default_factory=dict)

    def band(self, length: int, start: int, device: torch.device) -> tuple[int, int] | None:
        """Return how far a token sees to the left and right in a text that begins at ``start``; None if irregularly."""
        key = ("band", length)
        if key not in self._made:
            self._made[key] = self._band(length, start, device)
        found: tuple[int, int] | None = self._made[key]
        return found

    def _band(self, length: int, start: int, device: torch.device) -> tuple[int, int] | None:
        asked = torch.tensor(sorted({0, length // 2, length - 1}), device=device)
        seen = self._see(start + asked, start + torch.arange(length, device=device))
        lefts, rights = [], []
        for place, row in zip(asked.tolist(), seen.tolist(), strict=True):
            if not row[place]:
                return None
            first, last = row.index(True), length - 1 - row[::-1].index(True)
            if not all(row[first : last + 1]):
                return None
            lefts.append(place - first if first else length)  # as far as the text goes
            rights.append(last - place if last < length - 1 else length)
        left, right = min(lefts), min(rights)
        if any(found not in (left, length) for found in lefts) or any(found not in (right, length) for found in rights):
            return None
        return left, right

    def whole(self, length: int, start: int, device: torch.device) -> Tensor:
        """Return the mask (T, T) of a text that begins at ``start``."""
        key = ("whole", length)
        if key not in self._made:
            places = start + torch.arange(length, device=device)
            self._made[key] = self._see(places, places)
        found: Tensor = self._made[key]
        return found

    def _see(self, queries: Tensor, keys: Tensor) -> Tensor:
        seen = self.function(0, 0, queries[:, None], keys[None, :])
        return torch.as_tensor(seen, device=queries.device).expand(len(queries), len(keys))


def _make_mask(*args: Any, mask_function: MaskFunction, attention_mask: Tensor | None = None, **kwargs: Any) -> Any:
    packing: Packing | None = getattr(_current, "packing", None)
    if packing is None:
        usual = AttentionMaskInterface()[USUAL]
        return usual(*args, mask_function=mask_function, attention_mask=attention_mask, **kwargs)
    if attention_mask is not None:
        raise ValueError("packed texts have no attention mask")
    return _Mask(mask_function, packing)


def _attend(
    module: Any, query: Tensor, key: Tensor, value: Tensor, attention_mask: Any, **kwargs: Any
) -> tuple[Tensor, None]:
    """Return attention's output (1, L, h, D) for queries (1, h, L, D) and keys and values of h or fewer heads."""
    # Layers that are computed again for their gradients know of the packing by the mask alone.
    is_ours = isinstance(attention_mask, _Mask)
    packing: Packing | None = attention_mask.packing if is_ours else getattr(_current, "packing", None)
    if packing is None:
        usual = AttentionInterface()[USUAL]
        found: tuple[Tensor, None] = usual(module, query, key, value, attention_mask, **kwargs)
        return found
    _refuse_unknown(module, attention_mask, kwargs)
    attend = _attend_varlen if _has_varlen(query) and not kwargs.get("dropout") else _attend_by_length
    scale = kwargs.get("scaling")
    output = attend(query[0], key[0], value[0], attention_mask, packing, scale, kwargs.get("dropout") or 0.0)
    return output.unsqueeze(0), None


def _refuse_unknown(module: Any, mask: Any, kwargs: dict[str, Any]) -> None:
    """Refuse what would be left out; the caller then pads."""
    if not isinstance(mask, _Mask):
        raise ValueError(f"{type(module).__name__} makes its mask by itself")
    extras = [name for name in ("position_bias", "softcap", "s_aux", "cache") if kwargs.get(name) is not None]
    if extras:
        raise ValueError(f"{type(module).__name__} attends with {extras}")


def _attend_by_length(
    query: Tensor, key: Tensor, value: Tensor, mask: _Mask, packing: Packing, scale: float | None, dropout: float
) -> Tensor:
    """Attend text length by text length (h, L, D) -> (L, h, D): without masks but for windows."""
    query, key, value = (part.transpose(0, 1) for part in (query, key, value))  # (L, h, D)
    outputs, start = [], 0
    for (n, length), (asked, keys, values) in zip(packing.groups, packing.by_length(query, key, value), strict=True):
        band = mask.band(length, start, query.device)
        is_full = band is not None and min(band) >= length - 1
        is_causal = band is not None and not is_full and band[0] >= length - 1 and band[1] == 0
        attended = F.scaled_dot_product_attention(
            asked.transpose(1, 2),
            keys.transpose(1, 2),
            values.transpose(1, 2),
            attn_mask=None if is_full or is_causal else mask.whole(length, start, query.device),
            is_causal=is_causal,
            scale=scale,
            dropout_p=dropout,
            enable_gqa=query.shape[1] != key.shape[1],
        )
        outputs.append(attended.transpose(1, 2).reshape(n * length, query.shape[1], -1))
        start += n * length
    return torch.cat(outputs)


def _attend_varlen(
    query: Tensor, key: Tensor, value: Tensor, mask: _Mask, packing: Packing, scale: float | None, dropout: float
) -> Tensor:
    """Attend in all texts at once (h, L, D) -> (L, h, D), by the flash kernel for texts of several lengths."""
    start = _longest_start(packing)
    band = mask.band(packing.longest, start, query.device)
    if band is None:
        return _attend_by_length(query, key, value, mask, packing, scale, dropout)
    window = tuple(-1 if reach >= packing.longest - 1 else reach for reach in band)
    bounds = packing.bounds(query.device)
    attended: Tensor = varlen_kernel()(
        *(part.transpose(0, 1).contiguous() for part in (query, key, value)),
        bounds,
        bounds,
        packing.longest,
        packing.longest,
        scale=scale,
        window_size=window,
        enable_gqa=query.shape[0] != key.shape[0],
    )
    return attended


def _longest_start(packing: Packing) -> int:
    """Return where the first of the longest texts begins."""
    start = 0
    for n, length in packing.groups:
        if length == packing.longest:
            return start
        start += n * length
    raise ValueError("there must be a text")


@cache
def varlen_kernel() -> Any:
    """Return torch's attention for texts of several lengths, for CUDA in half precision; None where it has none."""
    try:
        from torch.nn.attention.varlen import varlen_attn
    except ImportError:  # before torch 2.10
        return None
    return varlen_attn


def _has_varlen(query: Tensor) -> bool:
    is_half = query.dtype in (torch.float16, torch.bfloat16)
    return query.is_cuda and is_half and varlen_kernel() is not None


AttentionInterface.register(NAME, _attend)
AttentionMaskInterface.register(NAME, _make_mask)
