"""A recurrent network over token embeddings.

Shapes: B texts, T tokens with padding, D dimensions that come in, E that come out.
"""

from pathlib import Path
from typing import Any, Self

from torch import nn
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence

from sbert_ray.inference.prepared import Features
from sbert_ray.modules.configs import CONFIG_NAMES, RENAMED_KEYS, modern_keys
from sbert_ray.modules.module import Module
from sbert_ray.modules.token_order import left_aligned
from sbert_ray.renamed import renamed


class LSTM(Module):
    """Runs an LSTM over ``token_embeddings`` (B, T, D) and replaces them (B, T, E); it does not see padding.

    Args:
        embedding_dimension: D.
        hidden_dim: Size of a state; E, or half of it if ``bidirectional``.
        num_layers: Layers, each of which runs over the output of the one before.
        dropout: Share of values that becomes zero between layers, in training.
        bidirectional: Whether another LSTM runs from the end to the beginning.
    """

    public_path = "sentence_transformers.sentence_transformer.modules.lstm.LSTM"
    config_name = CONFIG_NAMES["LSTM"]

    @renamed(**RENAMED_KEYS["LSTM"])
    def __init__(
        self,
        embedding_dimension: int,
        hidden_dim: int,
        num_layers: int = 1,
        dropout: float = 0,
        bidirectional: bool = True,
    ) -> None:
        super().__init__()
        self.embedding_dimension = embedding_dimension
        self.hidden_dim = hidden_dim
        self.num_layers = num_layers
        self.dropout = dropout
        self.bidirectional = bidirectional
        self.embeddings_dimension = 2 * hidden_dim if bidirectional else hidden_dim
        self.encoder = nn.LSTM(
            embedding_dimension, hidden_dim, num_layers, dropout=dropout, bidirectional=bidirectional, batch_first=True
        )

    def forward(self, features: Features) -> Features:
        """Replace ``token_embeddings``; those of padding are zero."""
        tokens = left_aligned(features)
        lengths = tokens.lengths.clamp(min=1).cpu()  # a text without tokens cannot be packed
        packed = pack_padded_sequence(tokens.embeddings, lengths, batch_first=True, enforce_sorted=False)
        states, _ = pad_packed_sequence(
            self.encoder(packed)[0], batch_first=True, total_length=tokens.embeddings.shape[1]
        )
        return features | {"token_embeddings": tokens.moved_back(states)}

    def get_embedding_dimension(self) -> int:
        """Return E."""
        return self.embeddings_dimension

    def config(self) -> dict[str, Any]:
        """Return the constructor's arguments."""
        return {
            "embedding_dimension": self.embedding_dimension,
            "hidden_dim": self.hidden_dim,
            "num_layers": self.num_layers,
            "dropout": self.dropout,
            "bidirectional": self.bidirectional,
        }

    @classmethod
    def _from_config(cls, config: dict[str, Any], folder: Path) -> Self:
        return super()._from_config(modern_keys("LSTM", config), folder)
