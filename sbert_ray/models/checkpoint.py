"""What a checkpoint folder holds, by its JSON files alone, and what is wrong with it. Knows no torch.

A driver calls `describe_checkpoint` before it starts workers; the model's loader uses the same functions.
"""

import logging
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from sbert_ray.models.hub import Checkpoint, resolve_checkpoint
from sbert_ray.models.layout import (
    SETTINGS_NAME,
    ModuleEntry,
    entries_dimension,
    leaves_folder,
    module_config,
    posix_path,
    read_modules,
    stored_type,
)
from sbert_ray.models.requirements import check_requirements
from sbert_ray.modules.configs import SAFE_WEIGHTS, check_transformer_config, read_json, read_transformer_config

__all__ = ["Checkpoint", "CheckpointInfo", "describe_checkpoint", "read_settings", "resolve_checkpoint"]

logger = logging.getLogger(__name__)

WEIGHTED = ("Dense", "LayerNorm", "Transformer")
"""Modules that have weights wherever they have files."""
_PICKLES = ("pytorch_model.bin", "pytorch_model.bin.index.json")


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


def describe_checkpoint(
    folder: Path, *, allow_pickle: bool = False, model_type: str = "SentenceTransformer"
) -> CheckpointInfo:
    """Check that the files of a checkpoint are all there and supported, and say what they tell.

    Args:
        folder: The checkpoint.
        model_type: What it is loaded as.
        allow_pickle: Whether pickled weights will do.

    Raises:
        FileNotFoundError: The folder, a config or weights are missing, or there are pickled weights only.
        ImportError: The packages here are not those that it requires.
        ValueError: A config is not valid, or names what is not supported.
    """
    if not folder.is_dir():
        raise FileNotFoundError(f"there is no model folder {str(folder)!r}")
    settings = read_settings(folder, model_type)
    if "requirements" in settings:
        check_requirements(settings["requirements"], str(folder / SETTINGS_NAME))
    entries = read_modules(folder, model_type)
    if not (folder / "modules.json").exists() and model_type != "CrossEncoder":
        _check_no_chat_template(folder)
    for entry in entries:
        if entry.kind == "Transformer":
            _check_transformer_files(folder / entry.path)
        if entry.kind == "Transformer" or (entry.kind in WEIGHTED and entry.config is None):
            _check_weights(folder / entry.path, allow_pickle)
    pooling = next((entry for entry in entries if entry.kind == "Pooling"), None)
    return CheckpointInfo(
        modules=tuple(entry.kind for entry in entries),
        embedding_dimension=entries_dimension(folder, entries),
        pooling_modes=_pooling_modes(folder, pooling),
        is_normalized=entries[-1].kind == "Normalize",
        prompts=stored_prompts(settings, model_type),
        default_prompt_name=settings.get("default_prompt_name"),
        similarity_fn_name=settings.get("similarity_fn_name"),
        truncate_dim=settings.get("truncate_dim"),
        max_seq_length=_max_seq_length(folder / entries[0].path),
    )


def read_settings(folder: Path, model_type: str = "SentenceTransformer") -> dict[str, Any]:
    """Return a checkpoint's settings: prompts, similarity and the like; none if it is of another type of model."""
    path = folder / SETTINGS_NAME
    settings: dict[str, Any] = read_json(path) if path.exists() else {}
    if (folder / "modules.json").exists() and (stored := stored_type(folder)) != model_type:
        logger.warning("loading the %s in %s as a %s, without its settings", stored, folder, model_type)
        return {name: value for name, value in settings.items() if name == "requirements"}
    return settings


def stored_prompts(settings: Mapping[str, Any], model_type: str = "SentenceTransformer") -> dict[str, str]:
    """Return the prompts of a model's settings; embedding models have two, empty if not given."""
    given = settings.get("prompts") or {}
    defaults = {} if model_type == "CrossEncoder" else {"query": "", "document": ""}
    return defaults | {name: text or "" for name, text in given.items()}


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
            if outside := sorted(shard for shard in shards if leaves_folder(posix_path(shard))):
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


def _pooling_modes(folder: Path, entry: ModuleEntry | None) -> tuple[str, ...]:
    if entry is None:
        return ()
    mode = module_config(folder, entry)["pooling_mode"]
    return (mode,) if isinstance(mode, str) else tuple(mode)


def _max_seq_length(folder: Path) -> int | None:
    if (limit := read_transformer_config(folder).get("max_seq_length")) is not None:
        return int(limit)
    tokenizer = folder / "tokenizer_config.json"
    limits = [read_json(tokenizer).get("model_max_length") if tokenizer.exists() else None]
    config = folder / "config.json"
    limits.append(read_json(config).get("max_position_embeddings") if config.exists() else None)
    known = [int(limit) for limit in limits if limit is not None and 0 < limit < 10**9]
    return min(known, default=None)
