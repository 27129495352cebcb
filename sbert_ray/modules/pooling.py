"""Pooling: from one embedding per token to one per text.

Shapes: B texts, T tokens with padding, D embedding dimensions. A mask is 1 on real tokens and 0 on padding, which may
be on either side.
"""

import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import wraps
from pathlib import Path
from typing import Any, ParamSpec, Self, cast

import torch
from torch import Tensor

from sbert_ray.inference.prepared import Features
from sbert_ray.modules.configs import POOLING_FLAGS, RENAMED_KEYS, modern_pooling_config
from sbert_ray.modules.module import Module
from sbert_ray.modules.token_logits import whole
from sbert_ray.renamed import renamed

P = ParamSpec("P")


@dataclass(frozen=True)
class Tokens:
    """What a pooler reads: a batch of token embeddings, and which of them count."""

    embeddings: Tensor
    """(B, T, D)"""
    mask: Tensor
    """(B, T), 1 where a token is pooled"""
    first: Tensor
    """(B,), position of each text's first real token, its prompt's included"""
    weight: Tensor | None = None
    """(B,), the sum of the weights that the embeddings were multiplied with upstream"""

    def weighted_sum(self, weights: Tensor) -> tuple[Tensor, Tensor]:
        """Return the sum (B, D) of the embeddings times ``weights`` (B, T), and the weights' sum (B, 1)."""
        # Half precision loses the sum of a long text, hence float32.
        dtype = torch.promote_types(self.embeddings.dtype, torch.float32)
        weights = weights.to(dtype)
        total = torch.einsum("btd,bt->bd", self.embeddings.to(dtype), weights)
        weight = weights.sum(1) if self.weight is None else self.weight.to(dtype)
        return total, weight.clamp(min=1e-9).unsqueeze(-1)

    def at(self, positions: Tensor) -> Tensor:
        """Return the embedding at one position (B,) of each text, as (B, D)."""
        return self.embeddings[torch.arange(len(positions), device=positions.device), positions]


def cls_pool(tokens: Tokens) -> Tensor:
    """First pooled token of each text."""
    return tokens.at(_first(tokens.mask))


def max_pool(tokens: Tokens) -> Tensor:
    """Largest value of each dimension; zeros where there is no token."""
    largest = tokens.embeddings.masked_fill(tokens.mask.unsqueeze(-1) == 0, float("-inf")).amax(1)
    return largest.masked_fill(~tokens.mask.any(1, keepdim=True), 0.0)


def mean_pool(tokens: Tokens) -> Tensor:
    """Mean."""
    total, count = tokens.weighted_sum(tokens.mask)
    return total / count


def mean_sqrt_len_pool(tokens: Tokens) -> Tensor:
    """Sum over the square root of the number of tokens."""
    total, count = tokens.weighted_sum(tokens.mask)
    return total / count.sqrt()


def weighted_mean_pool(tokens: Tokens) -> Tensor:
    """Mean weighted by position 1..T from the first real token (SGPT, arXiv:2202.08904)."""
    positions = torch.arange(1, tokens.mask.shape[1] + 1, device=tokens.mask.device)
    total, weight = tokens.weighted_sum(tokens.mask * (positions - tokens.first.unsqueeze(1)))
    return total / weight


def last_token_pool(tokens: Tokens) -> Tensor:
    """Last pooled token of each text; zeros where there is none."""
    last = tokens.mask.shape[1] - 1 - _first(tokens.mask.flip(1))
    return tokens.at(last) * tokens.mask.any(1).unsqueeze(-1)


def _first(mask: Tensor) -> Tensor:
    return mask.to(torch.int32).argmax(1)


POOLERS: dict[str, Callable[[Tokens], Tensor]] = {  # in the order in which legacy checkpoints concatenate them
    "cls": cls_pool,
    "max": max_pool,
    "mean": mean_pool,
    "mean_sqrt_len_tokens": mean_sqrt_len_pool,
    "weightedmean": weighted_mean_pool,
    "lasttoken": last_token_pool,
}


