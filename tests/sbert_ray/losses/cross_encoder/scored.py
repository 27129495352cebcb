"""Cross-encoders whose logits are given, for losses of this library and of the peer."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn


class Scored(nn.Module):
    """Scores pairs by looking their logits up, and remembers which pairs it was asked for, and how many at once."""

    def __init__(self, pairs: Sequence[tuple[str, str]], logits: Tensor) -> None:
        super().__init__()
        self.rows = {pair: row for row, pair in enumerate(pairs)}
        self.logits = nn.Parameter(logits.reshape(len(pairs), -1).clone())
        self.calls: list[tuple[list[tuple[str, str]], str | None, str | None]] = []
        self.sizes: list[int] = []

    @property
    def num_labels(self) -> int:
        return self.logits.shape[1]

    @property
    def device(self) -> torch.device:
        return self.logits.device

    def preprocess(self, pairs: Sequence[Any], prompt: str | None = None, task: str | None = None) -> dict[str, Any]:
        self.calls.append(([tuple(pair) for pair in pairs], prompt, task))
        ids = torch.tensor([[self.rows[tuple(pair)]] for pair in pairs])
        return {"input_ids": ids, "attention_mask": torch.ones_like(ids)}

    def forward(self, features: dict[str, Any], **_: Any) -> dict[str, Any]:
        self.sizes.append(len(features["input_ids"]))
        return features | {"scores": self.logits[features["input_ids"][:, 0]]}


def peer_of(model: Scored) -> nn.Module:
    """The same as a CrossEncoder of sentence-transformers."""
    from sentence_transformers import CrossEncoder

    class ScoredByPeer(Scored, CrossEncoder):
        num_labels = model.num_labels
        device = model.device

    peer = ScoredByPeer.__new__(ScoredByPeer)
    nn.Module.__init__(peer)
    peer.rows, peer.logits = model.rows, nn.Parameter(model.logits.detach().clone())
    peer.calls, peer.sizes = [], []
    return peer
