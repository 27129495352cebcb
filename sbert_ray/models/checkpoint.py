"""What a checkpoint folder holds, by its JSON files alone, and what is wrong with it. Knows no torch.

A driver calls `describe_checkpoint` before it starts workers; the model's loader uses the same functions.
"""

import logging
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from sbert_ray.models.hub import Checkpoint, resolve_checkpoint
from sbert_ray.models.labels import count_labels
from sbert_ray.models.layout import (
    SETTINGS_NAME,
    entries_dimension,
    module_config,
    read_modules,
    stored_type,
    untrained,
)
from sbert_ray.models.requirements import check_requirements
from sbert_ray.modules.configs import (
    CONFIG_NAMES,
    SAFE_WEIGHTS,
    check_transformer_config,
    read_json,
)
from sbert_ray.modules.entries import (
    ModuleEntry,
    leaves_folder,
    nested_entries,
    nested_routes,
    posix_path,
    transformer_config,
)
from sbert_ray.modules.modalities import IMAGE_TEXT_MODELS, IMAGE_TEXT_SETTINGS, is_image_text
from sbert_ray.modules.word_tokenizers import tokenizer_class

__all__ = ["Checkpoint", "CheckpointInfo", "describe_checkpoint", "read_settings", "resolve_checkpoint"]

logger = logging.getLogger(__name__)

WEIGHTED = (
    "CNN",
    "Dense",
    "LSTM",
    "LayerNorm",
    "SparseAutoEncoder",
    "SparseStaticEmbedding",
    "StaticEmbedding",
    "Transformer",
    "WeightedLayerPooling",
    "WordEmbeddings",
    "WordWeights",
)
"""Modules that have weights wherever they have files."""
UNLIMITED = ("BoW", "StaticEmbedding")
"""Modules that read texts of any length."""
_NEEDED = {"BoW": "config.json", "StaticEmbedding": "tokenizer.json", "WordEmbeddings": CONFIG_NAMES["WordEmbeddings"]}
"""Files without which a module cannot read texts."""
_KEPT = {
    ("SentenceTransformer", "SparseEncoder"): {
        "requirements",
        "prompts",
        "default_prompt_name",
        "similarity_fn_name",
    }
}
"""Settings that outlast a conversion, by what the checkpoint is and is loaded as: this one keeps its modules, too."""
_PICKLES = ("pytorch_model.bin", "pytorch_model.bin.index.json")
_TOKENIZERS = (
    *("tokenizer.json", "vocab.txt", "vocab.json", "vocab.bpe", "merges.txt", "prophetnet.tokenizer", "tekken.json"),
    "byte_maps.json",
)
_TOKENIZER_SUFFIXES = (".model", ".spm", ".tiktoken", ".codes")
_OF_BYTES = ("byt5", "canine", "perceiver")
"""Tokenizers that have no vocabulary."""


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
    modalities: tuple[str, ...] = ("text",)
    """Kinds of input that it takes."""
    num_labels: int | None = None
    """Scores of a pair, of a cross-encoder."""
    settings: Mapping[str, Any] = field(default_factory=dict)
    """The model's own settings, as `read_settings` gives them."""
    untrained: tuple[str, ...] = ()
    """What of the model starts at random, since the checkpoint is another kind of model's."""


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
    inner = [found for entry in entries for found in nested_entries(folder, entry)]
    for entry in inner:
        if entry.kind == "Transformer":
            _check_transformer_files(folder, entry)
        _check_word_files(folder / entry.path, entry.kind)
        if _has_weights(folder, entry):
            _check_weights(folder / entry.path, allow_pickle)
    pooling = next((entry for entry in inner if entry.kind == "Pooling"), None)
    return CheckpointInfo(
        modules=tuple(entry.kind for entry in entries),
        embedding_dimension=entries_dimension(folder, entries),
        pooling_modes=_pooling_modes(folder, pooling),
        is_normalized=_is_normalized(folder, entries),
        prompts=stored_prompts(settings, model_type),
        default_prompt_name=settings.get("default_prompt_name"),
        similarity_fn_name=settings.get("similarity_fn_name"),
        truncate_dim=settings.get("truncate_dim"),
        max_seq_length=_max_seq_length(folder, entries[0]),
        modalities=_modalities(folder, entries[0]),
        num_labels=count_labels(folder, entries) if model_type == "CrossEncoder" else None,
        settings=settings,
        untrained=untrained(folder, entries),
    )


def read_settings(folder: Path, model_type: str = "SentenceTransformer") -> dict[str, Any]:
    """Return a checkpoint's settings: prompts, similarity and the like; none if it is of another type of model."""
    path = folder / SETTINGS_NAME
    settings: dict[str, Any] = read_json(path) if path.exists() else {}
    if not isinstance(settings, dict):
        raise ValueError(f"{str(path)!r} must be an object, got {type(settings).__name__}")
    if (folder / "modules.json").exists() and (stored := stored_type(folder)) != model_type:
        kept = _KEPT.get((stored, model_type), {"requirements"})
        names = sorted(kept)
        logger.warning("loading the %s in %s as a %s; of its settings, %s hold", stored, folder, model_type, names)
        return {name: value for name, value in settings.items() if name in kept}
    return settings


