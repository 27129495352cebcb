"""How sparse the embeddings are that an evaluator sees.

Shapes: N embeddings of dimension D.
"""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from sbert_ray.embeddings import compute_count_vector
from sbert_ray.evaluation.encoding import ANY, EmbeddingEvaluator, embed
from sbert_ray.evaluation.evaluator import Result


class Sparsity:
    """Counts of values other than zero, of embeddings that come in parts.

    Args:
        by_part: Whether the mean is that over parts, whatever their numbers of rows.
    """

    def __init__(self, by_part: bool = False) -> None:
        self._by_part = by_part
        self._weight = 0
        self._rows = 0
        self._active = 0.0
        self._dim = 1
        self._counts = torch.zeros(0, dtype=torch.int64)

    def add(self, embeddings: Tensor) -> None:
        """Count a part (N, D)."""
        counts = compute_count_vector(embeddings).cpu().long()  # (D,)
        weight = 1 if self._by_part else len(embeddings)
        self._active += int(counts.sum()) / len(embeddings) * weight
        self._weight += weight
        self._rows += len(embeddings)
        self._dim = len(counts)
        self._counts = counts if not len(self._counts) else self._counts + counts

    def __add__(self, other: "Sparsity") -> "Sparsity":
        """Return the counts of both."""
        total = Sparsity(self._by_part)
        total._weight, total._rows = self._weight + other._weight, self._rows + other._rows
        total._active, total._dim = self._active + other._active, max(self._dim, other._dim)
        total._counts = other._counts if not len(self._counts) else self._counts + other._counts
        return total

    @property
    def active_dims(self) -> float:
        """The mean number of values other than zero."""
        return self._active / self._weight

    def metrics(self, prefix: str) -> dict[str, float]:
        """Return the mean number of values other than zero, and the share of zeros."""
        return {
            f"{prefix}active_dims": self.active_dims,
            f"{prefix}sparsity_ratio": 1.0 - self.active_dims / self._dim,
        }

    def frequencies(self) -> Tensor:
        """Return the share of embeddings that have a dimension, as (D,)."""
        return self._counts.double() / self._rows


class SparseEvaluator(EmbeddingEvaluator):
    """What makes an evaluator one of sparse embeddings, which come as COO tensors: it tells how sparse they are."""

    max_active_dims: int | None = None
    sparsity: dict[str, Sparsity] | None = None
    """What was counted in the last call, by column."""

    def embed_inputs(
        self, model: Any, sentences: Sequence[Any], role: str = ANY, column: str = "", **options: Any
    ) -> Tensor:
        """Embed texts, as (N, D), and count what is active."""
        embeddings = embed(
            model,
            sentences,
            role,
            batch_size=self.batch_size,
            show_progress_bar=self.show_progress_bar,
            max_active_dims=self.max_active_dims,
            convert_to_sparse_tensor=True,
            save_to_cpu=True,
            **options,
        )
        self.count(embeddings, column)
        return embeddings

    def count(self, embeddings: Tensor, column: str) -> None:
        """Count what is active in embeddings (N, D) of a column."""
        if self.sparsity is not None and column in self.sparsity:
            self.sparsity[column].add(embeddings)

    def evaluate(self, model: Any, *args: Any, **options: Any) -> Result:
        """Return the metrics of the dense evaluator, and how sparse the columns are."""
        self.sparsity = self.columns()
        result = super().evaluate(model, *args, **options)
        told = self.told(self.sparsity)
        return Result(result.metrics | told, result.row | told, result.primary)

    def get_config_dict(self) -> dict[str, Any]:
        """Return the options of the dense evaluator, and ``max_active_dims`` if it is given."""
        options = super().get_config_dict()
        return options if self.max_active_dims is None else options | {"max_active_dims": self.max_active_dims}

    def columns(self) -> dict[str, Sparsity]:
        """Return what counts each of the columns that the evaluator has."""
        return {"": Sparsity()}

    def told(self, sparsity: dict[str, Sparsity]) -> dict[str, float]:
        """Return the metrics of sparsity."""
        told: dict[str, float] = {}
        for column, counts in sparsity.items():
            told |= counts.metrics(f"{column}_" if column else "")
        return told
