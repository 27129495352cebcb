"""Layer normalization of embeddings."""

from typing import Any

from torch import nn

from sbert_ray.inference.prepared import Features
from sbert_ray.modules.module import Module


class LayerNorm(Module):
    """Normalizes each ``sentence_embedding`` (B, D) over D, with a learned scale and shift.

    Args:
        dimension: D.
    """

    public_path = "sentence_transformers.sentence_transformer.modules.layer_norm.LayerNorm"

    def __init__(self, dimension: int) -> None:
        super().__init__()
        self.dimension = dimension
        self.norm = nn.LayerNorm(dimension)

    @property
    def takes_packed(self) -> bool:
        """Whether the module can follow a transformer whose texts are packed."""
        return True

    def forward(self, features: Features) -> Features:
        """Replace ``sentence_embedding``."""
        return features | {"sentence_embedding": self.norm(features["sentence_embedding"])}

    def get_embedding_dimension(self) -> int:
        """Return D."""
        return self.dimension

    def config(self) -> dict[str, Any]:
        """Return the constructor's arguments."""
        return {"dimension": self.dimension}
