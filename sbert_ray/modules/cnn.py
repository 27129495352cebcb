"""Convolutions over token embeddings.

Shapes: B texts, T tokens with padding, D dimensions that come in, E that come out.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Self

import torch
import torch.nn.functional as F
from torch import nn

from sbert_ray.inference.prepared import Features
from sbert_ray.modules.configs import CONFIG_NAMES, RENAMED_KEYS, modern_keys
from sbert_ray.modules.module import Module
from sbert_ray.modules.token_order import left_aligned
from sbert_ray.renamed import renamed


class CNN(Module):
    """Convolves ``token_embeddings`` (B, T, D) with kernels of several sizes, and replaces them by all results.

    A text gives what it gives alone, with zeros before and after it, however it is padded. With odd kernels and
    strides of 1, there are as many embeddings as tokens; else the mask changes with them.

    Args:
        in_embedding_dimension: D.
        out_channels: Dimensions from each kernel; E is this times the number of kernels.
        kernel_sizes: Tokens that each kernel sees, all of them odd or all even.
        stride_sizes: Steps of each kernel, all the same; ones if None.

    Raises:
        ValueError: The kernels would give different numbers of embeddings.

    References:
        Kim 2014, Convolutional neural networks for sentence classification, arXiv:1408.5882.
    """

    public_path = "sentence_transformers.sentence_transformer.modules.cnn.CNN"
    config_name = CONFIG_NAMES["CNN"]

    @renamed(**RENAMED_KEYS["CNN"])
    def __init__(
        self,
        in_embedding_dimension: int,
        out_channels: int = 256,
        kernel_sizes: Sequence[int] = (1, 3, 5),
        stride_sizes: Sequence[int] | None = None,
    ) -> None:
        super().__init__()
        strides = [1] * len(kernel_sizes) if stride_sizes is None else list(stride_sizes)
        if len(strides) != len(kernel_sizes) or len(set(strides)) != 1 or len({size % 2 for size in kernel_sizes}) != 1:
            raise ValueError(
                "kernel_sizes must be all odd or all even, with the same stride for each, got the kernel_sizes "
                f"{list(kernel_sizes)} and the stride_sizes {strides}"
            )
        self.in_embedding_dimension = in_embedding_dimension
        self.out_channels = out_channels
        self.kernel_sizes = list(kernel_sizes)
        self.stride_sizes = strides
        self.embeddings_dimension = out_channels * len(kernel_sizes)
        self.convs = nn.ModuleList(
            nn.Conv1d(in_embedding_dimension, out_channels, size, stride=strides[0], padding=(size - 1) // 2)
            for size in kernel_sizes
        )

    def forward(self, features: Features) -> Features:
        """Replace ``token_embeddings``, and ``attention_mask`` where their number changes."""
        tokens = left_aligned(features)
        is_even = self.kernel_sizes[0] % 2 == 0  # which then see one position less than there are
        stride = self.stride_sizes[0]
        inputs = F.pad(tokens.embeddings, (0, 0, 0, 1)) if is_even else tokens.embeddings
        inputs = inputs.transpose(1, 2)  # (B, D, T)
        outputs = torch.cat([conv(inputs) for conv in self.convs], dim=1).transpose(1, 2)  # (B, T / stride, E)
        if stride == 1 and not is_even:
            return features | {"token_embeddings": tokens.moved_back(outputs)}
        lengths = torch.div(tokens.lengths - int(is_even) - 1, stride, rounding_mode="floor") + 1
        mask = torch.arange(outputs.shape[1], device=lengths.device) < lengths.unsqueeze(1)
        return features | {"token_embeddings": outputs, "attention_mask": mask.to(torch.int64)}

    def get_embedding_dimension(self) -> int:
        """Return E."""
        return self.embeddings_dimension

    def config(self) -> dict[str, Any]:
        """Return the constructor's arguments."""
        return {
            "in_embedding_dimension": self.in_embedding_dimension,
            "out_channels": self.out_channels,
            "kernel_sizes": self.kernel_sizes,
            "stride_sizes": self.stride_sizes,
        }

    @classmethod
    def _from_config(cls, config: dict[str, Any], folder: Path) -> Self:
        return super()._from_config(modern_keys("CNN", config), folder)
