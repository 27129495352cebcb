"""Linear layers that compute in float32 within models of lower precision."""

from collections.abc import Sequence
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor, nn


def keep_in_float32(model: nn.Module, names: Sequence[str], before: Sequence[str] = ()) -> None:
    """Let linear layers compute in float32 and return it, even under autocast; their weights stay as they are.

    Args:
        model: The model.
        names: The layers' paths in it.
        before: Those of an earlier call, which compute as usual again.

    Raises:
        ValueError: A name is not that of a plain linear layer.
    """
    if isinstance(names, str) or not all(isinstance(name, str) for name in names):
        raise ValueError(f"keep_in_fp32_modules must be a list of paths of modules, got {names!r}")
    modules = dict(model.named_modules())
    for name in names:
        if type(modules.get(name)) is not nn.Linear:
            found = type(modules[name]).__name__ if name in modules else "nothing"
            raise ValueError(f"keep_in_fp32_modules must name linear layers; {name!r} is {found}")
    for name in before:
        modules[name].__dict__.pop("forward", None)
    for name in names:
        modules[name].forward = partial(_forward, modules[name])


def _forward(layer: nn.Linear, x: Tensor) -> Tensor:
    bias = None if layer.bias is None else layer.bias.float()
    with torch.autocast(x.device.type, enabled=False):
        return F.linear(x.float(), layer.weight.float(), bias)
