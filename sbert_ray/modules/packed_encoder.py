"""An encoder of the BERT family run on packed texts: no padding, no mask, few passes over memory. For inference.

Shapes: L tokens of all texts, B texts, n texts of one length T, H dimensions, I of the feed-forward network.

Against the same layers in transformers: keys have no bias, which shifts all logits of a query alike and so leaves the
softmax as it is; the bias of values is added to the context, since the weights of attention sum to 1; residuals are
what the matrix product adds to, in place; and the wide activations exist for `FEED_FORWARD_TOKENS` tokens at a time,
which stay in the cache. Numbers differ by rounding alone.
"""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from sbert_ray.inference.int8 import outputs_of
from sbert_ray.inference.packing import Packing
from sbert_ray.modules.bert_family import BertLike, Layer
from sbert_ray.modules.int8_layers import computes_in_int8, quantized

FEED_FORWARD_TOKENS = 1024
"""Measured on one core of a Xeon with MiniLM: 2 to 4 % faster than all tokens of a batch at once."""
GELU_LEAST = -0.17
"""What x * Phi(x) is never less than: its minimum is -0.16997."""


def run_packed(
    encoder: BertLike, ids: Tensor, packing: Packing, type_ids: Tensor | None = None, *, firsts_only: bool = False
) -> Tensor:
    """Return the last hidden states (L, H), or with ``firsts_only`` those of each text's first token (B, H).

    Args:
        encoder: Its layers, at least one.
        ids: Of the tokens (L,).
        packing: Where the texts are among them.
        type_ids: Of the tokens (L,); zeros if None.
        firsts_only: Whether to compute the last layer for the first tokens alone, as its other outputs are not read.
    """
    x = _embed(encoder, ids, packing, type_ids)
    run = _Run(encoder, packing, _Buffers.like(x, encoder), _position_biases(encoder, packing, x))
    *layers, last = encoder.layers
    for layer in layers:
        x = run.layer(x, layer)
    return run.layer(x, last, firsts_only=firsts_only)


@dataclass(frozen=True)
class _Buffers:
    """What every layer writes to anew; memory that is asked for again and again costs page faults."""

    query: Tensor
    key: Tensor
    value: Tensor
    context: Tensor
    wide: Tensor

    @classmethod
    def like(cls, x: Tensor, encoder: BertLike) -> "_Buffers":
        query, key, value, context = (torch.empty_like(x) for _ in range(4))
        width = max(layer.up.out_features for layer in encoder.layers)
        return cls(query, key, value, context, x.new_empty(min(len(x), FEED_FORWARD_TOKENS) * width))


