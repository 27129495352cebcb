"""What losses that wrap another loss have in common."""

from collections.abc import Sequence

from torch import Tensor, nn

from sbert_ray.inference.prepared import Features
from sbert_ray.losses.columns import MiniBatches
from sbert_ray.losses.loss import LabelUse, Loss
from sbert_ray.losses.values import Value


class WrapperLoss(Loss):
    """A loss that is computed by another one.

    It takes the same columns and labels, embeds them the same way and is cached and gathered as the other one is.

    Args:
        model: Embeds the columns.
        loss: The loss that is wrapped.

    Raises:
        TypeError: It is none of this library's losses.
        ValueError: It is not computed from embeddings alone, or has another model.
    """

    def __init__(self, model: nn.Module | None, loss: Loss) -> None:
        super().__init__(model)
        if not isinstance(loss, Loss):
            name = type(self).__name__
            raise TypeError(f"{name} wraps a loss over embeddings of sbert_ray.losses, got {type(loss).__name__}")
        if loss.model is None:
            loss.model = model
        elif loss.model is not model:
            raise ValueError(f"{type(self).__name__} and the {type(loss).__name__} in it must have the same model")
        if loss.runs_model:
            name, inner = type(self).__name__, type(loss).__name__
            raise ValueError(
                f"{name} wraps losses over embeddings, and {inner} runs the model itself; wrap it the other way"
            )
        self.loss = loss

    @property
    def num_columns(self) -> tuple[int, int | None]:  # type: ignore[override]
        """The fewest and the most columns."""
        return self.loss.num_columns

    @property
    def label_use(self) -> LabelUse:  # type: ignore[override]
        """Whether there must be labels."""
        return self.loss.label_use

    @property
    def labels_are_embeddings(self) -> bool:  # type: ignore[override]
        """Whether they are a teacher's embeddings."""
        return self.loss.labels_are_embeddings

    @property
    def by_rows(self) -> bool:  # type: ignore[override]
        """Whether `compute_rows` does less work for fewer rows."""
        return self.loss.by_rows

    @property
    def embeds_with_model(self) -> bool:  # type: ignore[override]
        """Whether embeddings are those of the model alone."""
        return self.loss.embeds_with_model

    @property
    def mini_batches(self) -> MiniBatches | None:  # type: ignore[override]
        """How many rows are embedded at a time."""
        return self.loss.mini_batches

    @property
    def gather_across_devices(self) -> bool:  # type: ignore[override]
        """Whether the loss is that of the batches of all workers put together."""
        return self.loss.gather_across_devices

    def check(self, num_columns: int, labels: Tensor | None) -> None:
        """Make sure that a batch is of the form that the wrapped loss takes."""
        self.loss.check(num_columns, labels)

    def check_embeddings(self, embeddings: Sequence[Tensor], labels: Tensor | None) -> None:
        """Make sure that embeddings are of the form that the wrapped loss takes."""
        self.loss.check_embeddings(embeddings, labels)

    def embed(self, features: Sequence[Features]) -> list[Tensor]:
        """Return the embeddings (B, D) of each column, as the wrapped loss makes them."""
        return self.loss.embed(features)

    def targets(self, features: Sequence[Features], labels: Tensor | None) -> Tensor | None:
        """Return what the wrapped loss takes as labels."""
        return self.loss.targets(features, labels)

    def draw(self) -> None:
        """Draw what the wrapped loss leaves to chance."""
        self.loss.draw()

    def compute(self, embeddings: Sequence[Tensor], labels: Tensor | None) -> Value:
        """Return the wrapped loss."""
        return self.loss.compute(embeddings, labels)

    def compute_rows(self, embeddings: Sequence[Tensor], labels: Tensor | None, rows: slice) -> Value:
        """Return the share of some anchors in the wrapped loss."""
        return self.loss.compute_rows(embeddings, labels, rows)

    def own_parameters(self) -> list[nn.Parameter]:
        """Return the weights that belong to the wrapped loss."""
        return self.loss.own_parameters()

    @property
    def citation(self) -> str:
        """What both losses go back to."""
        return "\n".join(filter(None, (super().citation, self.loss.citation)))


def check_embeds_with_model(wrapper: WrapperLoss) -> None:
    """Make sure that what is wrapped is computed from the model's embeddings, which the wrapper makes in its own way.

    Raises:
        ValueError: It is not.
    """
    if not wrapper.embeds_with_model:
        name, inner = type(wrapper).__name__, type(wrapper.loss).__name__
        raise ValueError(f"{name} embeds columns with the model, which {inner} does otherwise")


class CachedLoss(WrapperLoss):
    """Any loss of batches of any size, by gradient caching: its activations are those of one mini-batch.

    Value and gradients are those of the wrapped loss; the price is a second forward pass.

    Columns: those of the wrapped loss. Labels: those of the wrapped loss.

    Args:
        model: Embeds the columns.
        loss: Any loss over embeddings.
        mini_batch_size: Rows that are embedded at a time.
        mini_batch_num_tokens: Tokens that are embedded at a time, instead of rows.
        show_progress_bar: Whether to show the mini-batches.

    Raises:
        ValueError: The loss does not embed with the model alone.

    References:
        Gao et al. 2021, Scaling Deep Contrastive Learning Batch Size under Memory Limited Setup, arXiv:2101.06983.
    """

    mini_batches: MiniBatches | None = None

    def __init__(
        self,
        model: nn.Module | None,
        loss: Loss,
        mini_batch_size: int = 32,
        mini_batch_num_tokens: int | None = None,
        show_progress_bar: bool = False,
    ) -> None:
        super().__init__(model, loss)
        check_embeds_with_model(self)
        self.mini_batches = MiniBatches(mini_batch_size, mini_batch_num_tokens, show_progress_bar)


class GatheredLoss(WrapperLoss):
    """Any loss of the batches of all workers put together.

    The mean over workers, of values and of gradients, is the loss of the joint batch in one process.

    Columns: those of the wrapped loss. Labels: those of the wrapped loss.

    Args:
        model: Embeds the columns.
        loss: Any loss over embeddings.
    """

    gather_across_devices = True
