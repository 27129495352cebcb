"""The dimension of the embeddings that a module makes, by its files alone. Knows no torch."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open

_KEYS = {
    "Dense": "out_features",
    "LayerNorm": "dimension",
    "SparseAutoEncoder": "hidden_dim",
    "WeightedLayerPooling": "embedding_dimension",
}
"""Keys of configs that hold it."""
_VECTORS = {"StaticEmbedding": ("embedding.weight", "embeddings"), "WordEmbeddings": ("emb_layer.weight",)}
"""Names of weights (V, D)."""


def module_dimension(kind: str, config: Mapping[str, Any], folder: Path) -> int | None:
    """Return the dimension of the embeddings that come out of a module; None if it leaves it, or nothing tells it.

    Args:
        kind: The module's name.
        config: Its config, by today's keys.
        folder: Its folder.

    Raises:
        ValueError: Its weights cannot be read.
    """
    if kind == "Pooling":
        size, modes = config.get("embedding_dimension"), config["pooling_mode"]
        return size and size * (1 if isinstance(modes, str) else len(modes))
    if kind == "LSTM":
        size = config.get("hidden_dim")
        return size and size * (2 if config.get("bidirectional", True) else 1)
    if kind == "CNN":
        return int(config.get("out_channels", 256)) * len(config.get("kernel_sizes", (1, 3, 5)))
    if kind == "BoW":
        return len(set(config.get("vocab", ())))
    if kind in _VECTORS:
        return _width(folder / "model.safetensors", _VECTORS[kind])
    size = config.get(_KEYS.get(kind, ""))
    return int(size) if size else None


def _width(path: Path, names: tuple[str, ...]) -> int | None:
    """Return D of the weights (V, D) in a file, without reading them."""
    if not path.exists():
        return None
    try:
        with safe_open(path, framework="numpy") as weights:
            found = next((name for name in names if name in weights.keys()), None)  # noqa: SIM118 (no mapping)
            return None if found is None else int(weights.get_slice(found).get_shape()[-1])
    except SafetensorError as error:
        raise ValueError(f"{str(path)!r} must hold safetensors: {error}") from error
