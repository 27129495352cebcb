"""Models written as checkpoints that sentence-transformers 6.2 loads too, to a folder or to the hub."""

import json
import shutil
import tempfile
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from sbert_ray.models.layout import SETTINGS_NAME
from sbert_ray.modules import InputModule, Module


def save_checkpoint(
    folder: Path,
    modules: Iterable[Module],
    settings: dict[str, Any],
    card: str | None,
) -> None:
    """Write a checkpoint; ``modules.json``, without which it is none, comes last.

    The files are written to a hidden folder in ``folder`` and then moved, so that a failure half-way leaves what was
    there.
    """
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=".saving-", dir=folder) as name:
        written = Path(name)
        entries = []
        for index, module in enumerate(modules):
            kind = type(module).__name__
            if not isinstance(module, Module):
                raise ValueError(f"module {index}, of type {kind}, is none of this library's, so it cannot be saved")
            is_at_root = index == 0 and isinstance(module, InputModule) and module.save_in_root
            path = "" if is_at_root else f"{index}_{kind}"
            module.save(written / path)
            entry = {"idx": index, "name": str(index), "path": path, "type": module.public_path}
            entries.append(entry | ({"kwargs": list(module.given_kwargs)} if module.given_kwargs else {}))
        _write_json(written / SETTINGS_NAME, settings)
        if card is not None:
            (written / "README.md").write_text(card, encoding="utf-8")
        _write_json(written / "modules.json", entries)
        _move_into(written, folder)


def _write_json(path: Path, content: Any) -> None:
    path.write_text(json.dumps(content, indent=2), encoding="utf-8")


def _move_into(source: Path, target: Path) -> None:
    target.mkdir(exist_ok=True)
    for path in sorted(source.iterdir(), key=lambda path: path.name == "modules.json"):
        if path.is_dir():
            _move_into(path, target / path.name)
        else:
            shutil.move(path, target / path.name)


def upload_folder(
    folder: Path,
    repo_id: str,
    token: str | None,
    private: bool | None,
    exist_ok: bool,
    replace_card: bool,
    **commit: Any,
) -> str:
    """Upload a folder to a model repository on the hub, creating it if need be, and return the commit's URL."""
    from huggingface_hub import HfApi

    api = HfApi(token=token)
    exist_ok = exist_ok or bool(commit["create_pr"])
    repo_id = api.create_repo(repo_id, private=private, exist_ok=exist_ok).repo_id
    revision = commit["revision"]
    if revision is not None:
        api.create_branch(repo_id, branch=revision, exist_ok=True)
    keeps_card = not replace_card and api.file_exists(repo_id, "README.md", revision=revision)
    ignored = ["README.md"] if keeps_card else None
    info = api.upload_folder(repo_id=repo_id, folder_path=folder, ignore_patterns=ignored, **commit)
    return str(info.pr_url or info.commit_url)