def stored_prompts(settings: Mapping[str, Any], model_type: str = "SentenceTransformer") -> dict[str, str]:
    """Return the prompts of a model's settings; embedding models have two, empty if not given."""
    given = settings.get("prompts") or {}
    defaults = {} if model_type == "CrossEncoder" else {"query": "", "document": ""}
    return defaults | {name: text or "" for name, text in given.items()}


def _check_transformer_files(checkpoint: Path, entry: ModuleEntry) -> None:
    folder = checkpoint / entry.path
    if (folder / "adapter_config.json").exists():
        raise ValueError(
            f"{str(folder)!r} is a PEFT adapter, which is not supported; merge it into its base model first"
        )
    if not (folder / "config.json").exists():
        raise FileNotFoundError(f"{str(folder)!r} lacks config.json")
    config = transformer_config(checkpoint, entry)
    check_transformer_config(config, folder)
    _check_tokenizer(folder)
    names = ("preprocessor_config.json", "processor_config.json")
    if is_image_text(config) and not any((folder / name).exists() for name in names):
        raise FileNotFoundError(f"{str(folder)!r} lacks preprocessor_config.json, which says how images are read")


def _check_tokenizer(folder: Path) -> None:
    # Transformers makes an empty tokenizer where there is none, to which every word is unknown.
    if any(path.name in _TOKENIZERS or path.suffix in _TOKENIZER_SUFFIXES for path in folder.iterdir()):
        return
    if any(folder.glob("tokenizer.*.json")):  # one for some versions of transformers
        return
    config, own = folder / "tokenizer_config.json", read_json(folder / "config.json")
    kind = read_json(config).get("tokenizer_class") if config.exists() else None
    kind = str(kind or own.get("tokenizer_class") or own.get("model_type")).lower()
    if kind.removesuffix("fast").removesuffix("tokenizer") not in _OF_BYTES:
        raise FileNotFoundError(
            f"{str(folder)!r} lacks the tokenizer: tokenizer.json, or the vocabulary of an older one"
        )


def _has_weights(folder: Path, entry: ModuleEntry) -> bool:
    if entry.kind == "SparseStaticEmbedding" and module_config(folder, entry).get("path"):
        return False  # they are in a JSON file
    return entry.kind == "Transformer" or (entry.kind in WEIGHTED and entry.config is None)


def _check_word_files(folder: Path, kind: str) -> None:
    if (name := _NEEDED.get(kind)) and not (folder / name).exists():
        raise FileNotFoundError(f"{str(folder)!r} lacks {name}")
    if kind == "WordEmbeddings":
        tokenizer_class(read_json(folder / CONFIG_NAMES[kind]).get("tokenizer_class"), folder)


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


def _is_normalized(folder: Path, entries: list[ModuleEntry]) -> bool:
    last = entries[-1]
    if last.kind == "Router":
        return all(_is_normalized(folder, route) for route in nested_routes(folder, last))
    return last.kind == "Normalize"


def _modalities(folder: Path, first: ModuleEntry) -> tuple[str, ...]:
    if first.kind == "Router":
        kinds = {kind for route in nested_routes(folder, first) for kind in _modalities(folder, route[0])}
        return tuple(sorted(kinds))
    reads_images = first.kind == "Transformer" and is_image_text(transformer_config(folder, first))
    return tuple(IMAGE_TEXT_SETTINGS["modality_config"]) if reads_images else ("text",)


def _max_seq_length(checkpoint: Path, first: ModuleEntry) -> int | None:
    if first.kind == "Router":
        routes = nested_routes(checkpoint, first)
        found = (_max_seq_length(checkpoint, route[0]) for route in routes)
        return max((limit for limit in found if limit is not None), default=None)
    if first.kind == "WordEmbeddings":
        return module_config(checkpoint, first).get("max_seq_length")
    if first.kind in UNLIMITED:
        return None
    folder = checkpoint / first.path
    if (limit := transformer_config(checkpoint, first).get("max_seq_length")) is not None:
        return int(limit)
    tokenizer = folder / "tokenizer_config.json"
    limits = [read_json(tokenizer).get("model_max_length") if tokenizer.exists() else None]
    config = folder / "config.json"
    fields = read_json(config) if config.exists() else {}
    scope = fields.get("text_config", {}) if fields.get("model_type") in IMAGE_TEXT_MODELS else fields
    limits.append(scope.get("max_position_embeddings"))
    known = [int(limit) for limit in limits if limit is not None and 0 < limit < 10**9]
    return min(known, default=None)