def _with_flags(function: Callable[P, None]) -> Callable[P, None]:
    """Let a constructor take the flags of before 5.4, such as ``pooling_mode_cls_token=True``, with a warning."""

    @wraps(function)
    def call(*args: P.args, **kwargs: P.kwargs) -> None:
        if flags := sorted(kwargs.keys() & POOLING_FLAGS.keys()):
            message = f"the arguments {flags} are one, pooling_mode, now"
            warnings.warn(message, FutureWarning, stacklevel=3)  # where the caller of the outer decorator is
            kwargs.update(modern_pooling_config(kwargs))
            for flag in flags:
                del kwargs[flag]
        function(*args, **kwargs)

    return call


class Pooling(Module):
    """Pools ``token_embeddings`` (B, T, D) into ``sentence_embedding`` (B, number of modes * D).

    Args:
        embedding_dimension: D of the token embeddings.
        pooling_mode: One of `POOLERS`, or several, whose results are concatenated in that order.
        include_prompt: Whether the tokens of the prompt are pooled too; INSTRUCTOR models leave them out.
    """

    public_path = "sentence_transformers.sentence_transformer.modules.pooling.Pooling"

    @renamed(**RENAMED_KEYS["Pooling"])
    @_with_flags
    def __init__(
        self, embedding_dimension: int, pooling_mode: str | Sequence[str] = "mean", include_prompt: bool = True
    ) -> None:
        super().__init__()
        modes = (pooling_mode,) if isinstance(pooling_mode, str) else tuple(pooling_mode)
        if unknown := sorted(set(modes) - POOLERS.keys()):
            raise ValueError(f"unknown pooling modes {unknown}; known modes are {list(POOLERS)}")
        if not modes:
            raise ValueError(f"pooling_mode must name at least one of {list(POOLERS)}")
        self.embedding_dimension = embedding_dimension
        self.pooling_mode: str | tuple[str, ...] = modes[0] if len(modes) == 1 else modes
        self.modes = modes
        self.include_prompt = include_prompt

    @property
    def takes_packed(self) -> bool:
        """Whether the module can follow a transformer whose texts are packed."""
        return True

    def forward(self, features: Features) -> Features:
        """Add ``sentence_embedding``; a mask that is missing or of another width counts every token."""
        embeddings = whole(features["token_embeddings"])
        if (packing := features.get("packing")) is not None:
            plain = {name: features[name] for name in ("prompt_length",) if name in features}
            texts = (plain | {"token_embeddings": view} for (view,) in packing.by_length(embeddings.flatten(0, -2)))
            return features | {"sentence_embedding": torch.cat([self(part)["sentence_embedding"] for part in texts])}
        mask = features.get("attention_mask")
        if mask is None or mask.shape[-1] != embeddings.shape[1]:
            mask = torch.ones(embeddings.shape[:2], dtype=torch.int64, device=embeddings.device)
        first = _first(mask)
        if not self.include_prompt and "prompt_length" in features:
            positions = torch.arange(mask.shape[1], device=mask.device)
            mask = mask * (positions >= (first + int(features["prompt_length"][0])).unsqueeze(1))
        tokens = Tokens(embeddings, mask, first, features.get("token_weights_sum"))
        by_mode = [self._pool(mode, tokens, features).to(embeddings.dtype) for mode in self.modes]
        return features | {"sentence_embedding": torch.cat(by_mode, dim=-1)}

    @property
    def reads_firsts_only(self) -> bool:
        """Whether nothing but each text's first token is read, unless that is a prompt's."""
        return self.modes == ("cls",) and self.include_prompt

    @staticmethod
    def _pool(mode: str, tokens: Tokens, features: Features) -> Tensor:
        if mode == "cls" and "cls_token_embeddings" in features:
            return cast(Tensor, features["cls_token_embeddings"])
        return POOLERS[mode](tokens)

    def get_embedding_dimension(self) -> int:
        """Return the number of modes times D."""
        return len(self.modes) * self.embedding_dimension

    def config(self) -> dict[str, Any]:
        """Return the constructor's arguments."""
        mode = self.pooling_mode
        return {
            "embedding_dimension": self.embedding_dimension,
            "pooling_mode": mode if isinstance(mode, str) else list(mode),
            "include_prompt": self.include_prompt,
        }

    @classmethod
    def _from_config(cls, config: dict[str, Any], folder: Path) -> Self:
        return super()._from_config(modern_pooling_config(config), folder)
