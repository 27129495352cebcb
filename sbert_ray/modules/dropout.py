"""Dropout on embeddings, which acts in training only."""

from typing import Any

from torch import nn

from sbert_ray.inference.prepared import Features
from sbert_ray.modules.module import Module


class Dropout(Module):
    """Zeroes parts of each ``sentence_embedding`` (B, D) in training.

    Args:
        dropout: The share of values that becomes zero.
    """

    public_path = "sentence_transformers.sentence_transformer.modules.dropout.Dropout"

    def __init__(self, dropout: float = 0.2) -> None:
        super().__init__()
        self.dropout = dropout
        self.dropout_layer = nn.Dropout(dropout)

    @property
    def takes_packed(self) -> bool:
        """Whether the module can follow a transformer whose texts are packed."""
        return True

    def forward(self, features: Features) -> Features:
        """Replace ``sentence_embedding``."""
        return features | {"sentence_embedding": self.dropout_layer(features["sentence_embedding"])}

    def config(self) -> dict[str, Any]:
        """Return the constructor's arguments."""
        return {"dropout": self.dropout}
