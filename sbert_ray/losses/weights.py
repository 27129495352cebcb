"""Weights that a loss trains beside the model's."""

import torch
from torch import nn


def linear_for(model: nn.Module | None, num_inputs: int, num_outputs: int) -> nn.Linear:
    """Return a linear layer for a model's embeddings, on its device and in its precision, float32 at least."""
    like = None if model is None else next(model.parameters(), None)
    if like is None:
        return nn.Linear(num_inputs, num_outputs)
    dtype = torch.promote_types(like.dtype, torch.float32)
    return nn.Linear(num_inputs, num_outputs, device=like.device, dtype=dtype)
