"""Dense by hand, and what its config may not do."""

import json
from pathlib import Path

import pytest
import torch
from torch import nn

from sbert_ray.modules import Dense, LoadOptions

X = torch.tensor([[1.0, 2.0]])


def test_is_an_activated_linear_map() -> None:
    dense = Dense(2, 2, init_weight=torch.tensor([[1.0, 0.0], [0.0, -1.0]]), init_bias=torch.tensor([0.5, 0.0]))
    result = dense({"sentence_embedding": X})["sentence_embedding"]
    torch.testing.assert_close(result, torch.tensor([[1.5, -2.0]]).tanh())
    assert X.tolist() == [[1.0, 2.0]]


def test_adds_its_input_as_a_residual() -> None:
    dense = Dense(2, 2, bias=False, activation_function=None, init_weight=torch.eye(2) * 3, use_residual=True)
    assert dense({"sentence_embedding": X})["sentence_embedding"].tolist() == [[4.0, 8.0]]
    assert "residual.weight" in Dense(2, 3, use_residual=True).state_dict()


def test_reads_and_writes_the_features_it_is_told() -> None:
    dense = Dense(2, 3, module_input_name="token_embeddings", module_output_name="mapped")
    assert dense({"token_embeddings": X.unsqueeze(0)})["mapped"].shape == (1, 1, 3)


@pytest.mark.parametrize("options", [{}, {"use_residual": True}, {"bias": False, "activation_function": nn.GELU()}])
def test_survives_saving(options: dict, tmp_path: Path) -> None:
    dense = Dense(2, 3, **options)
    dense.save(tmp_path)
    loaded = Dense.load(tmp_path, LoadOptions())
    torch.testing.assert_close(loaded({"sentence_embedding": X}), dense({"sentence_embedding": X}))
    assert loaded.config() == dense.config()


@pytest.mark.parametrize(
    "path", ["os.system", "torch.nn.functional.gelu", "torch.hub.load", "torch.nn.Nothing", "Tanh"]
)
def test_a_config_cannot_name_other_code(path: str, tmp_path: Path) -> None:
    Dense(2, 3).save(tmp_path)
    config = json.loads((tmp_path / "config.json").read_text()) | {"activation_function": path}
    (tmp_path / "config.json").write_text(json.dumps(config))
    with pytest.raises(ValueError, match=r"activation_function must be a module of torch\.nn"):
        Dense.load(tmp_path, LoadOptions())


def test_warns_of_keys_that_it_does_not_know(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    Dense(2, 3).save(tmp_path)
    config = json.loads((tmp_path / "config.json").read_text()) | {"from_the_future": 1}
    (tmp_path / "config.json").write_text(json.dumps(config))
    Dense.load(tmp_path, LoadOptions())
    assert "ignoring unknown keys ['from_the_future']" in caplog.text


def test_names_what_is_wrong_with_its_files(tmp_path: Path) -> None:
    Dense(2, 3).save(tmp_path)
    (tmp_path / "config.json").write_text('{"in_features": 2}')
    with pytest.raises(ValueError, match=r"does not fit Dense: .*out_features"):
        Dense.load(tmp_path, LoadOptions())
    (tmp_path / "config.json").write_text('{"in_features": 5, "out_features": 3}')
    with pytest.raises(ValueError, match=r"weights in .*model\.safetensors' do not fit"):
        Dense.load(tmp_path, LoadOptions())
    (tmp_path / "model.safetensors").unlink()
    with pytest.raises(FileNotFoundError, match=r"must hold model\.safetensors"):
        Dense.load(tmp_path, LoadOptions())
