"""Saving leaves nothing half-written, and pushing to the hub calls it as told."""

import os
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import huggingface_hub
import pytest

from sbert_ray import SentenceTransformer
from sbert_ray.modules import Normalize


@pytest.fixture
def model(tiny_checkpoint: Path) -> SentenceTransformer:
    return SentenceTransformer(str(tiny_checkpoint), device="cpu")


def test_writes_a_card(model: SentenceTransformer, tmp_path: Path) -> None:
    model.save_pretrained(tmp_path / "mine", model_name="me/mine")
    card = (tmp_path / "mine" / "README.md").read_text()
    assert card.startswith("---\ntags:\n- sentence-transformers\n")
    assert 'SentenceTransformer("me/mine")' in card
    assert "16 dimensions" in card
    assert "datasets" not in card
    model.save_pretrained(tmp_path / "trained", train_datasets=["me/pairs"])
    assert '\ndatasets:\n- "me/pairs"\n---\n' in (tmp_path / "trained" / "README.md").read_text()
    model.save(tmp_path / "bare", create_model_card=False)
    assert not (tmp_path / "bare" / "README.md").exists()


def test_a_failure_leaves_what_was_there(
    model: SentenceTransformer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "saved"
    model.save_pretrained(folder)
    before = {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}

    def fail(self: Normalize) -> dict[str, Any]:
        raise OSError("disk full")

    monkeypatch.setattr(Normalize, "config", fail)
    with pytest.raises(OSError, match="disk full"):
        model.save_pretrained(folder)
    assert {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()} == before
    assert list(tmp_path.iterdir()) == [folder]
    assert not [path for path in folder.iterdir() if path.name.startswith(".")]


def test_nothing_is_written_beside_the_folder(
    model: SentenceTransformer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The folder may be all that can be written to, as a mounted volume is."""
    folder = tmp_path / "mount"
    folder.mkdir()
    written = folders_made(monkeypatch)
    model.save_pretrained(folder)
    assert written
    assert all(folder in path.parents for path in written)


def folders_made(monkeypatch: pytest.MonkeyPatch) -> list[Path]:
    """Note every folder that is made."""
    original, made = os.mkdir, list[Path]()

    def mkdir(path: Any, *args: Any, **options: Any) -> None:
        original(path, *args, **options)
        made.append(Path(path))

    monkeypatch.setattr(os, "mkdir", mkdir)
    return made


def test_pickles_are_not_written(model: SentenceTransformer, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="safe_serialization must be True"):
        model.save_pretrained(tmp_path, safe_serialization=False)


class Hub:
    """The calls of `huggingface_hub.HfApi` that pushing makes."""

    calls: dict[str, Any]

    def __init__(self, token: str | None) -> None:
        Hub.calls = {"token": token}

    def create_repo(self, repo_id: str, **options: Any) -> SimpleNamespace:
        self.calls["create"] = options
        return SimpleNamespace(repo_id=f"me/{repo_id}")

    def create_branch(self, repo_id: str, **options: Any) -> None:
        self.calls["branch"] = options

    def file_exists(self, repo_id: str, filename: str, revision: str | None) -> bool:
        self.calls["card of"] = revision
        return True

    def upload_folder(self, folder_path: Path, **options: Any) -> SimpleNamespace:
        self.calls["upload"] = options
        self.calls["files"] = {path.name for path in folder_path.iterdir()}
        return SimpleNamespace(commit_url="https://hub/commit", pr_url=None)


def test_pushes_to_the_hub(model: SentenceTransformer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(huggingface_hub, "HfApi", Hub)
    assert model.push_to_hub("mine", token="secret", private=True, create_pr=True) == "https://hub/commit"
    assert Hub.calls["create"] == {"private": True, "exist_ok": True}  # a pull request needs a repository
    assert {"modules.json", "model.safetensors", "1_Pooling"} <= Hub.calls["files"]
    upload = Hub.calls["upload"]
    assert (upload["repo_id"], upload["create_pr"]) == ("me/mine", True)
    assert upload["ignore_patterns"] == ["README.md"]  # the card that is there stays
    model.push_to_hub("mine", replace_model_card=True)
    assert Hub.calls["upload"]["ignore_patterns"] is None
    assert "branch" not in Hub.calls


def test_pushes_to_a_branch_that_it_makes(model: SentenceTransformer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(huggingface_hub, "HfApi", Hub)
    model.push_to_hub("mine", revision="next", exist_ok=True)
    assert Hub.calls["branch"] == {"branch": "next", "exist_ok": True}
    assert (Hub.calls["card of"], Hub.calls["upload"]["revision"]) == ("next", "next")


def test_pushes_a_folder_with_the_card_in_it(
    model: SentenceTransformer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(huggingface_hub, "HfApi", Hub)
    (tmp_path / "README.md").write_text("my card")
    model.push_to_hub("mine", local_model_path=str(tmp_path), exist_ok=True)
    assert Hub.calls["files"] == {"README.md"}
    assert Hub.calls["upload"]["ignore_patterns"] is None
