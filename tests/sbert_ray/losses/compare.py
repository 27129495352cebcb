"""What tests of losses share: random columns, texts, and the same batch through us and through the peer."""

import random
from types import ModuleType
from typing import Any

import torch
from torch import Tensor, nn

from sbert_ray import losses

TEXTS = [
    "a cat sat on the mat",
    "fast",
    "the slow red dog ran",
    "the blue cat",
    "a dog sat on a slow cat on a mat the red cat ran fast",
    "red mat",
    "the dog ran fast on the blue mat",
    "slow cat ran on",
    "a red dog",
    "cat dog cat dog",
    "blue",
    "the fast cat ran on the red mat the slow dog sat",
]
"""All words of which the tiny model knows."""


def peer_losses() -> ModuleType:
    import sentence_transformers.sentence_transformer.losses as peer

    return peer


def columns_of(num_columns: int, num_rows: int, num_dims: int, seed: int = 0) -> list[Tensor]:
    """Random embeddings in float64."""
    generator = torch.Generator().manual_seed(seed)
    return [torch.randn(num_rows, num_dims, generator=generator, dtype=torch.float64) for _ in range(num_columns)]


def text_columns(num_columns: int, num_rows: int = 4) -> list[list[str]]:
    """Columns of texts of mixed lengths, of which the first dozen differ from each other."""
    return [[TEXTS[(num_rows * c + row) % len(TEXTS)] for row in range(num_rows)] for c in range(num_columns)]


def features_of(model: Any, columns: list[list[str]]) -> list[dict[str, Any]]:
    return [dict(model.preprocess(column)) for column in columns]


def gradients(module: nn.Module) -> dict[str, Tensor]:
    return {name: weight.grad.clone() for name, weight in module.named_parameters() if weight.grad is not None}


def run(
    loss: Any, model: Any, columns: list[list[str]], labels: Any = None
) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """The components of a loss, and the gradients of the model's weights."""
    model.zero_grad()
    random.seed(7)
    value = loss(features_of(model, columns), labels)
    parts = value if isinstance(value, dict) else {"": value}
    sum(parts.values()).backward()
    return {name: part.detach() for name, part in parts.items()}, gradients(model)


def assert_close(ours: Any, theirs: Any, rtol: float = 1e-4) -> None:
    """Compare values component by component, and gradients by the norm of what differs in each weight."""
    assert ours[0].keys() == theirs[0].keys()
    for name, value in theirs[0].items():
        torch.testing.assert_close(ours[0][name], value, rtol=rtol, atol=1e-6, check_dtype=False)
    # By their place: the two libraries call some modules by other names.
    assert len(ours[1]) == len(theirs[1])
    assert theirs[1], "the peer has no gradients"
    largest = max(float(gradient.norm()) for gradient in theirs[1].values())
    for (name, one), (_, other) in zip(sorted(ours[1].items()), sorted(theirs[1].items()), strict=True):
        assert one.shape == other.shape, name
        assert float((one - other).norm()) <= rtol * float(other.norm()) + 1e-5 * largest, name


def assert_equals_peer(
    pair: tuple[Any, Any],
    name: str,
    num_columns: int,
    labels: Any = None,
    options: dict | None = None,
    rtol: float = 1e-4,
) -> None:
    """Compare a loss of the same batch and of the same weights."""
    mine, theirs = pair
    columns, options = text_columns(num_columns), options or {}
    expected = run(getattr(peer_losses(), name)(theirs, **options), theirs, columns, labels)
    assert_close(run(getattr(losses, name)(mine, **options), mine, columns, labels), expected, rtol)
