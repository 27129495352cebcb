"""The transformer's own checks; what it computes is tested against the peer."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

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
    assert (loaded.prepare(["CAT"]).ids.tolist() == loaded.prepare(["cat"]).ids.tolist()) is lower


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"transformer_task": "any-to-any"}, r"must have a transformer_task of \['feature-ex.*, got 'any-to-any'"),
        ({"module_output_name": "scores"}, "must have the module_output_name 'token_embeddings' for 'feature-ex"),
        ({"modality_config": {"text": {"method": "get_text_features"}}}, "must read text by"),
        ({"modality_config": {"message": {}}}, "must read messages by"),
        ({"query_length": 32}, r"has \['query_length'\], which are not supported"),
    ],
)
def test_what_is_not_supported_is_refused(config: dict[str, Any], message: str, checkpoint: Path) -> None:
    (checkpoint / "sentence_bert_config.json").write_text(json.dumps(config))
    with pytest.raises(ValueError, match=message):
        load(checkpoint)


def test_a_stored_config_may_set_what_is_harmless(checkpoint: Path, caplog: pytest.LogCaptureFixture) -> None:
    config = {
        "model_args": {"trust_remote_code": True, "attn_implementation": "eager"},
        "tokenizer_args": {"model_max_length": 7},
        "config_args": {"hidden_dropout_prob": 0.5, "model_type": "gpt2", "_name_or_path": "elsewhere"},
    }
    (checkpoint / "sentence_bert_config.json").write_text(json.dumps(config))
    loaded = load(checkpoint)
    assert loaded.model.config._attn_implementation == "eager"
    assert loaded.max_seq_length == 7
    assert (loaded.model.config.hidden_dropout_prob, loaded.model.config.model_type) == (0.5, "bert")
    assert "ignoring ['_name_or_path', 'model_type'], which the config" in caplog.text
    assert load(checkpoint, model_kwargs={"attn_implementation": "sdpa"}).model.config._attn_implementation == "sdpa"


@pytest.mark.parametrize(
    "stored",
    [
        {"model_kwargs": {"attn_implementation": "evil/kernel", "allow_all_kernels": True}},
        {"model_kwargs": {"use_safetensors": False, "weights_only": False}},
        {"model_kwargs": {"subfolder": "../outside"}},
        {"model_kwargs": {"gguf_file": "../outside/model.gguf"}},
        {"processor_kwargs": {"tokenizer_file": "{outside}/tokenizer.json"}},
        {"processor_kwargs": {"subfolder": "../outside"}},
        {"config_kwargs": {"subfolder": "../outside"}},
    ],
)
def test_a_stored_config_cannot_lead_out_of_the_checkpoint_or_grant_trust(
    stored: dict[str, dict[str, Any]], checkpoint: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """What lies outside, or in a pickle, has other weights and another vocabulary, so that reading it would show."""
    expected = load(checkpoint)
    outside = Path(shutil.copytree(checkpoint, checkpoint.parent / "outside"))
    weights = {name: weight + 1 for name, weight in load_file(outside / "model.safetensors").items()}
    save_file(weights, outside / "model.safetensors", metadata={"format": "pt"})
    torch.save(weights, checkpoint / "pytorch_model.bin")
    tokenizer = (outside / "tokenizer.json").read_text()
    (outside / "tokenizer.json").write_text(tokenizer.replace('"cat"', '"kitten"'))
    text = json.dumps(stored).replace("{outside}", str(outside))
    (checkpoint / "sentence_bert_config.json").write_text(text)
    loaded = load(checkpoint)
    assert "only you may" in caplog.text
    assert loaded.prepare(["cat"]).ids.tolist() == expected.prepare(["cat"]).ids.tolist()
    for name, weight in expected.state_dict().items():
        assert torch.equal(loaded.state_dict()[name], weight)


def test_a_kernel_to_fetch_is_refused(checkpoint: Path) -> None:
    config = json.loads((checkpoint / "config.json").read_text())
    (checkpoint / "config.json").write_text(json.dumps(config | {"attn_implementation": "evil/kernel"}))
    with pytest.raises(ValueError, match="asks for the attention kernel 'evil/kernel', which would be code to fetch"):
        load(checkpoint)
    assert load(checkpoint, model_kwargs={"attn_implementation": "sdpa"}).model.config._attn_implementation == "sdpa"


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


def test_a_request_for_pickles_still_reads_safe_weights_where_they_are(checkpoint: Path) -> None:
    loaded = load(checkpoint, model_kwargs={"use_safetensors": False})  # another module of the model has a pickle
    for name, weight in load(checkpoint).state_dict().items():
        assert torch.equal(loaded.state_dict()[name], weight)


@pytest.mark.parametrize("options", [{"model_kwargs": {"dtype": "float16"}}, {"config_kwargs": {"dtype": "float16"}}])
def test_a_dtype_is_taken_from_either_place(options: dict[str, Any], checkpoint: Path) -> None:
    assert load(checkpoint).model.dtype == torch.float32
    assert load(checkpoint, **options).model.dtype == torch.float16


def test_a_device_map_is_refused(checkpoint: Path) -> None:
    with pytest.raises(ValueError, match="must not hold device_map; pass device instead"):
        load(checkpoint, model_kwargs={"device_map": "auto"})
