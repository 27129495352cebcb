"""What a transformer's config tells of the work and the memory that a text takes."""

from typing import Any

import torch

LIVE_ACTIVATIONS = 12
"""Activations of a model's width that exist at a time beside those of the feed-forward network, generously."""


def attention_length(config: Any) -> int | None:
    """Return the tokens at which attention is half of a text's work; None where the config does not tell.

    Per layer and token, the linear maps take 8 H^2 + 4 H I operations and attention 4 T H, with H dimensions and I of
    the feed-forward network.

    Args:
        config: Of a model of transformers, or None.
    """
    sizes = _sizes(config)
    if sizes is None or getattr(config, "vision_config", None) is not None:  # texts and images differ
        return None
    return 2 * sizes[0] + sizes[1]


def activation_bytes(config: Any, dtype: torch.dtype) -> int:
    """Return the bytes that the activations of a token take at a time; 0 where the config does not tell."""
    sizes = _sizes(config)
    return 0 if sizes is None else (LIVE_ACTIVATIONS * sizes[0] + 2 * sizes[1]) * dtype.itemsize


def _sizes(config: Any) -> tuple[int, int] | None:
    scope = config.get_text_config() if hasattr(config, "get_text_config") else config
    hidden = _first(scope, "hidden_size", "dim", "d_model", "n_embd")
    inner = _first(scope, "intermediate_size", "hidden_dim", "d_ff", "encoder_ffn_dim", "n_inner")
    return None if hidden is None else (hidden, inner or 4 * hidden)


def _first(config: Any, *names: str) -> int | None:
    return next((value for name in names if isinstance(value := getattr(config, name, None), int)), None)
