"""The sparse autoencoder against the peer's, step by step in training, and on disk."""

from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from sbert_ray.modules import LoadOptions, SparseAutoEncoder

peer = pytest.importorskip("sentence_transformers.sparse_encoder.modules")

OUTPUTS = (
    "sentence_embedding sentence_embedding_backbone sentence_embedding_encoded sentence_embedding_encoded_4k"
    " auxiliary_embedding decoded_embedding_k decoded_embedding_4k decoded_embedding_aux decoded_embedding_k_pre_bias"
).split()


def pair(**options: Any) -> tuple[SparseAutoEncoder, Any]:
    """Ours and the peer's with the same weights."""
    torch.manual_seed(0)
    settings = {"input_dim": 6, "hidden_dim": 40, "k": 5, "k_aux": 7, "dead_threshold": 4} | options
    ours, theirs = SparseAutoEncoder(**settings), peer.SparseAutoEncoder(**settings)
    torch.nn.init.normal_(ours.pre_bias)
    torch.nn.init.normal_(ours.latent_bias, std=0.2)
    theirs.load_state_dict(ours.state_dict() | {"decoder.linear.weight": ours.encoder.weight})
    return ours, theirs


def batch(seed: int) -> dict[str, torch.Tensor]:
    return {"sentence_embedding": torch.randn(3, 6, generator=torch.Generator().manual_seed(seed))}


@pytest.mark.parametrize("normalize", [False, True])
@pytest.mark.parametrize("max_active_dims", [None, 2])
def test_infers_as_the_peer(normalize: bool, max_active_dims: int | None) -> None:
    ours, theirs = pair(normalize=normalize)
    features = batch(0)
    with torch.inference_mode():
        mine = ours.eval()(features, max_active_dims=max_active_dims)
        yours = theirs.eval()(batch(0), max_active_dims=max_active_dims)
    assert mine.keys() == {"sentence_embedding"}
    torch.testing.assert_close(mine["sentence_embedding"], yours["sentence_embedding"])
    assert (mine["sentence_embedding"] != 0).sum(1).max() <= (max_active_dims or 5)
    assert torch.equal(features["sentence_embedding"], batch(0)["sentence_embedding"])


@pytest.mark.parametrize("options", [{}, {"normalize": True}, {"k_aux": 0}], ids=str)
def test_trains_as_the_peer(options: dict[str, Any]) -> None:
    """For some steps, in which latents die and come back."""
    ours, theirs = pair(**options)
    ours.train()
    theirs.train()
    dead = []
    for step in range(6):
        mine, yours = ours(batch(step)), theirs(batch(step))
        assert mine.keys() == set(OUTPUTS)
        for name in OUTPUTS:
            torch.testing.assert_close(mine[name], yours[name], msg=name)
        assert torch.equal(ours.stats_last_nonzero, theirs.stats_last_nonzero)
        dead.append(int((ours.stats_last_nonzero > 4).sum()))
        for outputs in (mine, yours):
            sum(outputs[name].square().sum() for name in OUTPUTS if outputs[name] is not None).backward()
        torch.testing.assert_close(ours.encoder.weight.grad, theirs.encoder.weight.grad)
        torch.testing.assert_close(ours.pre_bias.grad, theirs.pre_bias.grad)
        torch.testing.assert_close(ours.latent_bias.grad, theirs.latent_bias.grad)
    assert dead[0] == 0 < dead[-1]


def test_evaluation_keeps_the_statistics() -> None:
    ours, theirs = pair()
    with torch.no_grad():
        mine, yours = ours.train()(batch(0)), theirs.train()(batch(0))
    assert mine.keys() == yours.keys()
    assert not ours.stats_last_nonzero.any()


def test_no_more_latents_are_kept_than_there_are() -> None:
    """A plain checkpoint of a small model gets a k that is larger than its latents' number."""
    module = SparseAutoEncoder(6, 24, k=256, k_aux=512)
    outputs = module(batch(0))
    assert outputs["sentence_embedding_encoded_4k"].shape == (3, 24)
    torch.testing.assert_close(outputs["sentence_embedding"], outputs["sentence_embedding_encoded"].relu())


def test_survives_saving_in_both_directions(tmp_path: Path) -> None:
    ours, theirs = pair(normalize=True)
    ours.stats_last_nonzero += 3
    theirs.stats_last_nonzero += 3
    ours.save(tmp_path / "ours")
    (tmp_path / "theirs").mkdir()
    theirs.save(str(tmp_path / "theirs"))
    for loaded in (
        SparseAutoEncoder.load(tmp_path / "ours", LoadOptions()),
        SparseAutoEncoder.load(tmp_path / "theirs", LoadOptions()),
        peer.SparseAutoEncoder.load(str(tmp_path / "ours")),
    ):
        state = loaded.state_dict()
        for name, value in ours.state_dict().items():
            assert torch.equal(state[name], value)
    assert SparseAutoEncoder.read_config(tmp_path / "theirs") == ours.config() == theirs.get_config_dict()


def test_the_shared_weight_may_have_either_name(tmp_path: Path) -> None:
    ours, _ = pair()
    ours.save(tmp_path)
    weights = load_file(tmp_path / "model.safetensors")
    weights["decoder.linear.weight"] = weights.pop("encoder.weight")
    save_file(weights, tmp_path / "model.safetensors")
    loaded = SparseAutoEncoder.load(tmp_path, LoadOptions())
    assert torch.equal(loaded.encoder.weight, ours.encoder.weight)


def test_k_must_be_positive() -> None:
    with pytest.raises(ValueError, match="k must be positive, got 0"):
        SparseAutoEncoder(6, k=0)
