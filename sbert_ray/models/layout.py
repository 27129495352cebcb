"""Which modules a checkpoint folder is made of, for each type of model, by its JSON files alone. Knows no torch."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

from sbert_ray.modules import INPUT_MODULES, MODULES
from sbert_ray.modules.configs import hidden_size, modern_pooling_config, read_json

SETTINGS_NAME = "config_sentence_transformers.json"
_PACKAGES = ("sentence_transformers", "sbert_ray")
_RENAMED = {"Asym": "Router", "CLIPModel": "Transformer", "MLMTransformer": "Transformer"}
"""Modules by the names of earlier versions."""


@dataclass(frozen=True)
class ModuleEntry:
    """One module of a checkpoint: its class name and its folder, relative to the checkpoint's."""

    kind: str
    path: str
    config: Mapping[str, Any] | None = None
    """The constructor's arguments of a module without files; of a Transformer, what its own config does not say."""
    kwargs: tuple[str, ...] = ()
    """Further arguments that the module's ``forward`` takes from the model's."""


def read_modules(folder: Path, model_type: str = "SentenceTransformer") -> list[ModuleEntry]:
    """Return the modules of a checkpoint that is loaded as a type of model, whatever it was saved as.

    Raises:
        FileNotFoundError: It has neither ``modules.json`` nor ``config.json``.
        ValueError: ``modules.json`` is no list of modules, a module's type is unknown, its path leaves the folder, or
            the first one takes no inputs.
    """
    if (folder / "modules.json").exists():
        entries = _listed(folder)
        stored = stored_type(folder)
        return entries if stored == model_type else _converted(folder, entries, stored, model_type)
    if (folder / "config.json").exists():
        return default_modules(folder, model_type)
    raise FileNotFoundError(f"{str(folder)!r} has neither modules.json nor config.json, so it is not a checkpoint")


def stored_type(folder: Path) -> str:
    """Return the type of model that a checkpoint with ``modules.json`` was saved as."""
    path = folder / SETTINGS_NAME
    return str(read_json(path).get("model_type", "SentenceTransformer")) if path.exists() else "SentenceTransformer"


def default_modules(folder: Path, model_type: str) -> list[ModuleEntry]:
    """Return the modules that a type of model makes of a plain transformers checkpoint."""
    config = read_json(folder / "config.json")
    architecture = str((config.get("architectures") or [""])[0])
    is_causal = architecture.endswith("ForCausalLM")
    if model_type == "CrossEncoder":
        if is_causal:
            return [
                ModuleEntry("Transformer", "", {"transformer_task": "text-generation"}),
                ModuleEntry("LogitScore", "1_LogitScore", {}),  # whose tokens the tokenizer tells
            ]
        return [ModuleEntry("Transformer", "", {"transformer_task": "sequence-classification"})]
    if model_type == "SparseEncoder" and architecture.endswith("ForMaskedLM"):
        return [
            ModuleEntry("Transformer", "", {"transformer_task": "fill-mask"}),
            ModuleEntry("SpladePooling", "1_SpladePooling", {"pooling_strategy": "max"}),
        ]
    size = hidden_size(config)
    mode = "lasttoken" if is_causal and config.get("is_causal") is not False else "mean"
    if model_type == "SentenceTransformer":
        pooling = {"embedding_dimension": size, "pooling_mode": mode}
        return [ModuleEntry("Transformer", ""), ModuleEntry("Pooling", "1_Pooling", pooling)]
    if size is None:
        raise ValueError(f"config.json in {str(folder)!r} must tell the hidden size for a SparseAutoEncoder")
    autoencoder = {"input_dim": size, "hidden_dim": 4 * size, "k": 256, "k_aux": 512}
    return [
        ModuleEntry("Transformer", ""),
        ModuleEntry("Pooling", "1_Pooling", {"embedding_dimension": size, "pooling_mode": "mean"}),
        ModuleEntry("SparseAutoEncoder", "2_SparseAutoEncoder", autoencoder),
    ]


