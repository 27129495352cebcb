"""A sparse autoencoder: from dense embeddings to sparse ones of more dimensions.

Shapes: B texts, D dimensions of the dense embedding, H of the sparse one.
"""

from collections.abc import Mapping
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from sbert_ray.inference.prepared import Features
from sbert_ray.modules.module import Module, check_width

ACTIVE = 1e-5
"""Latents above it are active."""
EPSILON = 1e-5
_TIED = "decoder.linear.weight"
"""A second name that some checkpoints give the encoder's weight, which is the decoder's too."""


class SparseAutoEncoder(Module):
    """Replaces ``sentence_embedding`` (B, D) by the k largest of H latents (B, H), the others being 0 (CSR).

        z = W (x - pre_bias) + latent_bias        embedding = relu(top_k(z))

    Outside of `torch.inference_mode` it adds what its loss reads: ``sentence_embedding_backbone`` (x, (B, D)),
    ``sentence_embedding_encoded`` (z, (B, H)), ``sentence_embedding_encoded_4k`` (the 4 k largest, (B, H)),
    ``auxiliary_embedding`` (the k_aux largest of the dead latents, (B, H), or None), and what the decoder
    ``W^T embedding + pre_bias`` makes of them, each (B, D): ``decoded_embedding_k``, ``decoded_embedding_4k``,
    ``decoded_embedding_aux`` (or None), ``decoded_embedding_k_pre_bias`` (the first without ``pre_bias``).

    Args:
        input_dim: D.
        hidden_dim: H.
        k: Latents to keep; all of them where there are no more.
        k_aux: Dead latents to keep; none if 0.
        normalize: Whether to give each x the mean 0 and the standard deviation 1 first, which decoding takes back.
        dead_threshold: A latent is dead if it was active in none of that many selections. A training step makes two,
            of k and of 4 k.

    References:
        Wen et al. 2025, Beyond Matryoshka: Revisiting Sparse Coding for Adaptive Representation, arXiv:2503.01776.
        Gao et al. 2024, Scaling and evaluating sparse autoencoders, arXiv:2406.04093 (dead latents).
    """

    public_path = "sentence_transformers.sparse_encoder.modules.sparse_auto_encoder.SparseAutoEncoder"
    forward_kwargs = frozenset({"max_active_dims"})

    def __init__(
        self,
        input_dim: int,
        hidden_dim: int = 512,
        k: int = 8,
        k_aux: int = 512,
        normalize: bool = False,
        dead_threshold: int = 30,
    ) -> None:
        super().__init__()
        if k < 1:
            raise ValueError(f"k must be positive, got {k}")
        self.input_dim, self.hidden_dim = input_dim, hidden_dim
        self.k, self.k_aux = k, k_aux
        self.normalize = normalize
        self.dead_threshold = dead_threshold
        self.pre_bias = nn.Parameter(torch.zeros(input_dim))
        self.encoder = nn.Linear(input_dim, hidden_dim, bias=False)
        self.latent_bias = nn.Parameter(torch.zeros(hidden_dim))
        self.stats_last_nonzero: Tensor
        self.register_buffer("stats_last_nonzero", torch.zeros(hidden_dim, dtype=torch.long))

    @property
    def takes_packed(self) -> bool:
        """Whether the module can follow a transformer whose texts are packed."""
        return True

    def forward(self, features: Features, max_active_dims: int | None = None) -> Features:
        """Replace ``sentence_embedding``.

        Args:
            features: With ``sentence_embedding`` (B, D).
            max_active_dims: k for this call.
        """
        k = max_active_dims or self.k
        x = features["sentence_embedding"]
        check_width(self, x, self.input_dim)
        scale = _Scale.of(x) if self.normalize else None
        z = self._latents(x if scale is None else (x - scale.mean) / (scale.deviation + EPSILON))
        if torch.is_inference_mode_enabled():
            return features | {"sentence_embedding": _largest(z, k).relu()}
        embedding = self._selected(z, k)
        auxiliary = self._auxiliary(z)
        embedding_4k = self._selected(z, 4 * k)
        auxiliary_decoded = None if auxiliary is None else self._decode(auxiliary, scale, centered=True)
        decoded = self._decode(embedding, scale)
        bias = self.pre_bias if scale is None else self.pre_bias * scale.deviation
        return features | {
            "sentence_embedding": embedding,
            "sentence_embedding_backbone": x,
            "sentence_embedding_encoded": z,
            "sentence_embedding_encoded_4k": embedding_4k,
            "auxiliary_embedding": auxiliary,
            "decoded_embedding_k": decoded,
            "decoded_embedding_4k": self._decode(embedding_4k, scale),
            "decoded_embedding_aux": auxiliary_decoded,
            "decoded_embedding_k_pre_bias": decoded - bias,
        }

    def _latents(self, x: Tensor) -> Tensor:
        return nn.functional.linear(x - self.pre_bias, self.encoder.weight, self.latent_bias)

    def _selected(self, z: Tensor, k: int) -> Tensor:
        """Return the k largest latents (B, H), and in training note which of them are active."""
        selected = _largest(z, k).relu()
        if self.training and torch.is_grad_enabled():
            active = (selected.detach() > ACTIVE).any(0)
            self.stats_last_nonzero.copy_(torch.where(active, 0, self.stats_last_nonzero) + 1)
        return selected

    def _auxiliary(self, z: Tensor) -> Tensor | None:
        if not self.k_aux:
            return None
        return _largest(z * (self.stats_last_nonzero > self.dead_threshold), self.k_aux).relu()

    def _decode(self, latents: Tensor, scale: "_Scale | None", centered: bool = False) -> Tensor:
        """Return what latents (B, H) stand for (B, D); ``centered`` leaves the mean at 0."""
        decoded = nn.functional.linear(latents, self.encoder.weight.T) + self.pre_bias
        if scale is None:
            return decoded
        decoded = decoded * scale.deviation
        return decoded if centered else decoded + scale.mean

    def get_embedding_dimension(self) -> int:
        """Return H."""
        return self.hidden_dim

    def config(self) -> dict[str, Any]:
        """Return the constructor's arguments."""
        return {
            "input_dim": self.input_dim,
            "hidden_dim": self.hidden_dim,
            "k": self.k,
            "k_aux": self.k_aux,
            "normalize": self.normalize,
            "dead_threshold": self.dead_threshold,
        }

    def load_state_dict(self, state_dict: Mapping[str, Any], strict: bool = True, assign: bool = False) -> Any:
        """Load weights, under either name of the one that encoder and decoder share."""
        weights = dict(state_dict)
        if _TIED in weights:
            weights.setdefault("encoder.weight", weights.pop(_TIED))
        return super().load_state_dict(weights, strict, assign)


class _Scale(NamedTuple):
    mean: Tensor
    """(B, 1)"""
    deviation: Tensor
    """(B, 1)"""

    @classmethod
    def of(cls, x: Tensor) -> "_Scale":
        return cls(x.mean(-1, keepdim=True), x.std(-1, keepdim=True))


def _largest(z: Tensor, k: int) -> Tensor:
    """Return ``z`` (B, H) with all but its k largest values of each row set to 0."""
    values, indices = z.topk(min(k, z.shape[-1]), dim=-1)
    return torch.zeros_like(z).scatter(-1, indices, values)
