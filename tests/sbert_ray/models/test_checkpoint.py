"""What the JSON files of a checkpoint tell, and every way in which a checkpoint can be wrong."""

import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from sbert_ray.models.checkpoint import describe_checkpoint, read_modules, resolve_checkpoint
from sbert_ray.models.hub import folder_digest


@pytest.fixture
def checkpoint(tiny_checkpoint: Path, tmp_path: Path) -> Path:
    """A copy of the tiny checkpoint to break."""
    return Path(shutil.copytree(tiny_checkpoint, tmp_path / "checkpoint"))


def edit(path: Path, **values: object) -> None:
    path.write_text(json.dumps(json.loads(path.read_text()) | values))


def test_describes_minilm(minilm: Path) -> None:
    info = describe_checkpoint(minilm)
    assert info.modules == ("Transformer", "Pooling", "Normalize")
    assert (info.embedding_dimension, info.pooling_modes, info.is_normalized) == (384, ("mean",), True)
    assert (info.max_seq_length, info.prompts, info.similarity_fn_name) == (256, {}, None)


def test_describes_what_we_save(checkpoint: Path) -> None:
    edit(checkpoint / "1_Pooling" / "config.json", pooling_mode=["mean", "cls"])
    edit(checkpoint / "config_sentence_transformers.json", prompts={"query": "q: "}, truncate_dim=8)
    info = describe_checkpoint(checkpoint)
    assert (info.embedding_dimension, info.pooling_modes, info.max_seq_length) == (32, ("mean", "cls"), 32)
    assert (info.prompts, info.truncate_dim, info.similarity_fn_name) == ({"query": "q: "}, 8, "cosine")


@pytest.mark.parametrize(
    ("architecture", "is_causal", "mode"),
    [("BertModel", None, "mean"), ("LlamaForCausalLM", None, "lasttoken"), ("LlamaForCausalLM", False, "mean")],
)
def test_describes_a_plain_transformer(architecture: str, is_causal: bool | None, mode: str, checkpoint: Path) -> None:
    (checkpoint / "modules.json").unlink()
    edit(checkpoint / "config.json", architectures=[architecture], is_causal=is_causal)
    info = describe_checkpoint(checkpoint)
    assert (info.modules, info.pooling_modes, info.embedding_dimension) == (("Transformer", "Pooling"), (mode,), 16)


def test_a_folder_must_be_there_and_be_a_checkpoint(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"there is no model folder '.*nowhere'"):
        describe_checkpoint(tmp_path / "nowhere")
    with pytest.raises(FileNotFoundError, match=r"has neither modules\.json nor config\.json"):
        describe_checkpoint(tmp_path)


@pytest.mark.parametrize("kind", ["sentence_transformers.models.LSTM", "sbert_ray.Nothing"])
def test_an_unknown_module_is_named(kind: str, checkpoint: Path) -> None:
    (checkpoint / "modules.json").write_text(json.dumps([{"idx": 0, "name": "0", "path": "", "type": kind}]))
    with pytest.raises(ValueError, match=rf"unknown module '{kind}' .* known modules are \['Dense', "):
        read_modules(checkpoint)


def test_custom_code_is_refused(checkpoint: Path) -> None:
    entry = {"idx": 0, "name": "0", "path": "", "type": "custom_st.Transformer"}
    (checkpoint / "modules.json").write_text(json.dumps([entry]))
    with pytest.raises(ValueError, match=r"custom module 'custom_st\.Transformer', which runs code"):
        read_modules(checkpoint)


@pytest.mark.parametrize("path", ["../elsewhere", "/etc", "1_Pooling/../..", "..\\elsewhere"])
def test_paths_stay_within_the_folder(path: str, checkpoint: Path) -> None:
    entry = {"idx": 0, "name": "0", "path": path, "type": "sentence_transformers.models.Transformer"}
    (checkpoint / "modules.json").write_text(json.dumps([entry]))
    with pytest.raises(ValueError, match="a module's path must stay within"):
        read_modules(checkpoint)


def test_the_first_module_must_be_a_transformer(checkpoint: Path) -> None:
    entry = {"idx": 0, "name": "0", "path": "1_Pooling", "type": "sentence_transformers.models.Pooling"}
    (checkpoint / "modules.json").write_text(json.dumps([entry]))
    with pytest.raises(ValueError, match=r"must be a Transformer, got \['Pooling'\]"):
        describe_checkpoint(checkpoint)


def test_missing_weights_are_named(checkpoint: Path) -> None:
    weights = checkpoint / "model.safetensors"
    weights.rename(checkpoint / "model-1.safetensors")
    with pytest.raises(FileNotFoundError, match=r"has no weights: it lacks model\.safetensors"):
        describe_checkpoint(checkpoint)
    index = {"weight_map": {"a": "model-1.safetensors", "b": "model-2.safetensors"}}
    (checkpoint / "model.safetensors.index.json").write_text(json.dumps(index))
    with pytest.raises(FileNotFoundError, match=r"names weights that are missing: \['model-2\.safetensors'\]"):
        describe_checkpoint(checkpoint)


