"""Encoders of the BERT family, read out of transformers' models as the layers that they are made of.

They differ in names, in how positions are counted, and in small extras. What is read are the model's own layers, so
that weights are never there twice and changes of them are seen.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers import PreTrainedModel
from transformers.activations import GELUActivation

from sbert_ray.modules.int8_layers import computes_in_int8


@dataclass(frozen=True)
class Layer:
    """One layer: attention, and a feed-forward network, each with a residual and then a norm."""

    query: nn.Linear
    key: nn.Linear
    value: nn.Linear
    output: nn.Linear
    attention_norm: nn.LayerNorm
    up: nn.Linear
    activation: Callable[[Tensor], Tensor]
    down: nn.Linear
    norm: nn.LayerNorm

    @property
    def is_exact_gelu(self) -> bool:
        """Whether the activation is x * Phi(x), which has a kernel that works in place."""
        is_module = isinstance(self.activation, GELUActivation) and self.activation.act is F.gelu
        return is_module or (isinstance(self.activation, nn.GELU) and self.activation.approximate == "none")

    def parts(self) -> list[nn.Module]:
        """Return all of them."""
        linear = [self.query, self.key, self.value, self.output, self.up, self.down]
        return [*linear, self.attention_norm, self.norm]


@dataclass(frozen=True)
class BertLike:
    """An encoder: embeddings of words, positions and types, a norm, and layers."""

    words: nn.Embedding
    positions: nn.Embedding
    types: nn.Embedding | None
    norm: nn.LayerNorm
    projection: nn.Linear | None
    """From the size of embeddings to that of the layers, for ELECTRA."""
    layers: tuple[Layer, ...]
    num_heads: int
    first_position: int = 0
    """The first token's row of ``positions``."""
    ignored_id: int | None = None
    """The id of tokens that do not count as positions, wherever they are, and have the row of this number."""
    position_bias: Callable[[int, torch.device], Tensor] | None = None
    """From a length T to what is added to attention's logits (1, heads, T, T), for MPNet."""

    def parts(self) -> Iterator[nn.Module]:
        """Yield every layer that has weights."""
        yield from filter(None, (self.words, self.positions, self.types, self.norm, self.projection))
        for layer in self.layers:
            yield from layer.parts()


_OTHER_MODES = ("is_decoder", "add_cross_attention", "output_hidden_states", "output_attentions")
"""Of a config, what makes more of a model than an encoder with one output."""


def read_bert_like(model: PreTrainedModel) -> BertLike | None:
    """Return the encoder in a model of transformers, which may have a head; None if it is another or a changed one.

    Changed are those with hooks, adapters, layers of other kinds, the attention of a decoder or to relative positions,
    or further outputs; layers that compute in 8-bit integers are none of that.
    """
    base = getattr(model, model.base_model_prefix, model)
    reader = _READERS.get(getattr(base.config, "model_type", ""))
    is_absolute = getattr(base.config, "position_embedding_type", "absolute") in ("absolute", None)
    if reader is None or not is_absolute or any(getattr(base.config, name, False) for name in _OTHER_MODES):
        return None
    try:
        found = reader(base)
    except AttributeError:  # another version of transformers, or another class under this type's name
        return None
    is_known = all(type(module) in (nn.Linear, nn.LayerNorm, nn.Embedding) for module in found.parts())
    return found if is_known and is_unchanged(model, base) else None


def is_unchanged(model: nn.Module, base: nn.Module) -> bool:
    """Return whether nothing but a model's own code runs when it is called.

    Args:
        model: The model. Of its head, layers may be changed, since they are called.
        base: What of it is not called but read.
    """
    if "forward" in vars(model) or getattr(model, "_compiled_call_impl", None) is not None:
        return False
    if any(module._forward_hooks or module._forward_pre_hooks for module in model.modules()):  # noqa: SLF001
        return False
    return all(
        type(module).__module__.startswith(("transformers.", "torch."))
        and ("forward" not in vars(module) or (computes_in_int8(module) and module.weight.dtype == torch.float32))
        for module in base.modules()
    )


