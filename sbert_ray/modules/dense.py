"""A linear map of embeddings with an activation, often to fewer dimensions."""

import inspect
from pathlib import Path
from typing import Any, Self

from torch import Tensor, nn

from sbert_ray.inference.prepared import Features
from sbert_ray.modules.activations import activation, activation_path
from sbert_ray.modules.module import Module, check_width, known_keys
from sbert_ray.modules.token_logits import whole


class Dense(Module):
    """Computes ``act(W x + b)``, with ``use_residual`` plus ``x`` (or ``R x`` where the sizes differ).

    Args:
        in_features: Size of the input.
        out_features: Size of the output.
        bias: Whether there is a ``b``.
        activation_function: An activation without arguments; ``nn.Identity()`` if None.
        init_weight: First value of W (out_features, in_features).
        init_bias: First value of b (out_features,).
        module_input_name: The feature to read, of shape (..., in_features).
        module_output_name: The feature to write; the input's name if None.
        use_residual: Whether the input is added to the output.
    """

    public_path = "sentence_transformers.base.modules.dense.Dense"

    def __init__(  # noqa: PLR0913, PLR0917 (the public signature)
        self,
        in_features: int,
        out_features: int,
        bias: bool = True,
        activation_function: nn.Module | None = nn.Tanh(),  # noqa: B008 (stateless, and the public default)
        init_weight: Tensor | None = None,
        init_bias: Tensor | None = None,
        module_input_name: str = "sentence_embedding",
        module_output_name: str | None = None,
        use_residual: bool = False,
    ) -> None:
        super().__init__()
        self.in_features, self.out_features = in_features, out_features
        self.bias = bias
        self.activation_function = nn.Identity() if activation_function is None else activation_function
        self.linear = nn.Linear(in_features, out_features, bias=bias)
        self.module_input_name = module_input_name
        self.module_output_name = module_output_name or module_input_name
        self.use_residual = use_residual
        if use_residual and in_features != out_features:
            self.residual = nn.Linear(in_features, out_features, bias=False)
        if init_weight is not None:
            self.linear.weight = nn.Parameter(init_weight)
        if init_bias is not None and bias:
            self.linear.bias = nn.Parameter(init_bias)

    @property
    def takes_packed(self) -> bool:
        """Whether the module can follow a transformer whose texts are packed."""
        return self.module_input_name in ("sentence_embedding", "scores")

    def forward(self, features: Features) -> Features:
        """Add the mapped feature."""
        x = whole(features[self.module_input_name])
        check_width(self, x, self.in_features)
        out = self.activation_function(self.linear(x))
        if self.use_residual:
            out = out + (x if self.in_features == self.out_features else self.residual(x))
        return features | {self.module_output_name: out}

    def get_embedding_dimension(self) -> int:
        """Return ``out_features``."""
        return self.out_features

    def save(self, folder: Path) -> None:
        """Write the module to its folder in a checkpoint.

        Raises:
            ValueError: Its activation is none that a checkpoint can name.
        """
        activation(activation_path(self.activation_function), "activation_function")
        super().save(folder)

    def config(self) -> dict[str, Any]:
        """Return the constructor's arguments; ``use_residual`` only where set, since old readers do not know it."""
        config = {
            "in_features": self.in_features,
            "out_features": self.out_features,
            "bias": self.bias,
            "activation_function": activation_path(self.activation_function),
            "module_input_name": self.module_input_name,
            "module_output_name": self.module_output_name,
        }
        return config | ({"use_residual": True} if self.use_residual else {})

    @classmethod
    def _from_config(cls, config: dict[str, Any], folder: Path) -> Self:
        config = known_keys(config, set(inspect.signature(cls).parameters), folder)
        if (path := config.get("activation_function")) is not None:
            config["activation_function"] = activation(path, "activation_function")
        return super()._from_config(config, folder)
