"""What the JSON files of a checkpoint tell, and every way in which a checkpoint can be wrong."""

import json
import re
import shutil
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import huggingface_hub
import pytest
import torch
from huggingface_hub.errors import HfHubHTTPError, LocalEntryNotFoundError

from sbert_ray.models.checkpoint import describe_checkpoint, resolve_checkpoint
from sbert_ray.models.hub import folder_digest
from sbert_ray.models.layout import read_modules

NO_PROMPTS = {"query": "", "document": ""}
TEXT_OUTPUT = {"method": "forward", "method_output_name": "last_hidden_state"}


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
    assert (info.max_seq_length, info.prompts, info.similarity_fn_name) == (256, NO_PROMPTS, None)


def test_describes_what_we_save(checkpoint: Path) -> None:
    edit(checkpoint / "1_Pooling" / "config.json", pooling_mode=["mean", "cls"])
    edit(checkpoint / "config_sentence_transformers.json", prompts={"query": "q: "}, truncate_dim=8)
    info = describe_checkpoint(checkpoint)
    assert (info.embedding_dimension, info.pooling_modes, info.max_seq_length) == (32, ("mean", "cls"), 32)
    assert (info.prompts, info.truncate_dim, info.similarity_fn_name) == (NO_PROMPTS | {"query": "q: "}, 8, "cosine")


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


@pytest.mark.parametrize("kind", ["sentence_transformers.models.Median", "sbert_ray.Nothing"])
def test_an_unknown_module_is_named(kind: str, checkpoint: Path) -> None:
    (checkpoint / "modules.json").write_text(json.dumps([{"idx": 0, "name": "0", "path": "", "type": kind}]))
    with pytest.raises(ValueError, match=rf"unknown module '{kind}' .* known modules are \['BoW', 'CNN', "):
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


def test_the_first_module_must_take_inputs(checkpoint: Path) -> None:
    entry = {"idx": 0, "name": "0", "path": "1_Pooling", "type": "sentence_transformers.models.Pooling"}
    (checkpoint / "modules.json").write_text(json.dumps([entry]))
    with pytest.raises(ValueError, match=r"must be one of .*'Transformer'.*, got \['Pooling'\]"):
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


def test_another_kind_of_model_becomes_a_plain_encoder(checkpoint: Path, caplog: pytest.LogCaptureFixture) -> None:
    edit(checkpoint / "config_sentence_transformers.json", model_type="CrossEncoder", prompts={"query": "q: "})
    info = describe_checkpoint(checkpoint)
    assert (info.modules, dict(info.prompts)) == (("Transformer", "Pooling"), NO_PROMPTS)
    assert "loading the CrossEncoder in" in caplog.text


def test_an_adapter_is_refused(checkpoint: Path) -> None:
    (checkpoint / "adapter_config.json").write_text("{}")
    with pytest.raises(ValueError, match="is a PEFT adapter, which is not supported"):
        describe_checkpoint(checkpoint)


def test_a_chat_template_is_described(checkpoint: Path) -> None:
    (checkpoint / "chat_template.jinja").write_text("{{ messages[0].content }}")
    message = {**TEXT_OUTPUT, "format": "flat"}
    edit(checkpoint / "sentence_bert_config.json", modality_config={"text": TEXT_OUTPUT, "message": message})
    assert describe_checkpoint(checkpoint).embedding_dimension == 16
    edit(checkpoint / "sentence_bert_config.json", modality_config={"message": {**message, "format": "round"}})
    with pytest.raises(ValueError, match="messages of the format 'flat', 'structured' or 'auto', got 'round'"):
        describe_checkpoint(checkpoint)
    (checkpoint / "modules.json").unlink()  # what is left is a plain checkpoint, which the config is not about
    assert describe_checkpoint(checkpoint).modules == ("Transformer", "Pooling")


@pytest.mark.parametrize(
    ("requirements", "message"),
    [
        ({"transformers": ">=99"}, r"requires transformers>=99 \(\d.* here\); install that first"),
        ({"python": "<3"}, r"requires python<3 \(3\."),
        ({"no-such-package": ""}, r"requires no-such-package \(not installed here\)"),
        ({"pytorch": {"specifier": "<1", "reason": "a bug"}}, r"requires pytorch<1 \(2\..* here: a bug\)"),
        ({"sentence_transformers": ">=7", "torch": ">=2"}, r"requires sentence_transformers>=7 \(6\.2\.0 here\); inst"),
    ],
)
def test_requirements_that_are_not_met_are_named(requirements: object, message: str, checkpoint: Path) -> None:
    edit(checkpoint / "config_sentence_transformers.json", requirements=requirements)
    with pytest.raises(ImportError, match=message):
        describe_checkpoint(checkpoint)


