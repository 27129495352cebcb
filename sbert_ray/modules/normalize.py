"""Normalization to unit length."""

from typing import Any

import torch
import torch.nn.functional as F

from sbert_ray.inference.prepared import Features
from sbert_ray.modules.module import Module
from sbert_ray.modules.token_logits import whole


class Normalize(Module):
    """Scales each embedding to length 1, so that dot product and cosine agree.

    Args:
        module_input_name: The feature to read, of shape (..., D).
        module_output_name: The feature to write; the input's name if None.
    """

    public_path = "sentence_transformers.base.modules.normalize.Normalize"

    def __init__(self, module_input_name: str = "sentence_embedding", module_output_name: str | None = None) -> None:
        super().__init__()
        self.module_input_name = module_input_name
        self.module_output_name = module_output_name or module_input_name

    @property
    def takes_packed(self) -> bool:
        """Whether the module can follow a transformer whose texts are packed."""
        return self.module_input_name == "sentence_embedding"

    def forward(self, features: Features) -> Features:
        """Add the normalized feature, where the input feature is there."""
        if (embedding := features.get(self.module_input_name)) is None:
            return features
        embedding = whole(embedding)
        # In float32, since half precision cannot hold what keeps zeros from being divided by zero.
        normalized = F.normalize(embedding.to(torch.promote_types(embedding.dtype, torch.float32)), p=2, dim=-1)
        return features | {self.module_output_name: normalized.to(embedding.dtype)}

    def config(self) -> dict[str, Any]:
        """Return the constructor's arguments."""
        return {"module_input_name": self.module_input_name, "module_output_name": self.module_output_name}
