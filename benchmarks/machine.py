"""What a machine can do at best, and what a model asks of it.

Shapes: T tokens of a text, H hidden size, F of the feed-forward layer, M rows, K and N sides of a weight.
"""

import json
import os
import platform
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Self

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray

ROWS = (512, 1024, 2048, 4096)
"""M: a peak is the best of them."""
VOCABULARY_BLOCK = 1024
"""N of a head's products: those over a whole vocabulary write more than caches hold, which is no peak."""


@dataclass(frozen=True)
class Gemm:
    """A kind of matrix product of a model."""

    k: int
    n: int
    flops_per_token: int
    """By which it weighs: what it stands for may be more than one product."""


@dataclass(frozen=True)
class ModelSizes:
    """The sizes of a BERT that say how much it computes."""

    num_layers: int
    hidden_size: int
    intermediate_size: int
    vocabulary_size: int = 0
    """Of a masked language model's head; 0 if there is none."""

    @classmethod
    def read(cls, checkpoint: Path, has_head: bool = False) -> Self:
        """Return those of a checkpoint's ``config.json``."""
        config = json.loads((checkpoint / "config.json").read_text())
        names = ("num_hidden_layers", "hidden_size", "intermediate_size")
        return cls(*(config[name] for name in names), config["vocab_size"] if has_head else 0)

    def flops(self, lengths: Iterable[int], first_tokens_only: bool = False) -> int:
        """Return the floating point operations of matrix products that texts need, padding aside.

        A layer takes 2 * (4 * H * H + 2 * H * F) * T for its linear layers and 4 * T * T * H for attention.

        Args:
            lengths: T of each text.
            first_tokens_only: Whether nothing but the first token of each text is read from the last layer, which then
                needs keys and values of all tokens and the rest of one only.
        """
        h, f = self.hidden_size, self.intermediate_size
        total = 0
        for t in lengths:
            layer = 2 * (4 * h * h + 2 * h * f) * t + 4 * t * t * h
            last = 4 * h * h * t + 2 * (2 * h * h + 2 * h * f) + 4 * t * h if first_tokens_only else layer
            total += (self.num_layers - 1) * layer + last + 2 * h * (h + self.vocabulary_size) * t * self._has_head
        return total

    @property
    def _has_head(self) -> bool:
        return self.vocabulary_size > 0

    def gemms(self) -> list[Gemm]:
        """Return the products of the linear layers; query, key and value at once stand for the output's too."""
        h, f, layers = self.hidden_size, self.intermediate_size, self.num_layers
        found = [
            Gemm(h, 3 * h, layers * 8 * h * h),
            Gemm(h, f, layers * 2 * h * f),
            Gemm(f, h, layers * 2 * f * h),
        ]
        head = Gemm(h, VOCABULARY_BLOCK, 2 * h * (h + self.vocabulary_size))
        return [*found, head] if self._has_head else found


def gemm_peak(gemms: Sequence[Gemm], repeats: int = 2) -> float:
    """Return the float32 operations per CPU second of `F.linear` at these sizes, weighted as the model's own.

    Each size runs at its best number of rows, so that it is what no engine that calls it can exceed.
    """
    seconds = sum(gemm.flops_per_token / max(_rates(gemm, repeats)) for gemm in gemms)
    return sum(gemm.flops_per_token for gemm in gemms) / seconds


@torch.inference_mode()
def _rates(gemm: Gemm, repeats: int) -> list[float]:
    weight, bias = torch.randn(gemm.n, gemm.k), torch.randn(gemm.n)
    rates = []
    for m in ROWS:
        rows = torch.randn(m, gemm.k)
        F.linear(rows, weight, bias)  # warms up
        for _ in range(repeats):
            start = time.process_time()
            F.linear(rows, weight, bias)
            rates.append(2 * m * gemm.k * gemm.n / (time.process_time() - start))
    return rates


def describe_lengths(lengths: Iterable[int]) -> str:
    """Return how long texts are, in tokens."""
    values: NDArray[np.int64] = np.array(list(lengths))
    return (
        f"{values.mean():.1f} tokens each (median {np.median(values):.0f}, 95 % up to {np.percentile(values, 95):.0f},"
        f" longest {values.max()})"
    )


def describe_machine() -> str:
    """Return the processor, its cores, and the instructions that oneDNN may use."""
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.exists() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    isa = os.environ.get("ONEDNN_MAX_CPU_ISA", "DEFAULT")
    return f"{names[0] if names else platform.machine()}, {os.cpu_count()} cores, ONEDNN_MAX_CPU_ISA={isa}"
