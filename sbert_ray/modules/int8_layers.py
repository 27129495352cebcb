"""Linear layers of any model that compute in 8-bit integers while nothing is trained."""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from sbert_ray.inference.int8 import QuantizedLinear

_MIN_OUTPUTS = 64
"""A layer of fewer, such as a classifier, takes too little time to give up digits for it."""


def compute_in_int8(model: nn.Module) -> None:
    """Let the plain linear layers of a model on a CPU compute in 8-bit integers whenever no gradients are wanted.

    Their weights stay as they are: the model can be saved and trained as before, and what it learns is rounded anew.
    Only changes through ``weight.data``, of which torch keeps no count, are not seen: load the model again after them.
    """
    for module in model.modules():
        if type(module) is nn.Linear and module.out_features >= _MIN_OUTPUTS:
            vars(module)["forward"] = Int8Forward(module)  # found before the method of the class


def quantized(layer: nn.Module) -> QuantizedLinear | None:
    """Return what a layer multiplies with where it computes in 8-bit integers, else None."""
    forward = vars(layer).get("forward")
    return forward.quantized() if isinstance(forward, Int8Forward) else None


def computes_in_int8(layer: nn.Module) -> bool:
    """Return whether a layer computes in 8-bit integers."""
    return isinstance(vars(layer).get("forward"), Int8Forward)


def has_int8_layers(model: nn.Module) -> bool:
    """Return whether some layers of a model compute in 8-bit integers."""
    return any(map(computes_in_int8, model.modules()))


class Int8Forward:
    """The forward of a linear layer that computes in 8-bit integers, and follows its weights.

    Args:
        layer: The layer.
    """

    def __init__(self, layer: nn.Linear) -> None:
        self._layer = layer
        self._quantized: QuantizedLinear | None = None
        self._state: tuple[int, ...] = ()

    def __call__(self, x: Tensor) -> Tensor:
        """Return the layer's output (..., N) in the dtype of its inputs (..., K).

        Raises:
            RuntimeError: They are not on the CPU.
        """
        if x.device.type != "cpu":
            raise RuntimeError(f"a model of dtype='int8' must stay on the CPU, got inputs on {x.device}")
        if torch.is_grad_enabled():
            return F.linear(x, self._layer.weight, self._layer.bias)
        return self.quantized()(x.reshape(-1, x.shape[-1]).float()).view(*x.shape[:-1], -1).to(x.dtype)

    def quantized(self) -> QuantizedLinear:
        """Return the layer with its weights as they are now."""
        weight, bias = self._layer.weight, self._layer.bias
        # Versions change with each update in place, addresses when other tensors take their places.
        state = tuple(n for t in (weight, bias) if t is not None for n in (_version(t), t.data_ptr()))
        quantized = self._quantized
        if quantized is None or state != self._state:
            quantized = QuantizedLinear(weight, bias)
            self._quantized, self._state = quantized, state
        return quantized

    def __getstate__(self) -> dict[str, Any]:
        """Leave out what is made of the weights, which have other addresses elsewhere."""
        return {"_layer": self._layer, "_quantized": None, "_state": ()}


def _version(tensor: Tensor) -> int:
    return 0 if tensor.is_inference() else tensor._version  # noqa: SLF001
