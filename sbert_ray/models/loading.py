"""The modules of a model: those that the user gives, or those of a checkpoint."""

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch

from sbert_ray.models.checkpoint import describe_checkpoint, resolve_checkpoint
from sbert_ray.models.layout import read_modules
from sbert_ray.modules import LoadOptions, Module, Router
from sbert_ray.modules.entries import load_module


@dataclass(frozen=True)
class Source:
    """Where a model comes from, by the constructor's arguments of the same names."""

    model_name_or_path: str | os.PathLike[str] | None = None
    modules: Sequence[Module] | Mapping[str, Module] | None = None
    device: str | None = None
    cache_folder: str | None = None
    trust_remote_code: bool = False
    revision: str | None = None
    local_files_only: bool = False
    token: bool | str | None = None
    model_kwargs: Mapping[str, Any] | None = None
    processor_kwargs: Mapping[str, Any] | None = None
    config_kwargs: Mapping[str, Any] | None = None
    backend: str = "torch"


@dataclass(frozen=True)
class Parts:
    """What a model is made of."""

    modules: list[Module]
    device: str
    stored: dict[str, Any] = field(default_factory=dict)
    """The checkpoint's settings."""
    kwargs: tuple[tuple[str, ...], ...] = ()
    """For each module, further arguments of ``forward`` that the checkpoint names."""


def load_parts(source: Source, model_type: str) -> Parts:
    """Return the modules of a model, loading its checkpoint if there is one.

    Args:
        source: Where it comes from.
        model_type: What the model is to be.

    Raises:
        FileNotFoundError: The checkpoint or files of it are missing.
        ValueError: A config or weights do not fit, or an argument is not supported.
    """
    if source.backend != "torch":
        raise ValueError(f"backend must be 'torch', got {source.backend!r}")
    if (source.model_name_or_path is None) == (source.modules is None):
        raise ValueError("give either model_name_or_path or modules")
    device = source.device or default_device()
    if source.modules is not None:
        modules = source.modules
        return Parts(list(modules.values() if isinstance(modules, Mapping) else modules), device)
    assert source.model_name_or_path is not None
    options = LoadOptions(
        device,
        source.trust_remote_code,
        source.model_kwargs or {},
        source.processor_kwargs or {},
        source.config_kwargs or {},
    )
    checkpoint = resolve_checkpoint(
        source.model_name_or_path,
        revision=source.revision,
        token=source.token,
        cache_folder=source.cache_folder,
        local_files_only=source.local_files_only,
        allow_pickle=options.allow_pickle,
        model_type=model_type,
    )
    folder = checkpoint.folder
    info = describe_checkpoint(folder, allow_pickle=options.allow_pickle, model_type=model_type)
    entries = read_modules(folder, model_type)
    loaded: list[Module] = []
    for entry in entries:
        loaded.append(load_module(folder, entry, options, loaded))
    kwargs = tuple(entry.kwargs for entry in entries)
    return Parts(loaded, device, dict(info.settings), kwargs)


def match_dtype(modules: Sequence[Module]) -> None:
    """Cast every module to the dtype of the first one's weights, in each route of a Router and then altogether."""
    for router in modules:
        if isinstance(router, Router):
            for route in router.routes.values():
                match_dtype(route)
    first = next(modules[0].parameters(), None)
    if first is not None:
        for module in modules[1:]:
            module.to(first.dtype)


def default_device() -> str:
    """Return the accelerator of this process, or the CPU."""
    if torch.cuda.is_available():
        return f"cuda:{os.environ.get('LOCAL_RANK', '0')}"
    return "mps" if torch.backends.mps.is_available() else "cpu"
