"""The modules of a line or two."""

import torch

from sbert_ray import modules
from sbert_ray.modules import MODULES, Dropout, LayerNorm, Module, Normalize

X = torch.tensor([[3.0, 4.0]])


def test_normalize_scales_to_unit_length() -> None:
    torch.testing.assert_close(Normalize()({"sentence_embedding": X})["sentence_embedding"], X / 5)
    torch.testing.assert_close(Normalize("a", "b")({"a": X})["b"], X / 5)
    assert Normalize()({"other": X}) == {"other": X}


def test_layer_norm_has_zero_mean_and_unit_variance() -> None:
    result = LayerNorm(2)({"sentence_embedding": X})["sentence_embedding"]
    torch.testing.assert_close(result, torch.tensor([[-1.0, 1.0]]), atol=1e-4, rtol=0)


def test_dropout_acts_in_training_only() -> None:
    torch.manual_seed(0)
    dropout = Dropout(0.5)
    ones = {"sentence_embedding": torch.ones(1, 1000)}
    assert set(dropout(ones)["sentence_embedding"].unique().tolist()) == {0.0, 2.0}
    assert torch.equal(dropout.eval()(ones)["sentence_embedding"], ones["sentence_embedding"])


def test_every_module_knows_its_public_path() -> None:
    for name in MODULES:
        module = getattr(modules, name)
        assert issubclass(module, Module)
        assert module.public_path.rpartition(".")[2] == name
