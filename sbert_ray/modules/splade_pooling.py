"""SPLADE pooling: from logits over the vocabulary per token to one sparse embedding per text.

Shapes: B texts, T tokens with padding, V entries of the vocabulary. A mask is 1 on real tokens and 0 on padding.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import reduce
from pathlib import Path
from typing import Any, Literal, Self, cast

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from sbert_ray.inference.packing import Packing
from sbert_ray.inference.prepared import Features
from sbert_ray.modules.module import Module, known_keys
from sbert_ray.modules.token_logits import PART_BYTES, TokenLogits

STRATEGIES = ("max", "sum")
BLOCK_TOKENS = 512
BLOCK_ENTRIES = 1024
"""Tokens, and entries of the vocabulary, whose logits exist at a time: 2 MiB, what a core has for a cache."""
ACTIVATIONS = {"relu": 1, "log1p_relu": 2}
"""How often log1p follows the relu."""


def largest_products(
    hidden: Tensor, layer: nn.Linear, packing: Packing, activate_: Callable[[Tensor], object]
) -> Tensor:
    """Return the activations of each text's largest logits (B, V): logits are what a layer makes of tokens.

    The bias is the same for all tokens, so it is added to the largest product. Products exist for some tokens and some
    entries of the vocabulary at a time, so few that they do not leave the cache.

    Args:
        hidden: Of the tokens (L, H).
        layer: From H to V.
        packing: Where the texts are among the tokens.
        activate_: What is applied to the largest logits, in place.
    """
    size = len(layer.weight)
    pooled = hidden.new_empty(packing.num_texts, size)
    buffer = hidden.new_empty(BLOCK_TOKENS * min(BLOCK_ENTRIES, size))
    row = 0
    for n, length, start, step in _blocks_of(packing, BLOCK_TOKENS):
        for entry in range(0, size, BLOCK_ENTRIES):
            entries = slice(entry, entry + BLOCK_ENTRIES)
            weight, target = layer.weight[entries], pooled[row : row + n, entries]
            for first in range(0, length, step):  # several times only for a single long text
                width = min(step, length - first)
                tokens = hidden[start + first : start + first + n * width]
                products = buffer[: len(tokens) * len(weight)].view(len(tokens), len(weight))
                by_text = torch.mm(tokens, weight.t(), out=products).view(n, width, -1)
                if first:
                    torch.maximum(target, by_text.amax(1), out=target)
                else:
                    torch.amax(by_text, 1, out=target)
            if layer.bias is not None:
                target += layer.bias[entries]
            activate_(target)
        row += n
    return pooled


def _is_inference(layer: nn.Linear, hidden: Tensor) -> bool:
    """Return whether products may be written in place."""
    is_autocast = torch.is_autocast_enabled(hidden.device.type)
    return not torch.is_grad_enabled() and not is_autocast and layer.weight.dtype == hidden.dtype


def _blocks_of(packing: Packing, max_tokens: int) -> Iterator[tuple[int, int, int, int]]:
    """Yield texts of one length that have up to ``max_tokens`` tokens: their number n, length, first token, and step.

    The step is how many tokens of each text to read at a time: all, but of a text that is longer than that.
    """
    start = 0
    for count, length in packing.groups:
        at_once = max(max_tokens // length, 1)
        for done in range(0, count, at_once):
            n = min(at_once, count - done)
            yield n, length, start, min(length, max_tokens)
            start += n * length


def _texts_of(packing: Packing, logits: TokenLogits) -> Iterator[tuple[int, int, int, int]]:
    size = max(logits.shape[-1] * logits.dtype.itemsize, 1)
    return _blocks_of(packing, max(PART_BYTES // size, 1))


class SpladePooling(Module):
    """Pools logits ``token_embeddings`` (B, T, V) into ``sentence_embedding`` (B, V).

        v = pool over the text's tokens of log(1 + relu(logits))

    with another log(1 + v) for ``log1p_relu``. Of logits that are computed when asked for, only some are there at a
    time; their sum, and the gradient of their maximum, need no more than that either.

    Args:
        pooling_strategy: ``max`` or ``sum``.
        activation_function: ``relu``, or ``log1p_relu``.
        embedding_dimension: V; the first batch tells it if None.
        chunk_size: The most tokens of each text to read at a time; None or 0 reads as many as memory is set aside for.

    Raises:
        ValueError: An argument is not among its choices.

    References:
        Formal et al. 2021, SPLADE, arXiv:2107.05720 (sum); SPLADE v2, arXiv:2109.10086 (max).
        Shen et al. 2025, inference-free sparse retrievers, arXiv:2504.14839 (log1p_relu).
    """

    public_path = "sentence_transformers.sparse_encoder.modules.splade_pooling.SpladePooling"

    def __init__(
        self,
        pooling_strategy: Literal["max", "sum"] = "max",
        activation_function: Literal["relu", "log1p_relu"] = "relu",
        embedding_dimension: int | None = None,
        chunk_size: int | None = None,
    ) -> None:
        super().__init__()
        if pooling_strategy not in STRATEGIES:
            raise ValueError(f"pooling_strategy must be one of {list(STRATEGIES)}, got {pooling_strategy!r}")
        if activation_function not in ACTIVATIONS:
            raise ValueError(f"activation_function must be one of {list(ACTIVATIONS)}, got {activation_function!r}")
        self.pooling_strategy = pooling_strategy
        self.activation_function = activation_function
        self.embedding_dimension = embedding_dimension
        self.chunk_size = chunk_size

    @property
    def takes_packed(self) -> bool:
        """Whether the module can follow a transformer whose texts are packed."""
        return True

    def forward(self, features: Features) -> Features:
        """Add ``sentence_embedding``; without a mask every token counts, and a text without tokens gives zeros."""
        logits = features["token_embeddings"]
        logits = logits if isinstance(logits, TokenLogits) else TokenLogits.of(logits)
        if (packing := features.get("packing")) is not None:
            return self._with_embedding(features, self._pool_packed(logits, packing))
        mask = features.get("attention_mask")
        if mask is not None and bool(mask.all()):
            mask = None
        max_columns = self.chunk_size if self.chunk_size and self.chunk_size > 0 else None
        pooled = torch.cat(
            [
                reduce(self._merge, (self._pool(logits, mask, rows, some) for some in columns))
                for rows, columns in logits.parts(max_columns)
            ]
        )
        if self.pooling_strategy == "max":
            pooled = self._activate(pooled)  # which keeps the order, so that one value per text will do
        return self._with_embedding(features, pooled)

    def _with_embedding(self, features: Features, pooled: Tensor) -> Features:
        if self.embedding_dimension is None:
            self.embedding_dimension = pooled.shape[-1]
        return features | {"sentence_embedding": pooled}

    def _pool_packed(self, logits: TokenLogits, packing: Packing) -> Tensor:
        """Return the embeddings (B, V) of packed texts, whose logits (1, L, V) never exist for many tokens at once."""
        is_max = self.pooling_strategy == "max"
        layer, hidden = logits.linear, logits.hidden
        if is_max and layer is not None and hidden is not None and _is_inference(layer, hidden):
            return largest_products(hidden[0], layer, packing, self._activate_)
        pooled = torch.cat([self._pool_texts(logits, *texts) for texts in _texts_of(packing, logits)])
        return self._activate(pooled) if is_max else pooled

    def _pool_texts(self, logits: TokenLogits, n: int, length: int, start: int, step: int) -> Tensor:
        """Pool n texts of one length, of which all tokens or ``step`` of a single one are read at a time."""
        pieces = []
        for first in range(0, length, step):
            width = min(step, length - first)
            place = start + first
            tokens = TokenLogits.of(
                logits.compute(slice(0, 1), slice(place, place + n * width))[0].unflatten(0, (n, width))
            )
            pieces.append(self._pool(tokens, None, slice(None), slice(None)))
        return reduce(self._merge, pieces)

    def _merge(self, first: Tensor, second: Tensor) -> Tensor:
        return torch.maximum(first, second) if self.pooling_strategy == "max" else first + second

    def _pool(self, logits: TokenLogits, mask: Tensor | None, rows: slice, columns: slice) -> Tensor:
        """Return the largest logits, or the sums of activations, of some tokens of some texts (b, V)."""
        if self.pooling_strategy == "sum" and torch.is_grad_enabled():
            # The gradient of a sum reads all activations, so they are computed again then.
            return cast(Tensor, checkpoint(self._pool_now, logits, mask, rows, columns, use_reentrant=False))
        return self._pool_now(logits, mask, rows, columns)

    def _pool_now(self, logits: TokenLogits, mask: Tensor | None, rows: slice, columns: slice) -> Tensor:
        part = logits.compute(rows, columns)  # (b, t, V)
        if mask is not None:
            part = part.masked_fill(mask[rows, columns].unsqueeze(-1) == 0, float("-inf"))
        if self.pooling_strategy == "sum":
            return self._activate(part).sum(1)
        # The gradient of `max` needs indices only, that of `amax`, which is faster, all logits.
        return part.max(1).values if torch.is_grad_enabled() else part.amax(1)

    def _activate(self, logits: Tensor) -> Tensor:
        activated = logits.relu()
        for _ in range(ACTIVATIONS[self.activation_function]):
            activated = activated.log1p()
        return activated

    def _activate_(self, logits: Tensor) -> None:
        logits.relu_()
        for _ in range(ACTIVATIONS[self.activation_function]):
            logits.log1p_()

    def get_embedding_dimension(self) -> int | None:
        """Return V, where it is known; the module before knows it in any case."""
        return self.embedding_dimension

    def config(self) -> dict[str, Any]:
        """Return the constructor's arguments, ``chunk_size`` aside, which is a matter of the machine."""
        return {
            "pooling_strategy": self.pooling_strategy,
            "activation_function": self.activation_function,
            "embedding_dimension": self.embedding_dimension,
        }

    @classmethod
    def default(cls, config: Mapping[str, Any], before: Sequence[Module]) -> Self:
        """Build the module that a checkpoint without it gets, after the modules before it."""
        return cls(**{"embedding_dimension": before[-1].get_embedding_dimension() if before else None} | dict(config))

    @classmethod
    def _from_config(cls, config: dict[str, Any], folder: Path) -> Self:
        names = {"pooling_strategy", "activation_function", "embedding_dimension", "chunk_size"}
        if "word_embedding_dimension" in config:  # its name before 5.4
            config = {"embedding_dimension": config["word_embedding_dimension"]} | config
            del config["word_embedding_dimension"]
        return super()._from_config(known_keys(config, names, folder), folder)