def _bert(base: Any, **positions: Any) -> BertLike:
    embeddings = base.embeddings
    layers = []
    for layer in base.encoder.layer:
        attention = layer.attention
        inner = attention.self
        layers.append(
            Layer(
                inner.query,
                inner.key,
                inner.value,
                attention.output.dense,
                attention.output.LayerNorm,
                layer.intermediate.dense,
                layer.intermediate.intermediate_act_fn,
                layer.output.dense,
                layer.output.LayerNorm,
            )
        )
    return BertLike(
        embeddings.word_embeddings,
        embeddings.position_embeddings,
        embeddings.token_type_embeddings,
        embeddings.LayerNorm,
        getattr(base, "embeddings_project", None),
        tuple(layers),
        base.config.num_attention_heads,
        **positions,
    )


def _roberta(base: Any) -> BertLike:
    padding = base.embeddings.padding_idx
    return _bert(base, first_position=padding + 1, ignored_id=padding)


def _distilbert(base: Any) -> BertLike:
    layers = tuple(
        Layer(
            layer.attention.q_lin,
            layer.attention.k_lin,
            layer.attention.v_lin,
            layer.attention.out_lin,
            layer.sa_layer_norm,
            layer.ffn.lin1,
            layer.ffn.activation,
            layer.ffn.lin2,
            layer.output_layer_norm,
        )
        for layer in base.transformer.layer
    )
    embeddings = base.embeddings
    return BertLike(
        embeddings.word_embeddings,
        embeddings.position_embeddings,
        None,
        embeddings.LayerNorm,
        None,
        layers,
        base.config.n_heads,
    )


def _mpnet(base: Any) -> BertLike:
    encoder = base.encoder
    layers = tuple(
        Layer(
            layer.attention.attn.q,
            layer.attention.attn.k,
            layer.attention.attn.v,
            layer.attention.attn.o,
            layer.attention.LayerNorm,
            layer.intermediate.dense,
            layer.intermediate.intermediate_act_fn,
            layer.output.dense,
            layer.output.LayerNorm,
        )
        for layer in encoder.layer
    )
    padding = base.embeddings.padding_idx

    def bias(length: int, device: torch.device) -> Tensor:
        values: Tensor = encoder.compute_position_bias(torch.empty(1, length, 1, device=device))
        return values

    return BertLike(
        base.embeddings.word_embeddings,
        base.embeddings.position_embeddings,
        None,
        base.embeddings.LayerNorm,
        None,
        layers,
        base.config.num_attention_heads,
        padding + 1,
        padding,
        bias,
    )


_READERS: dict[str, Callable[[Any], BertLike]] = {
    "bert": _bert,
    "electra": _bert,
    "roberta": _roberta,
    "xlm-roberta": _roberta,
    "camembert": _roberta,
    "distilbert": _distilbert,
    "mpnet": _mpnet,
}


def classify(model: Any, first: Tensor) -> Tensor | None:
    """Return what a model's head makes of the first tokens (B, H), scores (B, K); None if the head reads others."""
    match model.config.model_type:
        case "bert":
            scores = model.classifier(model.bert.pooler(first.unsqueeze(1)))
        case "distilbert":
            scores = model.classifier(model.pre_classifier(first).relu())
        case "electra" | "roberta" | "xlm-roberta" | "camembert" | "mpnet":
            scores = model.classifier(first.unsqueeze(1))
        case _:
            return None
    return scores if isinstance(scores, Tensor) else None


def before_vocabulary(model: Any, hidden: Tensor) -> Tensor | None:
    """Return what a masked language model projects to its vocabulary, from hidden states (L, H); None if unknown."""
    match model.config.model_type:
        case "bert":
            transformed: Tensor = model.cls.predictions.transform(hidden)
        case "distilbert":
            transformed = model.vocab_layer_norm(model.activation(model.vocab_transform(hidden)))
        case "electra":
            transformed = model.generator_predictions(hidden)
        case "roberta" | "xlm-roberta" | "camembert" | "mpnet":
            transformed = model.lm_head.layer_norm(F.gelu(model.lm_head.dense(hidden)))
        case _:
            return None
    return transformed
