"""Padding moved to the right, for modules that read tokens in order.

Shapes: B texts, T tokens with padding, D dimensions.
"""

from typing import NamedTuple

import torch
from torch import Tensor

from sbert_ray.inference.prepared import Features


class LeftAligned(NamedTuple):
    """Token embeddings whose padding, if any, follows them."""

    embeddings: Tensor
    """(B, T, D), zeros in the place of padding"""
    lengths: Tensor
    """(B,), real tokens of each text"""
    shifts: Tensor
    """(B,), by how many positions each text was moved to the left"""

    def moved_back(self, embeddings: Tensor) -> Tensor:
        """Return embeddings (B, T, E) with the texts where they were."""
        return _shifted(embeddings, -self.shifts)


def left_aligned(features: Features) -> LeftAligned:
    """Return ``token_embeddings`` with the padding, by ``attention_mask``, on the right of each text and zero."""
    embeddings: Tensor = features["token_embeddings"]
    mask: Tensor | None = features.get("attention_mask")
    if mask is None or mask.shape[-1] != embeddings.shape[1]:
        mask = torch.ones(embeddings.shape[:2], dtype=torch.int64, device=embeddings.device)
    shifts = mask.to(torch.int32).argmax(1)
    return LeftAligned(_shifted(embeddings * mask.unsqueeze(-1), shifts), mask.sum(1), shifts)


def _shifted(embeddings: Tensor, shifts: Tensor) -> Tensor:
    positions = torch.arange(embeddings.shape[1], device=embeddings.device)
    sources = (positions + shifts.unsqueeze(1)) % embeddings.shape[1]  # (B, T)
    return embeddings.gather(1, sources.unsqueeze(-1).expand_as(embeddings))
