"""Losses that embed a batch in a way of their own, rather than each column with the model."""

from abc import abstractmethod
from collections.abc import Sequence

from torch import Tensor

from sbert_ray.inference.prepared import Features
from sbert_ray.losses.loss import Loss


class ModelLoss(Loss):
    """A loss that has several models, or that embeds some of its columns only.

    A subclass implements `embed`, and like any other `compute`. There is no gradient caching, as what is trained is not
    the model alone.
    """

    embeds_with_model = False

    def check_embeddings(self, embeddings: Sequence[Tensor], labels: Tensor | None) -> None:
        """Take what `embed` and `targets` return."""

    @abstractmethod
    def embed(self, features: Sequence[Features]) -> list[Tensor]:
        """Return what `compute` gets as embeddings, each (B, D).

        Args:
            features: Of each of C columns.
        """