@pytest.mark.parametrize("index", ["model.safetensors.index.json", "pytorch_model.bin.index.json"])
@pytest.mark.parametrize("form", ["{folder}/secret", "../secret", "sub/../../secret", "..\\\\secret"])
def test_a_shard_outside_the_checkpoint_is_refused(checkpoint: Path, index: str, form: str) -> None:
    (checkpoint / "model.safetensors").unlink()
    (checkpoint.parent / "secret").write_bytes(b"")
    shard = form.format(folder=checkpoint.parent)
    (checkpoint / index).write_text(json.dumps({"weight_map": {"a": shard}}))
    with pytest.raises(ValueError, match=rf"{re.escape(index)}' must name weights within its folder, got \["):
        describe_checkpoint(checkpoint, allow_pickle=True)


def test_a_pickle_is_refused_unless_asked_for(checkpoint: Path) -> None:
    (checkpoint / "model.safetensors").unlink()
    torch.save({}, checkpoint / "pytorch_model.bin")
    with pytest.raises(FileNotFoundError, match=r"has pytorch_model\.bin, a pickle, .* convert it once"):
        describe_checkpoint(checkpoint)
    assert describe_checkpoint(checkpoint, allow_pickle=True).embedding_dimension == 16


def test_other_kinds_of_models_are_refused(checkpoint: Path) -> None:
    edit(checkpoint / "config_sentence_transformers.json", model_type="CrossEncoder")
    with pytest.raises(ValueError, match="must be 'SentenceTransformer', got 'CrossEncoder'"):
        describe_checkpoint(checkpoint)


def test_an_adapter_is_refused(checkpoint: Path) -> None:
    (checkpoint / "adapter_config.json").write_text("{}")
    with pytest.raises(ValueError, match="is a PEFT adapter, which is not supported"):
        describe_checkpoint(checkpoint)


def test_broken_json_is_named(checkpoint: Path) -> None:
    (checkpoint / "modules.json").write_text("[")
    with pytest.raises(ValueError, match=r"modules\.json' must be JSON"):
        describe_checkpoint(checkpoint)


@pytest.mark.parametrize("modules", ['{"idx": 0}', '[{"idx": 0, "path": ""}]', '["Transformer"]'])
def test_a_list_of_modules_is_one(modules: str, checkpoint: Path) -> None:
    (checkpoint / "modules.json").write_text(modules)
    with pytest.raises(ValueError, match="must be a list of objects with 'type' and 'path'"):
        describe_checkpoint(checkpoint)


def test_a_local_folder_is_known_by_its_content(checkpoint: Path, tiny_checkpoint: Path) -> None:
    found = resolve_checkpoint(str(checkpoint))
    assert (found.name, found.folder, found.revision) == (str(checkpoint), checkpoint, folder_digest(tiny_checkpoint))
    (checkpoint / "README.md").write_text("another card")
    (checkpoint / ".gitattributes").write_text("")
    assert folder_digest(checkpoint) == found.revision
    edit(checkpoint / "1_Pooling" / "config.json", pooling_mode="cls")
    assert folder_digest(checkpoint) != found.revision
    assert found.revision.startswith("sha256:")


def test_a_local_folder_has_no_revisions(checkpoint: Path) -> None:
    with pytest.raises(ValueError, match="revision must be None for the local folder"):
        resolve_checkpoint(checkpoint, revision="main")


def test_what_is_no_folder_and_no_hub_id_is_missing(tmp_path: Path) -> None:
    for name in (str(tmp_path / "nowhere"), "a/b/c", "./nowhere"):
        with pytest.raises(FileNotFoundError, match="there is no model folder"):
            resolve_checkpoint(name)
    (tmp_path / "file").touch()
    with pytest.raises(NotADirectoryError, match="must be a folder or a hub id"):
        resolve_checkpoint(tmp_path / "file")
    with pytest.raises(FileNotFoundError, match="neither a folder nor a valid hub id"):
        resolve_checkpoint("so what?", local_files_only=True)


@pytest.mark.parametrize(
    ("name", "repository"),
    [
        ("all-MiniLM-L6-v2", "sentence-transformers/all-MiniLM-L6-v2"),
        ("bert-base-uncased", "bert-base-uncased"),
        ("BAAI/bge-m3", "BAAI/bge-m3"),
    ],
)
def test_a_missing_hub_model_is_named_and_no_token_shown(name: str, repository: str, tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=f"model '{repository} at revision v1' .* downloads are off") as error:
        resolve_checkpoint(name, revision="v1", token="hf_secret", cache_folder=str(tmp_path), local_files_only=True)
    assert "hf_secret" not in str(error.value)


def test_a_snapshot_is_known_by_its_commit(tiny_checkpoint: Path, tmp_path: Path) -> None:
    commit = "0123456789abcdef0123456789abcdef01234567"
    repository = tmp_path / "models--sentence-transformers--tiny"
    shutil.copytree(tiny_checkpoint, repository / "snapshots" / commit)
    (repository / "refs").mkdir()
    (repository / "refs" / "main").write_text(commit)
    found = resolve_checkpoint("tiny", cache_folder=str(tmp_path), local_files_only=True)
    assert (found.name, found.revision) == ("tiny", commit)
    assert describe_checkpoint(found.folder).embedding_dimension == 16


LIGHT = (
    "sbert_ray sbert_ray.data sbert_ray.models.checkpoint sbert_ray.quantization sbert_ray.sentence_transformer".split()
)


@pytest.mark.parametrize("module", LIGHT)
def test_a_driver_starts_without_torch(module: str) -> None:
    script = f"import sys, {module}; sys.exit(bool({{'torch', 'transformers'}} & set(sys.modules)))"
    assert subprocess.run([sys.executable, "-c", script], check=False).returncode == 0
