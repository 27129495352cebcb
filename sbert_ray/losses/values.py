"""What losses return: a number, or several by name of which the sum is to be minimised."""

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

Value = Tensor | dict[str, Tensor]
"""A loss, or its components by name."""


def components(value: Value) -> Mapping[str, Tensor]:
    """Return the components of a loss by name; one that is a single number has the empty name."""
    return value if isinstance(value, dict) else {"": value}


def from_components(found: Mapping[str, Tensor]) -> Value:
    """Return the loss with these components: the other way round."""
    return found[""] if list(found) == [""] else dict(found)


def scaled(value: Value, factor: float) -> Value:
    """Return a loss, or each of its components, times a factor."""
    return from_components({name: part * factor for name, part in components(value).items()})


def summed(values: Sequence[Value]) -> Value:
    """Return the sum of losses, component by component."""
    found: dict[str, Tensor] = {}
    for value in values:
        for name, part in components(value).items():
            found[name] = found[name] + part if name in found else part
    return from_components(found)


def total(value: Value) -> Tensor:
    """Return what is to be minimised: the loss, or the sum of its components."""
    return torch.stack(list(components(value).values())).sum()