def _converted(folder: Path, entries: list[ModuleEntry], stored: str, model_type: str) -> list[ModuleEntry]:
    if (stored, model_type) == ("SentenceTransformer", "SparseEncoder"):
        size = entries_dimension(folder, entries)
        if size is None:
            raise ValueError(f"{str(folder)!r} must tell its embeddings' dimension to get a SparseAutoEncoder on top")
        config = {"input_dim": size, "hidden_dim": 4 * size, "k": size // 4, "k_aux": size // 2}
        return [*entries, ModuleEntry("SparseAutoEncoder", f"{len(entries)}_SparseAutoEncoder", config)]
    first = entries[0]
    if first.kind != "Transformer" or not (folder / first.path / "config.json").exists():
        raise ValueError(f"a {stored} without a transformer cannot be loaded as {model_type}: {str(folder)!r}")
    defaults = default_modules(folder / first.path, model_type)
    return [ModuleEntry("Transformer", first.path, defaults[0].config), *defaults[1:]]


def _listed(folder: Path) -> list[ModuleEntry]:
    items = read_json(folder / "modules.json")
    if not isinstance(items, list) or not all(isinstance(i, dict) and {"type", "path"} <= i.keys() for i in items):
        raise ValueError(f"modules.json in {str(folder)!r} must be a list of objects with 'type' and 'path'")
    entries = [module_entry(folder, "modules.json", item["type"], item["path"]) for item in items]
    for index, item in enumerate(items):
        if item.get("kwargs"):
            entries[index] = ModuleEntry(
                entries[index].kind, entries[index].path, entries[index].config, tuple(map(str, item["kwargs"]))
            )
    if not entries or entries[0].kind not in INPUT_MODULES:
        kinds = [entry.kind for entry in entries]
        raise ValueError(f"the first module in {str(folder)!r} must be one of {sorted(INPUT_MODULES)}, got {kinds}")
    return entries


def module_entry(folder: Path, source: str, dotted: Any, path: Any) -> ModuleEntry:
    """Return a module by its type and path, as ``source`` in ``folder`` gives them.

    Raises:
        ValueError: The type is unknown, or the path leaves the folder.
    """
    package, _, kind = str(dotted).rpartition(".")
    if package.partition(".")[0] not in _PACKAGES:
        raise ValueError(
            f"{source} in {str(folder)!r} names the custom module {dotted!r}, which runs code from the "
            f"checkpoint; that is not supported, even with trust_remote_code. Known modules are {sorted(MODULES)}"
        )
    config = {"transformer_task": "fill-mask"} if kind == "MLMTransformer" else None
    kind = _RENAMED.get(kind, kind)
    if kind not in MODULES:
        raise ValueError(
            f"unknown module {dotted!r} in {source} of {str(folder)!r}; known modules are {sorted(MODULES)}"
        )
    inside = posix_path(path)
    if leaves_folder(inside):
        raise ValueError(f"a module's path must stay within {str(folder)!r}, got {path!r}")
    return ModuleEntry(kind, str(inside) if inside.parts else "", config)


def posix_path(name: Any) -> PurePosixPath:
    """Return a path that a checkpoint gives, whatever system wrote it."""
    return PurePosixPath(str(name).replace("\\", "/"))


def leaves_folder(path: PurePosixPath) -> bool:
    """Return whether a relative path may point out of the folder that it is in."""
    return path.is_absolute() or ".." in path.parts


def module_config(folder: Path, entry: ModuleEntry) -> dict[str, Any]:
    """Return a module's config, whether it has a file or is there by default."""
    path = folder / entry.path / "config.json"
    if entry.config is not None and entry.kind != "Transformer":
        return dict(entry.config)
    config: dict[str, Any] = read_json(path) if path.exists() else {}
    return modern_pooling_config(config) if entry.kind == "Pooling" else config


def entries_dimension(folder: Path, entries: list[ModuleEntry]) -> int | None:
    """Return the dimension of the embeddings that come out of modules, where their files tell it."""
    for entry in reversed(entries):
        config = module_config(folder, entry)
        if entry.kind == "Transformer":
            return hidden_size(config)
        if entry.kind == "SpladePooling":
            return _vocabulary(folder, entries[0])
        if entry.kind == "Pooling":
            dimension = config.get("embedding_dimension")
            modes = config["pooling_mode"]
            return dimension and dimension * (1 if isinstance(modes, str) else len(modes))
        key = _DIMENSION_KEYS.get(entry.kind)
        if key and (dimension := config.get(key)):
            return int(dimension)
    return None


_DIMENSION_KEYS = {"Dense": "out_features", "LayerNorm": "dimension", "SparseAutoEncoder": "hidden_dim"}


def _vocabulary(folder: Path, first: ModuleEntry) -> int | None:
    path = folder / first.path / "config.json"
    size = read_json(path).get("vocab_size") if path.exists() else None
    return int(size) if size else None
