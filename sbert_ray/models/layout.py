"""Which modules a checkpoint folder is made of, for each type of model, by its JSON files alone. Knows no torch."""

from dataclasses import replace
from pathlib import Path
from typing import Any

from sbert_ray.modules import INPUT_MODULES
from sbert_ray.modules.configs import (
    CONFIG_NAMES,
    embedding_size,
    hidden_size,
    is_classifier,
    modern_keys,
    modern_pooling_config,
    read_json,
)
from sbert_ray.modules.dimensions import module_dimension
from sbert_ray.modules.entries import ModuleEntry, module_entry, nested_routes, transformer_config
from sbert_ray.modules.modalities import IMAGE_TEXT_MODELS, IMAGE_TEXT_SETTINGS, OTHER_IMAGE_TEXT_MODELS

SETTINGS_NAME = "config_sentence_transformers.json"


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
    if (kind := config.get("model_type")) in OTHER_IMAGE_TEXT_MODELS:
        raise ValueError(f"image-text models must be of {list(IMAGE_TEXT_MODELS)}, got {kind!r} in {str(folder)!r}")
    architecture = str((config.get("architectures") or [""])[0])
    is_causal = architecture.endswith("ForCausalLM")
    if model_type == "CrossEncoder":
        if is_causal:
            return [
                ModuleEntry("Transformer", "", {"transformer_task": "text-generation"}, is_plain=True),
                ModuleEntry("LogitScore", "1_LogitScore", {}),  # whose tokens the tokenizer tells
            ]
        return [ModuleEntry("Transformer", "", {"transformer_task": "sequence-classification"}, is_plain=True)]
    if model_type == "SparseEncoder" and architecture.endswith("ForMaskedLM"):
        return [
            ModuleEntry("Transformer", "", {"transformer_task": "fill-mask"}, is_plain=True),
            ModuleEntry("SpladePooling", "1_SpladePooling", {"pooling_strategy": "max"}),
        ]
    if model_type == "SentenceTransformer" and config.get("model_type") in IMAGE_TEXT_MODELS:
        return [ModuleEntry("Transformer", "", IMAGE_TEXT_SETTINGS)]
    size = hidden_size(config)
    mode = "lasttoken" if is_causal and config.get("is_causal") is not False else "mean"
    if model_type == "SentenceTransformer":
        pooling = {"embedding_dimension": size, "pooling_mode": mode}
        return [ModuleEntry("Transformer", "", is_plain=True), ModuleEntry("Pooling", "1_Pooling", pooling)]
    if size is None:
        raise ValueError(f"config.json in {str(folder)!r} must tell the hidden size for a SparseAutoEncoder")
    autoencoder = {"input_dim": size, "hidden_dim": 4 * size, "k": 256, "k_aux": 512}
    return [
        ModuleEntry("Transformer", "", is_plain=True),
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
    return [replace(defaults[0], path=first.path), *defaults[1:]]


def untrained(folder: Path, entries: list[ModuleEntry]) -> tuple[str, ...]:
    """Return which of a checkpoint's modules start at random, as it is a model of another kind."""
    found = []
    for entry in entries:
        if entry.kind == "SparseAutoEncoder" and entry.config is not None:
            found.append(entry.kind)
        is_transformer = entry.kind == "Transformer"
        if is_transformer and transformer_config(folder, entry).get("transformer_task") == "sequence-classification":
            names = read_json(folder / entry.path / "config.json").get("architectures")
            if names and not is_classifier(names):
                found.append("classification head")
    return tuple(found)


def _listed(folder: Path) -> list[ModuleEntry]:
    items = read_json(folder / "modules.json")
    if not isinstance(items, list) or not all(isinstance(i, dict) and {"type", "path"} <= i.keys() for i in items):
        raise ValueError(f"modules.json in {str(folder)!r} must be a list of objects with 'type' and 'path'")
    entries = [module_entry(folder, "modules.json", item["type"], item["path"]) for item in items]
    for index, item in enumerate(items):
        if item.get("kwargs"):
            entries[index] = replace(entries[index], kwargs=tuple(map(str, item["kwargs"])))
    if not entries or not _takes_inputs(folder, entries[0]):
        kinds = [entry.kind for entry in entries]
        raise ValueError(f"the first module in {str(folder)!r} must be one of {sorted(INPUT_MODULES)}, got {kinds}")
    return entries


def _takes_inputs(folder: Path, entry: ModuleEntry) -> bool:
    if entry.kind == "Router":
        return all(_takes_inputs(folder, route[0]) for route in nested_routes(folder, entry))
    return entry.kind in INPUT_MODULES


def module_config(folder: Path, entry: ModuleEntry) -> dict[str, Any]:
    """Return a module's config, whether it has a file or is there by default."""
    path = folder / entry.path / CONFIG_NAMES.get(entry.kind, "config.json")
    if entry.config is not None and entry.kind != "Transformer":
        return dict(entry.config)
    config: dict[str, Any] = read_json(path) if path.exists() else {}
    return modern_pooling_config(config) if entry.kind == "Pooling" else modern_keys(entry.kind, config)


def entries_dimension(folder: Path, entries: list[ModuleEntry]) -> int | None:
    """Return the dimension of the embeddings that come out of modules, where their files tell it."""
    for entry in reversed(entries):
        if entry.kind == "Router":
            found = (entries_dimension(folder, route) for route in nested_routes(folder, entry))
            if (dimension := next(filter(None, found), None)) is not None:
                return dimension
            continue
        config = module_config(folder, entry)
        if entry.kind == "Transformer":
            return embedding_size(config, transformer_config(folder, entry).get("module_output_name"))
        if entry.kind == "SpladePooling":
            return _vocabulary(folder, entries[0])
        dimension = module_dimension(entry.kind, config, folder / entry.path)
        if dimension is not None or entry.kind == "Pooling":
            return dimension
    return None


def _vocabulary(folder: Path, first: ModuleEntry) -> int | None:
    path = folder / first.path / "config.json"
    size = read_json(path).get("vocab_size") if path.exists() else None
    return int(size) if size else None
