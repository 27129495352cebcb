"""Activations by name."""

import pytest
import torch
from torch import nn

from sbert_ray.modules.activations import activation, activation_path


@pytest.mark.parametrize("kind", [nn.Sigmoid, nn.Identity, nn.Tanh, nn.GELU, nn.Softmax])
def test_torchs_activations_are_built_by_their_paths(kind: type[nn.Module]) -> None:
    path = activation_path(kind())
    assert path == f"{kind.__module__}.{kind.__name__}"
    assert type(activation(path, "activation_fn")) is kind
    assert type(activation(f"torch.nn.{kind.__name__}", "activation_fn")) is kind


@pytest.mark.parametrize(
    "path",
    ["os.getcwd", "torch.nn.Linear", "torch.nn.functional.relu", "torch.nn.modules.activation.nothing", "Sigmoid", ""],
)
def test_anything_else_is_refused(path: str) -> None:
    with pytest.raises(ValueError, match=f"my_setting must be a module of torch.nn, got '{path}'"):
        activation(path, "my_setting")


def test_a_function_is_kept_by_the_name_of_its_type() -> None:
    assert activation_path(torch.zeros_like) == "builtin_function_or_method"
