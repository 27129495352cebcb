"""The modules of a checkpoint folder."""

import os
from collections.abc import Sequence
from pathlib import Path

import torch

import sbert_ray.modules
from sbert_ray.models.checkpoint import ModuleEntry, describe_checkpoint, pooling_config, read_modules
from sbert_ray.modules import LoadOptions, Module, Pooling


def load_modules(folder: Path, options: LoadOptions) -> list[Module]:
    """Load the modules of a checkpoint.

    Raises:
        FileNotFoundError: Files are missing.
        ValueError: A config or weights do not fit.
    """
    describe_checkpoint(folder, allow_pickle=options.allow_pickle)
    return [_load(folder, entry, options) for entry in read_modules(folder)]


def match_dtype(modules: Sequence[Module]) -> None:
    """Cast every module to the dtype of the first one's weights."""
    first = next(modules[0].parameters(), None)
    if first is not None:
        for module in modules[1:]:
            module.to(first.dtype)


def _load(folder: Path, entry: ModuleEntry, options: LoadOptions) -> Module:
    if entry.kind == "Pooling" and not (folder / "modules.json").exists():
        return Pooling(**pooling_config(folder, entry))
    kind: type[Module] = getattr(sbert_ray.modules, entry.kind)
    return kind.load(folder / entry.path, options)


def default_device() -> str:
    """Return the accelerator of this process, or the CPU."""
    if torch.cuda.is_available():
        return f"cuda:{os.environ.get('LOCAL_RANK', '0')}"
    return "mps" if torch.backends.mps.is_available() else "cpu"
