"""Token embeddings from several layers of a transformer.

Shapes: B texts, T tokens with padding, D dimensions, K layers.
"""

import logging
from pathlib import Path
from typing import Any, Self

import torch
from torch import Tensor, nn

from sbert_ray.inference.prepared import Features
from sbert_ray.modules.configs import RENAMED_KEYS, modern_keys
from sbert_ray.modules.module import Module
from sbert_ray.renamed import renamed

logger = logging.getLogger(__name__)


class WeightedLayerPooling(Module):
    """Replaces ``token_embeddings`` (B, T, D) by the mean of ``all_layer_embeddings``, weighted by learned weights.

        sum_k w_k h_k / sum_k w_k

    A transformer adds all layers where its config has ``output_hidden_states``; the embedding layer is number 0.

    Args:
        embedding_dimension: D.
        num_hidden_layers: Layers of the transformer, without the embedding layer.
        layer_start: The first layer of the mean.
        layer_weights: First value of w (K,), K = num_hidden_layers + 1 - layer_start; ones if None.

    Raises:
        ValueError: ``layer_start`` is none of the layers, or the weights are not one for each from there on.
    """

    public_path = "sentence_transformers.sentence_transformer.modules.weighted_layer_pooling.WeightedLayerPooling"

    @renamed(**RENAMED_KEYS["WeightedLayerPooling"])
    def __init__(
        self,
        embedding_dimension: int,
        num_hidden_layers: int = 12,
        layer_start: int = 4,
        layer_weights: Tensor | None = None,
    ) -> None:
        super().__init__()
        self.embedding_dimension = embedding_dimension
        self.num_hidden_layers = num_hidden_layers
        self.layer_start = layer_start
        if not 0 <= layer_start <= num_hidden_layers:
            raise ValueError(
                f"layer_start must be a layer from 0 to num_hidden_layers, {num_hidden_layers}, got {layer_start}"
            )
        ones = torch.ones(num_hidden_layers + 1 - layer_start)
        if layer_weights is not None and layer_weights.shape != ones.shape:
            raise ValueError(
                f"layer_weights must be one for each layer from layer_start on, of shape {tuple(ones.shape)}, got "
                f"{tuple(layer_weights.shape)}"
            )
        self.layer_weights = nn.Parameter(ones if layer_weights is None else layer_weights)

    def forward(self, features: Features) -> Features:
        """Replace ``token_embeddings``; without all layers, they stay those of the last layer, with a warning.

        Raises:
            ValueError: The transformer has another number of layers.
        """
        layers = features.get("all_layer_embeddings")
        if layers is None:
            logger.warning("WeightedLayerPooling does nothing: the transformer's config lacks output_hidden_states")
            return features
        if len(layers) != self.num_hidden_layers + 1:
            raise ValueError(
                f"num_hidden_layers must be the transformer's {len(layers) - 1}, got {self.num_hidden_layers}"
            )
        weights = self.layer_weights
        pairs = zip(weights, layers[self.layer_start :], strict=True)
        total: Tensor = sum((weight * layer for weight, layer in pairs), start=torch.zeros_like(layers[0]))
        return features | {"token_embeddings": total / weights.sum()}

    def get_embedding_dimension(self) -> int:
        """Return D."""
        return self.embedding_dimension

    def config(self) -> dict[str, Any]:
        """Return the constructor's arguments, less the weights."""
        return {
            "embedding_dimension": self.embedding_dimension,
            "layer_start": self.layer_start,
            "num_hidden_layers": self.num_hidden_layers,
        }

    @classmethod
    def _from_config(cls, config: dict[str, Any], folder: Path) -> Self:
        return super()._from_config(modern_keys("WeightedLayerPooling", config), folder)
