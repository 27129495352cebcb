"""What every loss tells of itself, be it over embeddings or over the logits of pairs."""

import inspect
import re
from typing import Any

from torch import Tensor, nn


class Described(nn.Module):
    """A loss that knows its settings, its sources and its own weights."""

    model: nn.Module | None

    def own_parameters(self) -> list[nn.Parameter]:
        """Return the weights that belong to the loss, such as a classifier's, and not to the model."""
        others = set() if self.model is None else {id(parameter) for parameter in self.model.parameters()}
        return [parameter for parameter in self.parameters() if id(parameter) not in others]

    def get_config_dict(self) -> dict[str, Any]:
        """Return the constructor's arguments, for model cards."""
        names = [name for name in inspect.signature(type(self).__init__).parameters if name not in ("self", "model")]
        return {name: _described(getattr(self, name)) for name in names if hasattr(self, name)}

    @property
    def citation(self) -> str:
        """What the loss goes back to, from its documentation."""
        found = re.search(r"References:\n(.*)", inspect.cleandoc(type(self).__doc__ or ""), re.DOTALL)
        return inspect.cleandoc(found.group(1)).strip() if found else ""


def _described(value: Any) -> Any:
    if isinstance(value, Tensor):
        return value.tolist()
    if isinstance(value, nn.Module):
        return type(value).__name__
    return getattr(value, "__name__", None) or value if callable(value) else value
