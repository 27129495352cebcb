"""The steps that models are made of, by the name that checkpoints give them. Imported on first use, torch with them."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from sbert_ray.inference.prepared import Features
    from sbert_ray.modules.dense import Dense
    from sbert_ray.modules.dropout import Dropout
    from sbert_ray.modules.layer_norm import LayerNorm
    from sbert_ray.modules.module import InputModule, LoadOptions, Module
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

INPUT_MODULES = {"Transformer"}
"""Those that may come first in a model."""

__all__ = [
    "INPUT_MODULES",
    "MODULES",
    "Dense",
    "Dropout",
    "Features",
    "InputModule",
    "LayerNorm",
    "LoadOptions",
    "Module",
    "Normalize",
    "Pooling",
    "Transformer",
]

_HOMES = {
    **MODULES,
    **dict.fromkeys(("InputModule", "LoadOptions", "Module"), "sbert_ray.modules.module"),
    "Features": "sbert_ray.inference.prepared",
}


def __getattr__(name: str) -> Any:
    if name in _HOMES:
        return getattr(import_module(_HOMES[name]), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
