"""A weight for each word of a vocabulary, such as its inverse document frequency.

Shapes: V words, B texts, T tokens with padding, D dimensions.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import nn

from sbert_ray.inference.prepared import Features
from sbert_ray.modules.module import Module


def weights_of(vocab: Sequence[str], word_weights: Mapping[str, float], unknown_word_weight: float) -> list[float]:
    """Return the weight of each word: its own, that of it in lower case, or ``unknown_word_weight``."""
    lowered = [word_weights.get(word.lower(), unknown_word_weight) for word in vocab]
    return [word_weights.get(word, fallback) for word, fallback in zip(vocab, lowered, strict=True)]


class WordWeights(Module):
    """Multiplies ``token_embeddings`` (B, T, D) by their words' weights, and adds these weights' sum for the mean.

    Args:
        vocab: The words, whose ids are their places.
        word_weights: Weights by word, of more or fewer words than ``vocab`` has.
        unknown_word_weight: The weight of the others.
    """

    public_path = "sentence_transformers.sentence_transformer.modules.word_weights.WordWeights"

    def __init__(self, vocab: Sequence[str], word_weights: Mapping[str, float], unknown_word_weight: float = 1) -> None:
        super().__init__()
        self.vocab = list(vocab)
        self.word_weights = dict(word_weights)
        self.unknown_word_weight = unknown_word_weight
        weights = torch.tensor(weights_of(self.vocab, self.word_weights, unknown_word_weight), dtype=torch.float32)
        self.emb_layer = nn.Embedding.from_pretrained(weights.unsqueeze(1), freeze=False)

    def forward(self, features: Features) -> Features:
        """Replace ``token_embeddings`` and add ``token_weights_sum`` (B,)."""
        weights = self.emb_layer(features["input_ids"]).squeeze(-1) * features["attention_mask"]  # (B, T)
        weighted = features["token_embeddings"] * weights.unsqueeze(-1)
        return features | {"token_embeddings": weighted, "token_weights_sum": weights.sum(1)}

    def config(self) -> dict[str, Any]:
        """Return the constructor's arguments."""
        return {
            "vocab": self.vocab,
            "word_weights": self.word_weights,
            "unknown_word_weight": self.unknown_word_weight,
        }
