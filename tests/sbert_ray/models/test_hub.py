"""Whether a model is one of sentence-transformers, in a folder, in the hub's cache and on the hub."""

import shutil
from pathlib import Path
from typing import Any

import huggingface_hub
import pytest
from huggingface_hub.errors import LocalEntryNotFoundError

from sbert_ray.models.hub import is_sentence_transformer_model

peer = pytest.importorskip("sentence_transformers.util")


def test_a_folder_with_modules_is_one(minilm: Path, tmp_path: Path) -> None:
    shutil.copy(minilm / "config.json", tmp_path)
    for folder, expected in ((minilm, True), (tmp_path, False), (tmp_path / "none", False)):
        assert is_sentence_transformer_model(folder, local_files_only=True) is expected
        assert peer.is_sentence_transformer_model(str(folder), local_files_only=True) is expected


def cached(root: Path, repository: str, *names: str) -> None:
    """Write a repository with these files, all empty, as the hub's cache has it."""
    folder = root / f"models--{repository.replace('/', '--')}"
    commit = "0" * 40
    for name in names:
        path = folder / "snapshots" / commit / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    (folder / "refs").mkdir(parents=True)
    (folder / "refs" / "main").write_text(commit)


def test_earlier_downloads_are_looked_at(tmp_path: Path) -> None:
    cached(tmp_path, "me/ours", "modules.json")
    cached(tmp_path, "me/plain", "config.json")
    cached(tmp_path, "sentence-transformers/short", "modules.json")
    options: dict[str, Any] = {"cache_folder": str(tmp_path), "local_files_only": True}
    for name, expected in (("me/ours", True), ("me/plain", False), ("me/other", False), ("not//an id", False)):
        assert is_sentence_transformer_model(name, **options) is expected
        assert peer.is_sentence_transformer_model(name, **options) is expected
    assert is_sentence_transformer_model("short", **options)


def test_a_hub_that_cannot_be_reached_is_no_answer(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def fail(*_: Any, **__: Any) -> str:
        raise LocalEntryNotFoundError("no network")

    monkeypatch.setattr(huggingface_hub, "hf_hub_download", fail)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", False)
    with pytest.raises(ConnectionError, match="the hub cannot be reached to look for model 'me/ours'"):
        is_sentence_transformer_model("me/ours", cache_folder=str(tmp_path))
