"""SpladeLoss, its regularizer and CSRLoss against their formulas, gradients and the peer."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from sbert_ray import SparseEncoder, losses
from sbert_ray.losses import (
    CachedMultipleNegativesRankingLoss,
    CSRLoss,
    CSRReconstructionLoss,
    FlopsLoss,
    SparseMSELoss,
    SparseMultipleNegativesRankingLoss,
    SpladeLoss,
)
from tests.sbert_ray.losses.compare import assert_close, columns_of, features_of, run, text_columns

OPTIONS = {
    "both": {"query_regularizer_weight": 0.02},
    "documents": {},
    "all as documents": {"use_document_regularizer_only": True},
    "thresholds": {
        "query_regularizer_weight": 0.02,
        "document_regularizer_threshold": 7,
        "query_regularizer_threshold": 8,
    },
}


def peer() -> Any:
    import sentence_transformers.sparse_encoder.losses as peer_losses

    return peer_losses


def without_dropout(model: Any) -> Any:
    for part in model.modules():
        if isinstance(part, torch.nn.Dropout):
            part.p = 0.0
    return model


@pytest.fixture(scope="module")
def splade_pair(tiny_splade: Path) -> tuple[Any, Any]:
    from sentence_transformers import SparseEncoder as Peer

    pair = SparseEncoder(str(tiny_splade), device="cpu"), Peer(str(tiny_splade), device="cpu")
    return tuple(without_dropout(model).train() for model in pair)  # the peer's pooling has no gradient else


@pytest.fixture(scope="module")
def csr_pair(tiny_checkpoint: Path, tmp_path_factory: pytest.TempPathFactory) -> Callable[[], tuple[Any, Any]]:
    """A dense model with a sparse autoencoder, loaded anew, since it counts dead latents."""
    from sentence_transformers import SparseEncoder as Peer

    from sbert_ray import SentenceTransformer
    from sbert_ray.modules import SparseAutoEncoder

    folder = str(tmp_path_factory.mktemp("csr"))
    torch.manual_seed(0)
    dense = list(SentenceTransformer(str(tiny_checkpoint), device="cpu"))[:2]
    autoencoder = SparseAutoEncoder(16, 64, 4, k_aux=8, dead_threshold=2)
    SparseEncoder(modules=[*dense, autoencoder], device="cpu").save_pretrained(folder)
    return lambda: (SparseEncoder(folder, device="cpu"), Peer(folder, device="cpu").eval())


@pytest.mark.parametrize("name", ["SpladeLoss", "CachedSpladeLoss"])
@pytest.mark.parametrize("options", OPTIONS.values(), ids=OPTIONS)
def test_equals_the_peer(splade_pair, name: str, options: dict) -> None:
    found = []
    for model, module in zip(splade_pair, (losses, peer()), strict=True):
        inner = module.SparseMultipleNegativesRankingLoss(model)
        loss = getattr(module, name)(model, inner, document_regularizer_weight=0.03, **options)
        found.append(run(loss, model, text_columns(3), None))
    assert_close(*found)
    assert ("query_regularizer_loss" in found[0][0]) == ("query_regularizer_weight" in options)


@pytest.mark.parametrize("is_training", [False, True])
@pytest.mark.parametrize("options", [{}, {"beta": 0.7, "gamma": 0.2}])
def test_csr_equals_the_peer(csr_pair, options: dict, is_training: bool) -> None:
    """In training, latents die as batches go by; the model has no dropout then."""
    for_us, for_peer = [], []
    for model, module, found in zip(csr_pair(), (losses, peer()), (for_us, for_peer), strict=True):
        without_dropout(model).train(is_training)
        loss = module.CSRLoss(model, **options)
        found += [run(loss, model, text_columns(2), None) for _ in range(4)]
    for ours, theirs in zip(for_us, for_peer, strict=True):
        assert_close(ours, theirs)
    assert for_us[0][0].keys() == {
        "reconstruction_loss_k",
        "reconstruction_loss_4k",
        "reconstruction_loss_aux",
        "base_loss",
    }


def test_csr_reconstruction_equals_the_peer(csr_pair) -> None:
    found = []
    for model, module in zip(csr_pair(), (losses, peer()), strict=True):
        outputs = [model(features) for features in features_of(model, text_columns(2))]
        found.append(module.CSRReconstructionLoss(model, beta=0.5).compute_loss_from_embeddings(outputs))
    assert found[0].keys() == found[1].keys()
    for name, value in found[1].items():
        torch.testing.assert_close(found[0][name], value, rtol=1e-4, atol=1e-6)
    model = csr_pair()[0]
    alone = CSRReconstructionLoss(model, beta=0.5)(features_of(model, text_columns(2)))
    torch.testing.assert_close(alone, found[0], rtol=1e-4, atol=1e-6)


def test_csr_reconstruction_is_the_formula() -> None:
    x, k, k4, aux, rest = (column[0] for column in zip(columns_of(5, 3, 4), strict=True))
    output = {
        "sentence_embedding": x,
        "sentence_embedding_backbone": x,
        "decoded_embedding_k": k,
        "decoded_embedding_4k": k4,
        "decoded_embedding_aux": aux,
        "decoded_embedding_k_pre_bias": rest,
    }
    found = CSRReconstructionLoss(None, beta=0.5).compute_loss_from_embeddings([output, output])
    y = x - rest
    mean = y.mean(0)
    baseline = sum((mean[j] - y[i, j]) ** 2 for i in range(3) for j in range(4)) / 12
    expected = {
        "reconstruction_loss_k": sum((x[i, j] - k[i, j]) ** 2 for i in range(3) for j in range(4)) / 12,
        "reconstruction_loss_4k": sum((x[i, j] - k4[i, j]) ** 2 for i in range(3) for j in range(4)) / 96,
        "reconstruction_loss_aux": 0.5
        * (sum((aux[i, j] - y[i, j]) ** 2 for i in range(3) for j in range(4)) / 12)
        / baseline,
    }
    torch.testing.assert_close(found, expected)


def test_flops_is_the_formula() -> None:
    first, second = (column.relu() for column in columns_of(2, 4, 5))
    rows = [*first, *second]
    expected = sum((sum(row[j].item() for row in rows) / 8) ** 2 for j in range(5))
    assert FlopsLoss(None).compute_loss_from_embeddings([first, second]).item() == pytest.approx(expected)
    kept = [row if int((row != 0).sum()) > 2 else torch.zeros(5) for row in rows]
    expected = sum((sum(row[j].item() for row in kept) / 8) ** 2 for j in range(5))
    found = FlopsLoss(None, threshold=2).compute_loss_from_embeddings([first, second])
    assert found.item() == pytest.approx(expected)


@pytest.mark.parametrize("threshold", [None, 2])
def test_flops_gradient_is_right(threshold: int | None) -> None:
    loss = FlopsLoss(None, threshold)
    columns = [column.requires_grad_() for column in columns_of(2, 3, 4)]
    assert torch.autograd.gradcheck(lambda *columns: loss.compute_loss_from_embeddings(columns), columns)


def test_components_sum_up_to_what_is_regularized() -> None:
    columns = [column.relu() for column in columns_of(3, 4, 6)]
    base, flops = SparseMultipleNegativesRankingLoss(None), FlopsLoss(None)
    found = SpladeLoss(None, base, 0.5, 0.25).compute_loss_from_embeddings(columns)
    expected = {
        "base_loss": base.compute(columns, None),
        "document_regularizer_loss": 0.5 * flops.compute(columns[1:], None),
        "query_regularizer_loss": 0.25 * flops.compute(columns[:1], None),
    }
    torch.testing.assert_close(found, expected)


def test_regularizers_within_each_other_add_up() -> None:
    columns = [column.relu() for column in columns_of(2, 4, 6)]
    inner = SpladeLoss(None, SparseMultipleNegativesRankingLoss(None), 0.5)
    found = SpladeLoss(None, inner, 0.1).compute_loss_from_embeddings(columns)
    base = SparseMultipleNegativesRankingLoss(None).compute(columns, None)
    expected = {"base_loss": base, "document_regularizer_loss": 0.6 * FlopsLoss(None).compute(columns[1:], None)}
    torch.testing.assert_close(found, expected)


def test_documents_must_be_there() -> None:
    with pytest.raises(ValueError, match="there are none; say use_document_regularizer_only=True"):
        SpladeLoss(None, SparseMSELoss(None), 0.1).compute_loss_from_embeddings(
            columns_of(1, 3, 4), columns_of(1, 3, 4)[0]
        )


def test_a_threshold_needs_the_default_regularizer() -> None:
    with pytest.raises(ValueError, match="document_regularizer_threshold is that of a FlopsLoss"):
        SpladeLoss(
            None,
            SparseMultipleNegativesRankingLoss(None),
            0.1,
            document_regularizer=FlopsLoss(None),
            document_regularizer_threshold=3,
        )


@pytest.mark.parametrize("name", ["FlopsLoss", "SparseMultipleNegativesRankingLoss"])
def test_makes_no_sense_alone(splade_pair, name: str) -> None:
    model = splade_pair[0]
    with pytest.raises(ValueError, match=rf"{name} cannot be used by itself; wrap it in SpladeLoss"):
        getattr(losses, name)(model)(features_of(model, text_columns(2)))


def test_csr_refuses_what_it_cannot_do(splade_pair) -> None:
    model = splade_pair[0]
    with pytest.raises(ValueError, match="a cached CachedMultipleNegativesRankingLoss does not keep"):
        CSRLoss(model, CachedMultipleNegativesRankingLoss(model))
    with pytest.raises(ValueError, match="the model needs a SparseAutoEncoder"):
        CSRLoss(model)(features_of(model, text_columns(2)))
    with pytest.raises(ValueError, match="needs what a SparseAutoEncoder writes, not embeddings alone"):
        CSRReconstructionLoss(model).compute(columns_of(2, 3, 4), None)
