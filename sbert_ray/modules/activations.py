"""Activations by the dotted paths that checkpoints give them."""

import inspect
import logging
from collections.abc import Callable
from importlib import import_module
from typing import Any

from torch import Tensor, nn

logger = logging.getLogger(__name__)

Activation = Callable[[Tensor], Tensor]
PACKAGES = ("torch.nn", "torch.nn.modules.activation", "torch.nn.modules.linear")
"""Where torch's activations, and Identity, are."""
FUNCTIONS = ("function", "builtin_function_or_method")
"""What checkpoints say of functions that have no class of their own."""


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
    if package in PACKAGES:
        found = getattr(import_module(package), name, None)
        if inspect.isclass(found) and issubclass(found, nn.Module) and not _needs_arguments(found):
            return found()
    raise ValueError(f"{setting} must be a module of torch.nn, got {path!r}; where you know better, pass it yourself")


def stored_activation(path: str, setting: str) -> nn.Module | None:
    """Build the activation that a checkpoint names; None, with a warning, where it names a function's type.

    Args:
        path: The dotted path that the checkpoint has.
        setting: What the checkpoint calls it.

    Raises:
        ValueError: It is neither.
    """
    if path in FUNCTIONS:
        logger.warning("the checkpoint does not say which function its %s is; the default one takes its place", setting)
        return None
    return activation(path, setting)


def saved_path(function: Any) -> str | None:
    """Return what a checkpoint says of an activation; None, with a warning, for one that it cannot name."""
    path = activation_path(function)
    try:
        activation(path, "activation_fn")
    except ValueError as error:
        logger.warning("a saved model will not know its activation: %s", error)
        return None
    return path


def activation_path(function: Any) -> str:
    """Return the dotted path under which a checkpoint keeps an activation: that of its class."""
    kind = function if inspect.isclass(function) else type(function)
    return str(kind.__qualname__ if kind.__module__ == "builtins" else f"{kind.__module__}.{kind.__qualname__}")


def _needs_arguments(kind: type[nn.Module]) -> bool:
    parameters = inspect.signature(kind).parameters.values()
    variadic = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)
    return any(p.default is inspect.Parameter.empty and p.kind not in variadic for p in parameters)
