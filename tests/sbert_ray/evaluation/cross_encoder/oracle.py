"""A cross-encoder whose scores have many ties."""

import zlib
from types import SimpleNamespace
from typing import Any

import numpy as np


class Scores:
    """Scores pairs with quarters, so that many are equal."""

    model_card_data = SimpleNamespace(set_evaluation_metrics=lambda *args, **options: None)  # the peer needs one

    def __init__(self, num_labels: int = 1) -> None:
        self.num_labels = num_labels
        self.counts: list[int] = []

    def predict(self, pairs: Any, **options: Any) -> Any:
        self.counts.append(len(pairs))
        seeds = [zlib.crc32(f"{options.get('prompt_name')}|{a}|{b}".encode()) for a, b in pairs]
        rows = [np.random.default_rng(seed).integers(-3, 4, self.num_labels) / 4 for seed in seeds]
        matrix = np.array(rows, np.float32).reshape(len(pairs), self.num_labels)
        return matrix[:, 0] if self.num_labels == 1 else matrix
