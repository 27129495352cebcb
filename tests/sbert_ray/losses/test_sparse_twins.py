"""The sparse twins of dense losses: other defaults, the same values, and the peer's."""

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from sbert_ray import SparseEncoder, losses
from sbert_ray.losses import (
    CachedLoss,
    CoSENTLoss,
    DistillKLDivLoss,
    MatryoshkaLoss,
    MultipleNegativesRankingLoss,
    SparseCoSENTLoss,
    SparseDistillKLDivLoss,
    SparseMSELoss,
    SparseMultipleNegativesRankingLoss,
    SpladeLoss,
)
from sbert_ray.similarity import dot_score
from tests.sbert_ray.losses.compare import assert_close, columns_of, run, text_columns
from tests.sbert_ray.losses.test_splade import peer, without_dropout

V = 17
SCORES = torch.tensor([0.1, 0.9, 0.5, 0.5])
TEACHER = torch.randn(4, V, generator=torch.Generator().manual_seed(0))
MARGINS = TEACHER[:, 0]
PAIRS = TEACHER[:, :2]
BATCHES: dict[str, tuple[int, Tensor | None]] = {
    "SparseAnglELoss": (2, SCORES),
    "SparseCoSENTLoss": (2, SCORES),
    "SparseCosineSimilarityLoss": (2, SCORES),
    "SparseDistillKLDivLoss": (3, PAIRS),
    "SparseMSELoss": (2, TEACHER),
    "SparseMarginMSELoss": (3, MARGINS),
    "SparseMultipleNegativesRankingLoss": (3, None),
    "SparseTripletLoss": (3, None),
}


@pytest.fixture
def splade_pair(tiny_splade: Path) -> tuple[Any, Any]:
    """Loaded anew, since some losses tell the model how to compare."""
    from sentence_transformers import SparseEncoder as Peer

    pair = SparseEncoder(str(tiny_splade), device="cpu"), Peer(str(tiny_splade), device="cpu")
    return tuple(without_dropout(model).train() for model in pair)


@pytest.mark.parametrize("name", sorted(BATCHES.keys() - {"SparseMSELoss"}))  # which the peer's SpladeLoss breaks
def test_equals_the_peer(splade_pair, name: str) -> None:
    num_columns, labels = BATCHES[name]
    found = []
    for model, module in zip(splade_pair, (losses, peer()), strict=True):
        inner = getattr(module, name)(model)
        loss = module.SpladeLoss(model, inner, 0.01, 0.02)
        found.append(run(loss, model, text_columns(num_columns), labels))
    assert_close(*found)
    assert splade_pair[0].similarity_fn_name == splade_pair[1].similarity_fn_name


def test_the_mean_squared_error_may_stand_alone(splade_pair) -> None:
    found = []
    for model, module in zip(splade_pair, (losses, peer()), strict=True):
        found.append(run(module.SparseMSELoss(model), model, text_columns(2), TEACHER))
    assert_close(*found)


def test_teachers_may_be_sparse() -> None:
    columns, teacher = columns_of(2, 4, 6), columns_of(1, 4, 6, seed=1)[0].relu()
    loss = SparseMSELoss(None)
    dense = loss.compute_loss_from_embeddings(columns, teacher)
    for wrapped in (loss, CachedLoss(None, loss), MatryoshkaLoss(None, SparseMSELoss(None), [6])):
        found = wrapped.compute_loss_from_embeddings(columns, teacher.to_sparse())
        assert found.isfinite()
        if wrapped is not loss and isinstance(wrapped, CachedLoss):
            torch.testing.assert_close(found, dense)


def test_differ_from_the_dense_ones_by_defaults_alone() -> None:
    columns = columns_of(3, 4, 6)
    ours, dense = (
        SparseMultipleNegativesRankingLoss(None),
        MultipleNegativesRankingLoss(None, scale=1.0, similarity_fct=dot_score),
    )
    torch.testing.assert_close(ours.compute(columns, None), dense.compute(columns, None))
    torch.testing.assert_close(
        SparseCoSENTLoss(None).compute(columns[:2], SCORES), CoSENTLoss(None).compute(columns[:2], SCORES)
    )
    torch.testing.assert_close(
        SparseDistillKLDivLoss(None).compute(columns, PAIRS),
        DistillKLDivLoss(None, temperature=2.0).compute(columns, PAIRS),
    )


@pytest.mark.parametrize("name", sorted(BATCHES.keys() - {"SparseMSELoss"}))
def test_must_be_wrapped(splade_pair, name: str) -> None:
    num_columns, labels = BATCHES[name]
    model = splade_pair[0]
    with pytest.raises(ValueError, match=rf"{name} cannot be used by itself; wrap it in SpladeLoss or CSRLoss"):
        run(getattr(losses, name)(model), model, text_columns(num_columns), labels)
    run(SpladeLoss(model, getattr(losses, name)(model), 0.1), model, text_columns(num_columns), labels)
