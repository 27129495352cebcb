"""Configs of modules and transformers, whatever version wrote them, by one set of keys. Knows no torch."""

import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from sbert_ray.modules.modalities import IMAGE_TEXT_MODELS, IMAGE_TEXT_SETTINGS, check_image_text, is_image_text

POOLING_FLAGS = {  # in the order in which several are concatenated
    "pooling_mode_cls_token": "cls",
    "pooling_mode_max_tokens": "max",
    "pooling_mode_mean_tokens": "mean",
    "pooling_mode_mean_sqrt_len_tokens": "mean_sqrt_len_tokens",
    "pooling_mode_weightedmean_tokens": "weightedmean",
    "pooling_mode_lasttoken": "lasttoken",
}

TRANSFORMER_CONFIG_NAMES = tuple(
    f"sentence_{kind}_config.json"
    for kind in ("bert", "roberta", "distilbert", "camembert", "albert", "xlm-roberta", "xlnet")
)

CONFIG_NAMES = {
    "CNN": "cnn_config.json",
    "LSTM": "lstm_config.json",
    "WordEmbeddings": "wordembedding_config.json",
}
"""Files with the configs of modules, where they are not ``config.json``."""

RENAMED_KEYS = {
    "CNN": {"in_word_embedding_dimension": "in_embedding_dimension"},
    "LSTM": {"word_embedding_dimension": "embedding_dimension"},
    "Pooling": {"word_embedding_dimension": "embedding_dimension"},
    "WeightedLayerPooling": {"word_embedding_dimension": "embedding_dimension"},
}
"""For modules, the present name of keys and arguments by the one of before 5.4."""


class Task(NamedTuple):
    """What a transformer is for."""

    architecture: str
    """The class of transformers that loads it."""
    output: str
    """The field of its output that is read."""
    feature: str
    """What the Transformer module calls it."""


TASKS = {
    "feature-extraction": Task("AutoModel", "last_hidden_state", "token_embeddings"),
    "fill-mask": Task("AutoModelForMaskedLM", "logits", "token_embeddings"),
    "sequence-classification": Task("AutoModelForSequenceClassification", "logits", "scores"),
    "text-generation": Task("AutoModelForCausalLM", "logits", "causal_logits"),
}
"""By the name that configs use."""

SAFE_WEIGHTS = ("model.safetensors", "model.safetensors.index.json")


def read_json(path: Path) -> Any:
    """Return the content of a JSON file.

    Raises:
        ValueError: It is not JSON; the message names the file.
    """
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ValueError(f"{str(path)!r} must be JSON: {error}") from error


def modern_keys(kind: str, config: Mapping[str, Any]) -> dict[str, Any]:
    """Return a module's config by today's keys, which win over the old ones."""
    renamed = RENAMED_KEYS.get(kind, {})
    modern = {renamed[key]: value for key, value in config.items() if key in renamed}
    return modern | {key: value for key, value in config.items() if key not in renamed}


def modern_pooling_config(config: Mapping[str, Any]) -> dict[str, Any]:
    """Return Pooling's constructor arguments; before 5.4 there was one flag per mode, and no flag meant the mean."""
    modern = modern_keys("Pooling", {key: value for key, value in config.items() if key not in POOLING_FLAGS})
    modern.setdefault("pooling_mode", [mode for flag, mode in POOLING_FLAGS.items() if config.get(flag)] or "mean")
    return modern


def modern_transformer_config(config: Mapping[str, Any]) -> dict[str, Any]:
    """Return Transformer's config by today's keys."""
    renamed = {
        "model_args": "model_kwargs",
        "tokenizer_args": "processor_kwargs",
        "tokenizer_kwargs": "processor_kwargs",
        "config_args": "config_kwargs",
    }
    return {renamed.get(key, key): value for key, value in config.items()}


