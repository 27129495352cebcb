"""Losses that embed a batch in a way of their own, rather than each column with the model."""

from abc import abstractmethod
from collections.abc import Iterable, Sequence

from torch import Tensor

from sbert_ray.inference.prepared import Features
from sbert_ray.losses.loss import Loss, Value


class ModelLoss(Loss):
    """A loss that has several models, or that embeds some of its columns only.

    A subclass implements `embed`, and like any other `compute`. There is no gradient caching, as what is trained is not
    the model alone.
    """

    embeds_with_model = False

    def compute_loss_from_embeddings(self, embeddings: Iterable[Tensor], labels: Tensor | None = None) -> Value:
        """Return the loss of embeddings that are there already.

        Args:
            embeddings: What `embed` returns.
            labels: What `targets` returns.

        Raises:
            ValueError: As `forward`.
        """
        self.draw()
        return self.value(list(embeddings), labels)

    @abstractmethod
    def embed(self, features: Sequence[Features]) -> list[Tensor]:
        """Return what `compute` gets as embeddings, each (B, D).

        Args:
            features: Of each of C columns.
        """