@pytest.mark.parametrize(
    "requirements", [{"torch": ">=2", "sentence-transformers": ">=5"}, {"torch": "nonsense"}, {"torch": [1]}, ["torch"]]
)
def test_requirements_that_are_met_or_cannot_be_read_are_let_pass(
    requirements: object, checkpoint: Path, caplog: pytest.LogCaptureFixture
) -> None:
    edit(checkpoint / "config_sentence_transformers.json", requirements=requirements)
    assert describe_checkpoint(checkpoint).embedding_dimension == 16
    is_readable = isinstance(requirements, dict) and requirements["torch"] == ">=2"
    assert ("requirement" in caplog.text) is not is_readable


@pytest.mark.parametrize("name", ["modules.json", "config.json", "sentence_bert_config.json", "1_Pooling/config.json"])
def test_broken_json_is_named(name: str, checkpoint: Path) -> None:
    (checkpoint / name).write_text("[")
    with pytest.raises(ValueError, match=rf"{re.escape(name)}' must be JSON"):
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


def answering(monkeypatch: pytest.MonkeyPatch, answer: Any) -> dict[str, Any]:
    """Let the hub answer a download, and return what it was asked."""
    asked: dict[str, Any] = {}

    def snapshot_download(repository: str, **options: Any) -> str:
        asked.update(options, repository=repository)
        if isinstance(answer, Exception):
            raise answer
        return str(answer)

    monkeypatch.setattr(huggingface_hub, "snapshot_download", snapshot_download)
    return asked


def test_the_hub_is_asked_as_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = answering(monkeypatch, tmp_path / "0123abc")
    found = resolve_checkpoint("me/mine", revision="v1", token="hf_secret", cache_folder="/cache")
    assert (found.folder, found.revision) == (tmp_path / "0123abc", "0123abc")
    assert (asked["repository"], asked["revision"], asked["token"]) == ("me/mine", "v1", "hf_secret")
    assert (asked["cache_dir"], asked["local_files_only"]) == ("/cache", False)
    assert "*.bin" in asked["ignore_patterns"]
    resolve_checkpoint("me/mine", allow_pickle=True)
    assert "*.bin" not in asked["ignore_patterns"]


def test_a_refusal_of_the_hub_is_told_without_the_request(monkeypatch: pytest.MonkeyPatch) -> None:
    response: Any = SimpleNamespace(status_code=401, headers={}, request=None)
    answering(monkeypatch, HfHubHTTPError("hf_secret is no token", response=response))
    with pytest.raises(FileNotFoundError, match=r"model 'me/mine' .* the hub answered 401; a private") as error:
        resolve_checkpoint("me/mine", token="hf_secret")
    assert "hf_secret" not in str(error.value)
    assert error.value.__context__ is None  # nor in what a traceback would add


@pytest.mark.parametrize(("status", "kind"), [(404, FileNotFoundError), (429, ConnectionError), (503, ConnectionError)])
def test_what_may_pass_is_told_apart(status: int, kind: type, monkeypatch: pytest.MonkeyPatch) -> None:
    response: Any = SimpleNamespace(status_code=status, headers={}, request=None)
    answering(monkeypatch, HfHubHTTPError("no", response=response))
    with pytest.raises(kind, match=rf"model 'me/mine' is not on this machine and the hub answered {status}; "):
        resolve_checkpoint("me/mine")


@pytest.mark.parametrize(("is_offline", "kind"), [(True, FileNotFoundError), (False, ConnectionError)])
def test_a_hub_out_of_reach_may_come_back(is_offline: bool, kind: type, monkeypatch: pytest.MonkeyPatch) -> None:
    answering(monkeypatch, LocalEntryNotFoundError("no"))
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", is_offline)
    with pytest.raises(kind, match="downloads are off" if is_offline else "the hub cannot be reached"):
        resolve_checkpoint("me/mine")


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


@pytest.mark.parametrize(
    ("files", "own"),
    [
        ({"tekken.json": "{}"}, {}),
        ({"byte_maps.json": "{}"}, {}),
        ({"tokenizer.4.0.0.json": "{}"}, {}),
        ({"spiece.model": ""}, {}),
        ({"tokenizer_config.json": '{"tokenizer_class": "ByT5Tokenizer"}'}, {}),
        ({}, {"model_type": "canine"}),
        ({}, {"tokenizer_class": "PerceiverTokenizer"}),
    ],
)
def test_a_tokenizer_may_have_other_files_or_none(files: dict[str, str], own: dict[str, str], checkpoint: Path) -> None:
    for path in [*checkpoint.glob("tokenizer*"), *checkpoint.glob("vocab*")]:
        path.unlink()
    with pytest.raises(FileNotFoundError, match="lacks the tokenizer"):
        describe_checkpoint(checkpoint)
    for name, content in files.items():
        (checkpoint / name).write_text(content)
    edit(checkpoint / "config.json", **own)
    assert describe_checkpoint(checkpoint).embedding_dimension == 16
