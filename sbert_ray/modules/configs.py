"""Configs of modules and transformers, whatever version wrote them, by one set of keys. Knows no torch."""

from collections.abc import Mapping
from typing import Any

POOLING_FLAGS = {  # in the order in which several are concatenated
    "pooling_mode_cls_token": "cls",
    "pooling_mode_max_tokens": "max",
    "pooling_mode_mean_tokens": "mean",
    "pooling_mode_mean_sqrt_len_tokens": "mean_sqrt_len_tokens",
    "pooling_mode_weightedmean_tokens": "weightedmean",
    "pooling_mode_lasttoken": "lasttoken",
}

TRANSFORMER_CONFIG_NAMES = tuple(
    f"sentence_{kind}_config.json"
    for kind in ("bert", "roberta", "distilbert", "camembert", "albert", "xlm-roberta", "xlnet")
)


def modern_pooling_config(config: Mapping[str, Any]) -> dict[str, Any]:
    """Return Pooling's constructor arguments; before 5.4 there was one flag per mode, and no flag meant the mean."""
    modern = {key: value for key, value in config.items() if key not in POOLING_FLAGS}
    if "word_embedding_dimension" in modern:
        dimension = modern.pop("word_embedding_dimension")
        modern.setdefault("embedding_dimension", dimension)
    modern.setdefault("pooling_mode", [mode for flag, mode in POOLING_FLAGS.items() if config.get(flag)] or "mean")
    return modern


def modern_transformer_config(config: Mapping[str, Any]) -> dict[str, Any]:
    """Return Transformer's config by today's keys; a stored config may not grant trust in remote code."""
    renamed = {"model_args": "model_kwargs", "tokenizer_args": "processor_kwargs", "config_args": "config_kwargs"}
    modern = {renamed.get(key, key): value for key, value in config.items()}
    for name in renamed.values():
        if name in modern:
            modern[name] = {key: value for key, value in modern[name].items() if key != "trust_remote_code"}
    return modern


def hidden_size(config: Mapping[str, Any]) -> int | None:
    """Return D of a transformer's token embeddings by its ``config.json``, which has many names for it."""
    for scope in (config, config.get("text_config") or {}):
        for name in ("hidden_size", "d_model", "dim", "n_embd", "hidden_dim"):
            if isinstance(size := scope.get(name), int):
                return size
    return None
