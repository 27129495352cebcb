"""What a checkpoint folder holds, by its JSON files alone, and what is wrong with it. Knows no torch.

A driver calls `describe_checkpoint` before it starts workers; the model's loader uses the same functions.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any

from sbert_ray.models.hub import Checkpoint, resolve_checkpoint
from sbert_ray.models.requirements import check_requirements
from sbert_ray.modules import MODULES
from sbert_ray.modules.configs import (
    SAFE_WEIGHTS,
    check_transformer_config,
    hidden_size,
    modern_pooling_config,
    read_json,
    read_transformer_config,
)

__all__ = ["Checkpoint", "CheckpointInfo", "ModuleEntry", "describe_checkpoint", "read_modules", "resolve_checkpoint"]

SETTINGS_NAME = "config_sentence_transformers.json"
_PACKAGES = ("sentence_transformers", "sbert_ray")
_PICKLES = ("pytorch_model.bin", "pytorch_model.bin.index.json")


@dataclass(frozen=True)
class ModuleEntry:
    """One module of a checkpoint: its class name and its folder, relative to the checkpoint's."""

    kind: str
    path: str


@dataclass(frozen=True)
class CheckpointInfo:
    """What the JSON files of a checkpoint tell of its embeddings; None where they do not."""

    modules: tuple[str, ...]
    embedding_dimension: int | None = None
    pooling_modes: tuple[str, ...] = ()
    is_normalized: bool = False
    prompts: Mapping[str, str] = field(default_factory=dict)
    default_prompt_name: str | None = None
    similarity_fn_name: str | None = None
    truncate_dim: int | None = None
    max_seq_length: int | None = None


def describe_checkpoint(folder: Path, *, allow_pickle: bool = False) -> CheckpointInfo:
    """Check that the files of a checkpoint are all there and supported, and say what they tell.

    Args:
        folder: The checkpoint.
        allow_pickle: Whether pickled weights will do.

    Raises:
        FileNotFoundError: The folder, a config or weights are missing, or there are pickled weights only.
        ImportError: The packages here are not those that it requires.
        ValueError: A config is not valid, or names what is not supported.
    """
    if not folder.is_dir():
        raise FileNotFoundError(f"there is no model folder {str(folder)!r}")
    settings = read_settings(folder)
    if "requirements" in settings:
        check_requirements(settings["requirements"], str(folder / SETTINGS_NAME))
    entries = read_modules(folder)
    if not (folder / "modules.json").exists():
        _check_no_chat_template(folder)
    for entry in entries:
        if entry.kind == "Transformer":
            _check_transformer_files(folder / entry.path)
        if entry.kind in ("Transformer", "Dense", "LayerNorm"):
            _check_weights(folder / entry.path, allow_pickle)
    pooling = next((entry for entry in entries if entry.kind == "Pooling"), None)
    return CheckpointInfo(
        modules=tuple(entry.kind for entry in entries),
        embedding_dimension=_embedding_dimension(folder, entries),
        pooling_modes=_pooling_modes(folder, pooling),
        is_normalized=entries[-1].kind == "Normalize",
        prompts=stored_prompts(settings),
        default_prompt_name=settings.get("default_prompt_name"),
        similarity_fn_name=settings.get("similarity_fn_name"),
        truncate_dim=settings.get("truncate_dim"),
        max_seq_length=_max_seq_length(folder / entries[0].path),
    )


def read_modules(folder: Path) -> list[ModuleEntry]:
    """Return the modules of a checkpoint; a plain transformers checkpoint is a Transformer and a Pooling.

    Raises:
        FileNotFoundError: It has neither ``modules.json`` nor ``config.json``.
        ValueError: ``modules.json`` is no list of modules, a module's type is unknown, its path leaves the folder, or
            the first one is no Transformer.
    """
    if (folder / "modules.json").exists():
        items = read_json(folder / "modules.json")
        if not isinstance(items, list) or not all(isinstance(i, dict) and {"type", "path"} <= i.keys() for i in items):
            raise ValueError(f"modules.json in {str(folder)!r} must be a list of objects with 'type' and 'path'")
        entries = [_entry(folder, item) for item in items]
    elif (folder / "config.json").exists():
        entries = [ModuleEntry("Transformer", ""), ModuleEntry("Pooling", "1_Pooling")]
    else:
        raise FileNotFoundError(f"{str(folder)!r} has neither modules.json nor config.json, so it is not a checkpoint")
    if not entries or entries[0].kind != "Transformer":
        raise ValueError(f"the first module in {str(folder)!r} must be a Transformer, got {[e.kind for e in entries]}")
    return entries


def _entry(folder: Path, item: Mapping[str, Any]) -> ModuleEntry:
    package, _, kind = str(item["type"]).rpartition(".")
    if package.partition(".")[0] not in _PACKAGES:
        raise ValueError(
            f"modules.json in {str(folder)!r} names the custom module {item['type']!r}, which runs code from the "
            f"checkpoint; that is not supported, even with trust_remote_code. Known modules are {sorted(MODULES)}"
        )
    if kind not in MODULES:
        raise ValueError(
            f"unknown module {item['type']!r} in modules.json of {str(folder)!r}; known modules are {sorted(MODULES)}"
        )
    path = _posix_path(item["path"])
    if _leaves_folder(path):
        raise ValueError(f"a module's path must stay within {str(folder)!r}, got {item['path']!r}")
    return ModuleEntry(kind, str(path) if path.parts else "")


def _posix_path(name: Any) -> PurePosixPath:
    return PurePosixPath(str(name).replace("\\", "/"))


