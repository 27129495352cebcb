"""The same loss of the same batch on our side and on the peer's, and what every loss must bear."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import sbert_ray.losses
from sbert_ray import SentenceTransformer

TEXTS = [
    "a cat",
    "the dog ran",
    "red blue",
    "a slow cat sat on the mat",
    "the fast dog",
    "a mat",
    "the red cat ran fast",
    "dog on a mat",
    "blue",
    "the cat sat",
]
ROWS = 7


@dataclass(frozen=True)
class Case:
    """A loss with options, and a batch for it."""

    name: str
    options: dict[str, Any] = field(default_factory=dict)
    num_columns: int = 2
    labels: Any = None
    peer_options: dict[str, Any] | None = None
    """Where they are other objects than ours."""

    def __str__(self) -> str:
        shape = "" if self.labels is None else f"-labels{tuple(torch.as_tensor(self.labels).shape)}"
        options = "".join(f"-{k}={getattr(v, '__name__', v)}" for k, v in self.options.items())
        return f"{self.name}{options}-{self.num_columns}{shape}"

    def loss(self, model: nn.Module | None = None) -> Any:
        return getattr(sbert_ray.losses, self.name)(model, **self.options)

    def peer_loss(self, model: nn.Module | None = None) -> Any:
        peer = pytest.importorskip("sentence_transformers.sentence_transformer.losses")
        return getattr(peer, self.name)(model, **(self.options if self.peer_options is None else self.peer_options))

    def targets(self) -> Tensor | None:
        return None if self.labels is None else torch.as_tensor(self.labels)

    def texts(self) -> list[list[str]]:
        return [[TEXTS[(row * (column + 1) + column) % len(TEXTS)] for row in range(ROWS)] for column in range(9)][
            : self.num_columns
        ]


@dataclass(frozen=True)
class Models:
    """The same model on our side and on the peer's, in double precision."""

    ours: SentenceTransformer
    theirs: Any

    @classmethod
    def load(cls, folder: Path) -> "Models":
        """Load a tiny checkpoint on both sides, and give it weights that tell texts apart."""
        peer = pytest.importorskip("sentence_transformers")
        models = cls(
            SentenceTransformer(str(folder), device="cpu").double(),
            peer.SentenceTransformer(str(folder), device="cpu").double(),
        )
        generator = torch.Generator().manual_seed(0)
        for a, b in zip(models.ours.parameters(), models.theirs.parameters(), strict=True):
            if a.ndim == 2:
                a.data = torch.randn(a.shape, generator=generator, dtype=torch.float64)
                b.data = a.data.clone()
        models.theirs.eval()
        return models

    def agree(self, case: Case, rtol: float = 1e-4) -> None:
        """Make sure that a loss and its gradients in the weights are the same on both sides."""
        found = []
        for model, loss in ((self.ours, case.loss(self.ours)), (self.theirs, case.peer_loss(self.theirs))):
            model.zero_grad()
            features = [dict(model.preprocess(texts)) for texts in case.texts()]
            value = loss(features, case.targets())
            total(value).backward()
            found.append((value, [p.grad for p in model.parameters()]))
        (value, gradients), (peer_value, peer_gradients) = found
        torch.testing.assert_close(value, peer_value, rtol=rtol, atol=1e-7, check_dtype=False)
        assert any(gradient is not None and gradient.abs().max() > 1e-4 for gradient in gradients)
        for ours, theirs in zip(gradients, peer_gradients, strict=True):
            assert (ours is None) == (theirs is None)
            if ours is not None:
                torch.testing.assert_close(ours, theirs, rtol=rtol, atol=rtol * float(theirs.abs().max()) + 1e-7)


def total(value: Any) -> Tensor:
    return torch.stack(list(value.values())).sum() if isinstance(value, dict) else value


def random_columns(num_columns: int, rows: int = ROWS, dimensions: int = 6) -> list[Tensor]:
    """Embeddings in double precision that ask for gradients."""
    return [torch.randn(rows, dimensions, dtype=torch.float64, requires_grad=True) for _ in range(num_columns)]


def gradient_is_right(case: Case) -> bool:
    """Whether the gradient of a loss in the embeddings is that of finite differences."""
    loss, labels = case.loss(), case.targets()

    def value(*columns: Tensor) -> Tensor:
        return total(loss.compute_loss_from_embeddings(columns, labels))

    return torch.autograd.gradcheck(value, random_columns(case.num_columns))


EXTREMES = {
    "equal": torch.ones(ROWS, 6),
    "zero": torch.zeros(ROWS, 6),
    "large": torch.randn(ROWS, 6, generator=torch.Generator().manual_seed(0)) * 1e6,
    "tiny": torch.randn(ROWS, 6, generator=torch.Generator().manual_seed(0)) * 1e-6,
}


def is_finite(case: Case, embeddings: Tensor, labels: Tensor | None) -> None:
    """Make sure that a loss of a batch whose columns are all the same has a finite value and finite gradients."""
    columns = [embeddings.clone().requires_grad_() for _ in range(case.num_columns)]
    value = total(case.loss().compute_loss_from_embeddings(columns, labels))
    value.backward()
    assert torch.isfinite(value)
    assert all(column.grad is None or torch.isfinite(column.grad).all() for column in columns)


def order_does_not_matter(case: Case) -> None:
    """Make sure that a loss stays the same when the rows of a batch are put in another order."""
    torch.manual_seed(1)
    columns, order, labels = random_columns(case.num_columns), torch.randperm(ROWS), case.targets()
    value = total(case.loss().compute_loss_from_embeddings(columns, labels))
    permuted = total(
        case.loss().compute_loss_from_embeddings(
            [column[order] for column in columns], None if labels is None else labels[order]
        )
    )
    torch.testing.assert_close(value, permuted)


def compute(case: Case, columns: Sequence[Tensor]) -> float:
    """Return the value of a loss of embeddings."""
    return total(case.loss().compute_loss_from_embeddings(columns, case.targets())).item()