@dataclass(frozen=True)
class _Run:
    """What the layers of one run have in common."""

    encoder: BertLike
    packing: Packing
    buffers: _Buffers
    biases: list[Tensor | None]
    """Of attention's logits, for each length."""

    def layer(self, x: Tensor, layer: Layer, *, firsts_only: bool = False) -> Tensor:
        """Return the layer's output; ``x`` (L, H) is used up."""
        x, query, value_bias = self._project(x, layer, firsts_only=firsts_only)
        context = self._attend(query, value_bias, firsts_only=firsts_only)
        x = _norm(_add_linear(x, context, layer.output), layer.attention_norm)
        for start in range(0, len(x), FEED_FORWARD_TOKENS):
            part = x[start : start + FEED_FORWARD_TOKENS]
            wide = self.buffers.wide[: len(part) * layer.up.out_features].view(len(part), -1)
            wide = _activate(_linear(part, layer.up, wide), layer)
            _add_linear(part, wide, layer.down, GELU_LEAST if layer.is_exact_gelu else None)
        return _norm(x, layer.norm)

    def _project(self, x: Tensor, layer: Layer, *, firsts_only: bool) -> tuple[Tensor, Tensor, Tensor | None]:
        """Write keys and values to their buffers; return the tokens that ask, their queries, and a bias of values."""
        in_int8 = [found for part in (layer.query, layer.key, layer.value) if (found := quantized(part)) is not None]
        if len(in_int8) == 3 and not firsts_only:
            outputs_of(in_int8, x, (self.buffers.query, self.buffers.key, self.buffers.value))
            return x, self.buffers.query, None
        _linear(x, layer.key, self.buffers.key, with_bias=False)
        _linear(x, layer.value, self.buffers.value, with_bias=False)
        value_bias = None if computes_in_int8(layer.value) else layer.value.bias  # which is in there then
        if firsts_only:
            x = x[self.packing.starts(x.device)]
        return x, _linear(x, layer.query, self.buffers.query[: len(x)]), value_bias

    def _attend(self, query: Tensor, value_bias: Tensor | None, *, firsts_only: bool) -> Tensor:
        """Return the context of queries, (L, H) or with ``firsts_only`` (B, H), of the keys and values in buffers."""
        context, num_heads = self.buffers.context[: len(query)], self.encoder.num_heads
        views = self.packing.by_length(self.buffers.key, self.buffers.value)
        start = 0
        for (keys, values), (n, length), bias in zip(views, self.packing.groups, self.biases, strict=True):
            asked = 1 if firsts_only else length
            end = start + n * asked
            queries, target = (part[start:end].view(n, asked, num_heads, -1) for part in (query, context))
            attended = F.scaled_dot_product_attention(
                queries.transpose(1, 2),
                keys.unflatten(2, (num_heads, -1)).transpose(1, 2),
                values.unflatten(2, (num_heads, -1)).transpose(1, 2),
                attn_mask=None if bias is None else bias[:, :, :asked],
            ).transpose(1, 2)  # (n, asked, heads, H / heads)
            if value_bias is None:
                target.copy_(attended)
            else:
                torch.add(attended, value_bias.view(num_heads, -1), out=target)
            start = end
        return context


def _embed(encoder: BertLike, ids: Tensor, packing: Packing, type_ids: Tensor | None) -> Tensor:
    x = F.embedding(ids, encoder.words.weight)
    x += F.embedding(packing.counted(ids, encoder.first_position, encoder.ignored_id), encoder.positions.weight)
    if encoder.types is not None:
        x += encoder.types.weight[0] if type_ids is None else F.embedding(type_ids, encoder.types.weight)
    x = _norm(x, encoder.norm)
    return x if encoder.projection is None else F.linear(x, encoder.projection.weight, encoder.projection.bias)


def _position_biases(encoder: BertLike, packing: Packing, x: Tensor) -> list[Tensor | None]:
    if encoder.position_bias is None:
        return [None] * len(packing.groups)
    return [encoder.position_bias(length, x.device).to(x.dtype) for _, length in packing.groups]


def _linear(x: Tensor, layer: nn.Linear, out: Tensor, *, with_bias: bool = True) -> Tensor:
    """Write to ``out`` what a layer makes of ``x``; in 8-bit integers, the bias is always in it."""
    if (in_int8 := quantized(layer)) is not None:
        return in_int8(x, out=out)
    if layer.bias is None or not with_bias:
        return torch.mm(x, layer.weight.t(), out=out)
    return torch.addmm(layer.bias, x, layer.weight.t(), out=out)


def _add_linear(x: Tensor, y: Tensor, layer: nn.Linear, least: float | None = None) -> Tensor:
    """Add to ``x`` what a layer makes of ``y``, of which nothing is less than ``least``."""
    if (in_int8 := quantized(layer)) is not None:
        return in_int8.add_to(x, y, least)
    x.addmm_(y, layer.weight.t())
    return x if layer.bias is None else x.add_(layer.bias)


def _activate(x: Tensor, layer: Layer) -> Tensor:
    if layer.is_exact_gelu:
        torch.ops.aten.gelu_(x)
        return x
    return layer.activation(x)


def _norm(x: Tensor, norm: nn.LayerNorm) -> Tensor:
    return F.layer_norm(x, norm.normalized_shape, norm.weight, norm.bias, norm.eps)
