"""The steps that models are made of, by the name that checkpoints give them. Imported on first use, torch with them."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from sbert_ray.modules.dense import Dense
    from sbert_ray.modules.dropout import Dropout
    from sbert_ray.modules.layer_norm import LayerNorm
    from sbert_ray.modules.module import Features, LoadOptions, Module
    from sbert_ray.modules.normalize import Normalize
    from sbert_ray.modules.pooling import Pooling
    from sbert_ray.modules.transformer import Transformer

MODULES = {
    "Dense": "sbert_ray.modules.dense",
    "Dropout": "sbert_ray.modules.dropout",
    "LayerNorm": "sbert_ray.modules.layer_norm",
    "Normalize": "sbert_ray.modules.normalize",
    "Pooling": "sbert_ray.modules.pooling",
    "Transformer": "sbert_ray.modules.transformer",
}
"""Where the module of each name in ``modules.json`` is defined."""

__all__ = [
    "MODULES",
    "Dense",
    "Dropout",
    "Features",
    "LayerNorm",
    "LoadOptions",
    "Module",
    "Normalize",
    "Pooling",
    "Transformer",
]

_HOMES = MODULES | dict.fromkeys(("Features", "LoadOptions", "Module"), "sbert_ray.modules.module")


def __getattr__(name: str) -> Any:
    if name in _HOMES:
        return getattr(import_module(_HOMES[name]), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
