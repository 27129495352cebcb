"""Activations by the dotted paths that checkpoints give them."""

import inspect
from collections.abc import Callable
from importlib import import_module
from typing import Any

from torch import Tensor, nn

Activation = Callable[[Tensor], Tensor]


def activation(path: str, setting: str) -> nn.Module:
    """Build the activation that a checkpoint names.

    A checkpoint may not name anything but torch's own: building an arbitrary class would run its code.

    Args:
        path: The dotted path of a class of ``torch.nn`` that needs no arguments.
        setting: What the checkpoint calls it.

    Raises:
        ValueError: It is something else.
    """
    package, _, name = str(path).rpartition(".")
    if package == "torch.nn" or package.startswith("torch.nn.modules."):
        found = getattr(import_module(package), name, None)
        if inspect.isclass(found) and issubclass(found, nn.Module) and not _needs_arguments(found):
            return found()
    raise ValueError(f"{setting} must be a module of torch.nn, got {path!r}")


def activation_path(function: Any) -> str:
    """Return the dotted path under which a checkpoint keeps an activation: that of its class."""
    kind = function if inspect.isclass(function) else type(function)
    return str(kind.__qualname__ if kind.__module__ == "builtins" else f"{kind.__module__}.{kind.__qualname__}")


def _needs_arguments(kind: type[nn.Module]) -> bool:
    parameters = inspect.signature(kind).parameters.values()
    variadic = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)
    return any(p.default is inspect.Parameter.empty and p.kind not in variadic for p in parameters)
