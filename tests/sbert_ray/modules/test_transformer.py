"""The transformer's own checks; what it computes is tested against the peer."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import BartConfig

from sbert_ray.modules import LoadOptions, Transformer


@pytest.fixture
def checkpoint(tiny_checkpoint: Path, tmp_path: Path) -> Path:
    """A copy of the tiny checkpoint to change."""
    return Path(shutil.copytree(tiny_checkpoint, tmp_path / "checkpoint"))


def load(folder: Path, **options: Any) -> Transformer:
    return Transformer.load(folder, LoadOptions(**options))


def test_makes_a_padded_batch(checkpoint: Path) -> None:
    features = load(checkpoint).preprocess(["a cat", "red"])
    assert features["attention_mask"].tolist() == [[1, 1, 1, 1], [1, 1, 1, 0]]
    assert features["input_ids"].shape == (2, 4)
    assert load(checkpoint)(features)["token_embeddings"].shape == (2, 4, 16)


@pytest.mark.parametrize("lower", [False, True])
def test_lowercases_where_the_config_says_so(lower: bool, checkpoint: Path) -> None:
    (checkpoint / "sentence_bert_config.json").write_text(json.dumps({"do_lower_case": lower}))
    loaded = load(checkpoint, processor_kwargs={"do_lower_case": False})
    assert (loaded.tokenize_texts(["CAT"]).ids.tolist() == loaded.tokenize_texts(["cat"]).ids.tolist()) is lower


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"transformer_task": "fill-mask"}, r"must have .*'feature-extraction'.*, got .*'fill-mask'"),
        ({"modality_config": {"text": {"method": "get_text_features"}}}, "must embed text by"),
        ({"query_length": 32}, r"has \['query_length'\], which are not supported"),
    ],
)
def test_what_is_not_supported_is_refused(config: dict[str, Any], message: str, checkpoint: Path) -> None:
    (checkpoint / "sentence_bert_config.json").write_text(json.dumps(config))
    with pytest.raises(ValueError, match=message):
        load(checkpoint)


def test_a_stored_config_cannot_grant_trust(checkpoint: Path) -> None:
    config = {"model_args": {"trust_remote_code": True, "attn_implementation": "eager"}}
    (checkpoint / "sentence_bert_config.json").write_text(json.dumps(config))
    assert Transformer.read_config(checkpoint)["model_kwargs"] == {"attn_implementation": "eager"}
    assert load(checkpoint).model.config._attn_implementation == "eager"


def test_missing_weights_are_named_not_made_up(checkpoint: Path) -> None:
    weights = load_file(checkpoint / "model.safetensors")
    del weights["encoder.layer.1.output.dense.weight"], weights["pooler.dense.weight"]  # the pooler is not used
    save_file(weights, checkpoint / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(ValueError, match=r"must hold \['encoder\.layer\.1\.output\.dense\.weight'\] \(1 are missing\)"):
        load(checkpoint)


def test_a_pickle_is_read_where_asked_for(checkpoint: Path) -> None:
    expected = load(checkpoint)
    torch.save(load_file(checkpoint / "model.safetensors"), checkpoint / "pytorch_model.bin")
    (checkpoint / "model.safetensors").unlink()
    loaded = load(checkpoint, model_kwargs={"use_safetensors": False})
    for name, weight in expected.state_dict().items():
        assert torch.equal(loaded.state_dict()[name], weight)
    with pytest.raises(OSError, match=r"model\.safetensors"):
        load(checkpoint)


def test_other_encoder_decoders_are_refused(checkpoint: Path) -> None:
    BartConfig(d_model=16).save_pretrained(checkpoint)
    with pytest.raises(ValueError, match=r"encoder-decoder models must be of \['longt5', .*, got 'bart'"):
        load(checkpoint)


def test_a_device_map_is_refused(checkpoint: Path) -> None:
    with pytest.raises(ValueError, match="must not hold device_map; pass device instead"):
        load(checkpoint, model_kwargs={"device_map": "auto"})