def read_transformer_config(folder: Path) -> dict[str, Any]:
    """Return Transformer's config in ``folder``, under whichever of its names it has, by today's keys."""
    for name in TRANSFORMER_CONFIG_NAMES:
        if (path := folder / name).exists():
            return modern_transformer_config(read_json(path))
    return {}


def check_transformer_config(config: Mapping[str, Any], folder: Path) -> None:
    """Make sure that a Transformer's config asks for nothing that would silently be left out.

    Raises:
        ValueError: It does.
    """
    where = f"the transformer in {str(folder)!r}"
    task = config.get("transformer_task", "feature-extraction")
    if task not in TASKS:
        raise ValueError(f"{where} must have a transformer_task of {sorted(TASKS)}, got {task!r}")
    modalities = config.get("modality_config") or {}
    path = folder / "config.json"
    kind = str(read_json(path).get("model_type")) if path.exists() else ""
    if task == "feature-extraction" and (is_image_text(config) or kind in IMAGE_TEXT_MODELS):
        check_image_text(config, kind, where)
    else:
        _check_text(config, task, where)
    _check_processing(config.get("processing_kwargs") or {}, "message" in modalities, where)
    unsupported = ("query_length", "document_length", "query_expansion")
    if asked := [key for key in unsupported if config.get(key)]:
        raise ValueError(f"the config of {where} has {asked}, which are not supported")


def _check_text(config: Mapping[str, Any], task: str, where: str) -> None:
    expected = TASKS[task].feature
    if (found := config.get("module_output_name", expected)) != expected:
        raise ValueError(f"{where} must have the module_output_name {expected!r} for {task!r}, got {found!r}")
    modalities = config.get("modality_config") or {}
    text_output = {"method": "forward", "method_output_name": TASKS[task].output}
    text = modalities.get("text", text_output)
    if {key: text.get(key) for key in text_output} != text_output:
        raise ValueError(f"{where} must read text by {text_output}, got {text}")
    if "message" in modalities:
        _check_messages(modalities["message"], text_output, where)


def _check_messages(message: Mapping[str, Any], output: Mapping[str, str], where: str) -> None:
    if {key: message.get(key) for key in output} != output:
        raise ValueError(f"{where} must read messages by {output}, got {message}")
    if (found := message.get("format", "auto")) not in ("auto", "flat", "structured"):
        raise ValueError(f"{where} must have messages of the format 'flat', 'structured' or 'auto', got {found!r}")


def _check_processing(kwargs: Mapping[str, Any], has_messages: bool, where: str) -> None:
    # What cuts and pads is for this library to say.
    variables = kwargs.get("chat_template") or {}
    fixed = {"padding", "truncation", "max_length", "return_tensors", "tokenize", "return_dict"}
    unsupported = [key for key, value in kwargs.items() if value and (key != "chat_template" or not has_messages)]
    if asked := sorted({*unsupported, *(fixed & variables.keys())}):
        raise ValueError(f"the processing_kwargs of {where} have {asked}, which are not supported")


def is_classifier(architectures: Iterable[Any] | None) -> bool:
    """Return whether weights saved by ``architectures`` hold a head that scores."""
    return any(str(name).endswith("ForSequenceClassification") for name in architectures or ())


def embedding_size(config: Mapping[str, Any], module_output_name: str | None) -> int | None:
    """Return D of what comes out, by a transformer's ``config.json``: of a projection where it gives one vector."""
    if module_output_name == IMAGE_TEXT_SETTINGS["module_output_name"] and "projection_dim" in config:
        return int(config["projection_dim"])
    return hidden_size(config)


def hidden_size(config: Mapping[str, Any]) -> int | None:
    """Return D of a transformer's token embeddings by its ``config.json``, which has many names for it."""
    inner = (config.get("text_config"), config.get("encoder"))
    for scope in (config, *(part for part in inner if isinstance(part, Mapping))):
        for name in ("hidden_size", "d_model", "dim", "n_embd", "emb_dim", "hidden_dim"):
            if isinstance(size := scope.get(name), int):
                return size
    return None
