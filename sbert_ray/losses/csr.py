"""Losses that train a sparse autoencoder on top of a dense model.

Shapes: B rows of a column, D dimensions of the dense embeddings.
"""

from collections.abc import Iterable, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from sbert_ray.inference.prepared import Features
from sbert_ray.losses.columns import Columns, read
from sbert_ray.losses.loss import Loss
from sbert_ray.losses.sparse import SparseMultipleNegativesRankingLoss
from sbert_ray.losses.values import Value, components, scaled, total
from sbert_ray.losses.wrapper import WrapperLoss

OUTPUTS = (
    "sentence_embedding",
    "sentence_embedding_backbone",
    "decoded_embedding_k",
    "decoded_embedding_4k",
    "decoded_embedding_aux",
    "decoded_embedding_k_pre_bias",
)
"""What a model with a SparseAutoEncoder must write; the last but one may be None."""


class CSRReconstructionLoss(Loss):
    """How well a sparse autoencoder gives back the dense embeddings x, in the mean over the columns.

        reconstruction_loss_k   = MSE(x, d_k)
        reconstruction_loss_4k  = 1/8 MSE(x, d_4k)
        reconstruction_loss_aux = beta MSE(d_aux, y) / MSE(mean(y), y),   y = x - (d_k - bias)

    with d_k what k latents stand for, d_4k what four times as many do, and d_aux what the largest of those that have
    been dead for long make of the rest y, which passes no gradient on.

    Columns: any number of texts. Labels: none.

    Args:
        model: A model with a SparseAutoEncoder.
        beta: The weight of the auxiliary term.

    References:
        Wen et al. 2025, Beyond Matryoshka: Contrastive Sparse Representation, arXiv:2503.01776.
        Gao et al. 2024, Scaling and Evaluating Sparse Autoencoders, arXiv:2406.04093 (auxiliary term).
    """

    num_columns = (1, None)
    runs_model = True

    def __init__(self, model: nn.Module | None, beta: float = 1.0) -> None:
        super().__init__(model)
        self.beta = beta

    def run(self, model: nn.Module, features: Sequence[Features], labels: Tensor | None) -> Value:
        """Return the components by name."""
        return self.compute_loss_from_embeddings((autoencoded(model, column) for column in features), labels)

    def compute_loss_from_embeddings(  # type: ignore[override]
        self, embeddings: Iterable[Features], labels: Tensor | None = None
    ) -> dict[str, Tensor]:
        """Return the components by name.

        Args:
            embeddings: What the model writes for each column.
            labels: None.
        """
        outputs = list(embeddings)
        self.check(len(outputs), labels)
        found = [self._components(output) for output in outputs]
        return {name: torch.stack([part[name] for part in found]).mean() for name in found[0]}

    def _components(self, output: Features) -> dict[str, Tensor]:
        dense, decoded = read(output, "sentence_embedding_backbone"), read(output, "decoded_embedding_k")
        auxiliary = output.get("decoded_embedding_aux")
        found = {
            "reconstruction_loss_k": F.mse_loss(dense, decoded),
            "reconstruction_loss_4k": F.mse_loss(dense, read(output, "decoded_embedding_4k")) / 8,
        }
        if auxiliary is not None:
            rest = dense - read(output, "decoded_embedding_k_pre_bias").detach()
            found["reconstruction_loss_aux"] = self.beta * _normalized_mse(auxiliary, rest)
        return found

    def compute(self, embeddings: Sequence[Tensor], labels: Tensor | None) -> Value:  # noqa: ARG002
        """Refuse embeddings alone, of which nothing can be given back.

        Raises:
            ValueError: Always.
        """
        raise ValueError("CSRReconstructionLoss needs what a SparseAutoEncoder writes, not embeddings alone")


class CSRLoss(WrapperLoss):
    """Any loss of sparse embeddings from a sparse autoencoder, and how well that gives back the dense ones.

        loss = reconstruction + gamma base

    The components are returned by name: ``reconstruction_loss_k``, ``reconstruction_loss_4k``,
    ``reconstruction_loss_aux`` and ``base_loss``.

    Columns: those of the wrapped loss. Labels: those of the wrapped loss.

    Args:
        model: A model with a SparseAutoEncoder.
        loss: A loss over embeddings that is not cached; a `SparseMultipleNegativesRankingLoss` if None.
        beta: The weight of the auxiliary term of `CSRReconstructionLoss`.
        gamma: The weight of the loss.

    Raises:
        ValueError: The loss is cached.

    References:
        Wen et al. 2025, Beyond Matryoshka: Contrastive Sparse Representation, arXiv:2503.01776.
    """

    runs_model = True

    def __init__(
        self, model: nn.Module | None, loss: Loss | None = None, beta: float = 0.1, gamma: float = 1.0
    ) -> None:
        super().__init__(model, SparseMultipleNegativesRankingLoss(model) if loss is None else loss)
        if self.mini_batches is not None:
            kind = type(self.loss).__name__
            raise ValueError(f"CSRLoss needs the whole batch, whose activations a cached {kind} does not keep")
        self.reconstruction = CSRReconstructionLoss(model, beta)
        self.beta = beta
        self.gamma = gamma

    def run(self, model: nn.Module, features: Sequence[Features], labels: Tensor | None) -> Value:
        """Return the components by name."""
        outputs = [autoencoded(model, column) for column in features]
        base = scaled(self.loss.value([output["sentence_embedding"] for output in outputs], labels), self.gamma)
        found = self.reconstruction.compute_loss_from_embeddings(outputs)
        return found | (dict(components(base)) if isinstance(base, dict) else {"base_loss": total(base)})


def autoencoded(model: nn.Module, features: Features) -> Features:
    """Return what a model with a SparseAutoEncoder writes for one column, whose dead latents it counts by the batch.

    Raises:
        ValueError: It has none.
    """
    columns = Columns.of([features])
    parts = list(columns.parts(model))
    outputs = [model(part.features) for part in parts]
    if missing := [name for name in OUTPUTS if name not in outputs[0]]:
        raise ValueError(f"the model needs a SparseAutoEncoder, which writes {missing} in training")
    names = [name for name in OUTPUTS if outputs[0][name] is not None]
    return {name: columns.split(torch.cat([read(output, name) for output in outputs]), parts)[0] for name in names}


def _normalized_mse(found: Tensor, target: Tensor) -> Tensor:
    """Return the error relative to that of the target's mean over the batch."""
    baseline = F.mse_loss(target.mean(0, keepdim=True).expand_as(target), target)
    return F.mse_loss(found, target) / baseline.clamp(min=torch.finfo(target.dtype).tiny)