def _leaves_folder(path: PurePosixPath) -> bool:
    return path.is_absolute() or ".." in path.parts


def default_pooling(folder: Path) -> dict[str, Any]:
    """Return the arguments of the Pooling that a plain transformers checkpoint gets.

    It is the mean, or the last token where the checkpoint is a causal language model.
    """
    config = read_json(folder / "config.json")
    is_causal = (config.get("architectures") or [""])[0].endswith("ForCausalLM")
    mode = "lasttoken" if is_causal and config.get("is_causal") is not False else "mean"
    return {"embedding_dimension": hidden_size(config), "pooling_mode": mode}


def read_settings(folder: Path) -> dict[str, Any]:
    """Return the model's own settings: prompts, similarity and the like.

    Raises:
        ValueError: The checkpoint is of another type of model.
    """
    path = folder / SETTINGS_NAME
    settings: dict[str, Any] = read_json(path) if path.exists() else {}
    if (kind := settings.get("model_type", "SentenceTransformer")) != "SentenceTransformer":
        raise ValueError(f"model_type in {str(path)!r} must be 'SentenceTransformer', got {kind!r}")
    return settings


def stored_prompts(settings: Mapping[str, Any]) -> dict[str, str]:
    """Return the prompts of a model's settings, with those for queries and documents, which are empty if not given."""
    given = settings.get("prompts") or {}
    return {"query": "", "document": ""} | {name: text or "" for name, text in given.items()}


def _check_transformer_files(folder: Path) -> None:
    if (folder / "adapter_config.json").exists():
        raise ValueError(
            f"{str(folder)!r} is a PEFT adapter, which is not supported; merge it into its base model first"
        )
    if not (folder / "config.json").exists():
        raise FileNotFoundError(f"{str(folder)!r} lacks config.json")
    check_transformer_config(read_transformer_config(folder), folder)


def _check_no_chat_template(folder: Path) -> None:
    tokenizer = folder / "tokenizer_config.json"
    is_there = any((folder / name).exists() for name in ("chat_template.jinja", "chat_template.json"))
    if is_there or (tokenizer.exists() and read_json(tokenizer).get("chat_template")):
        raise ValueError(
            f"{str(folder)!r} is a plain checkpoint with a chat template, into which sentence-transformers puts each "
            "text; that is not supported. Remove the template to embed texts as they are"
        )


def _check_weights(folder: Path, allow_pickle: bool) -> None:
    accepted = SAFE_WEIGHTS + (_PICKLES if allow_pickle else ())
    if found := next((folder / name for name in accepted if (folder / name).exists()), None):
        if found.name.endswith(".index.json"):
            shards = set(read_json(found)["weight_map"].values())
            if outside := sorted(shard for shard in shards if _leaves_folder(_posix_path(shard))):
                raise ValueError(f"{str(found)!r} must name weights within its folder, got {outside}")
            if missing := sorted(shard for shard in shards if not (folder / shard).exists()):
                raise FileNotFoundError(f"{str(found)!r} names weights that are missing: {missing}")
        return
    if pickle := next((folder / name for name in _PICKLES if (folder / name).exists()), None):
        raise FileNotFoundError(
            f"{str(folder)!r} lacks model.safetensors and has {pickle.name}, a pickle, which can run code when loaded. "
            "If you trust it, convert it once: "
            'SentenceTransformer(FOLDER, model_kwargs={"use_safetensors": False}).save_pretrained(NEW_FOLDER)'
        )
    raise FileNotFoundError(
        f"{str(folder)!r} has no weights: it lacks model.safetensors. Pickles are fetched from the hub only with "
        'model_kwargs={"use_safetensors": False}'
    )


def _module_config(folder: Path, entry: ModuleEntry) -> dict[str, Any]:
    path = folder / entry.path / "config.json"
    return read_json(path) if path.exists() else {}


def _pooling_modes(folder: Path, entry: ModuleEntry | None) -> tuple[str, ...]:
    if entry is None:
        return ()
    mode = pooling_config(folder, entry)["pooling_mode"]
    return (mode,) if isinstance(mode, str) else tuple(mode)


def pooling_config(folder: Path, entry: ModuleEntry) -> dict[str, Any]:
    """Return the arguments of a checkpoint's Pooling, whether it has a config or is the default one."""
    is_plain = not (folder / "modules.json").exists()
    return default_pooling(folder) if is_plain else modern_pooling_config(_module_config(folder, entry))


def _embedding_dimension(folder: Path, entries: list[ModuleEntry]) -> int | None:
    for entry in reversed(entries):
        if entry.kind == "Transformer":
            return hidden_size(_module_config(folder, entry))
        if entry.kind == "Pooling":
            dimension = pooling_config(folder, entry).get("embedding_dimension")
            return dimension and dimension * len(_pooling_modes(folder, entry))
        key = {"Dense": "out_features", "LayerNorm": "dimension"}.get(entry.kind)
        if key and (dimension := _module_config(folder, entry).get(key)):
            return int(dimension)
    return None


def _max_seq_length(folder: Path) -> int | None:
    if (limit := read_transformer_config(folder).get("max_seq_length")) is not None:
        return int(limit)
    tokenizer = folder / "tokenizer_config.json"
    limits = [read_json(tokenizer).get("model_max_length") if tokenizer.exists() else None]
    limits.append(read_json(folder / "config.json").get("max_position_embeddings"))
    known = [int(limit) for limit in limits if limit is not None and 0 < limit < 10**9]
    return min(known, default=None)
