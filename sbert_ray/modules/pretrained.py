"""Transformers' models and tokenizers, read from a checkpoint's folder."""

import logging
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import transformers
from tokenizers.normalizers import Lowercase
from tokenizers.normalizers import Sequence as Normalizers
from transformers import AutoConfig, AutoTokenizer, PreTrainedConfig, PreTrainedModel
from transformers.utils import logging as transformers_logging

from sbert_ray.inference.precision import load_dtype
from sbert_ray.modules.configs import SAFE_WEIGHTS, TASKS
from sbert_ray.modules.module import LoadOptions

logger = logging.getLogger(__name__)

ENCODERS = {  # encoder-decoder models of which the encoder alone embeds
    "longt5": "LongT5EncoderModel",
    "mt5": "MT5EncoderModel",
    "switch_transformers": "SwitchTransformersEncoderModel",
    "t5": "T5EncoderModel",
    "umt5": "UMT5EncoderModel",
}

WHOLE = ("bart", "mbart")
"""Encoder-decoder models whose decoder's last hidden state embeds, as the peer has it."""

STORED_MODEL_KWARGS = ("add_pooling_layer", "attn_implementation", "dtype", "torch_dtype")
STORED_PROCESSOR_KWARGS = (
    "add_bos_token add_eos_token add_prefix_space bos_token clean_up_tokenization_spaces cls_token do_lower_case"
    " eos_token extra_special_tokens additional_special_tokens legacy mask_token max_length model_max_length pad_token"
    " padding_side sep_token split_special_tokens strip_accents truncation_side unk_token use_fast"
).split()
"""What a checkpoint's config may pass on: nothing that names files, fetches code, or unlocks pickles."""
NOT_A_SETTING = ("auto_map", "model_type")
"""Fields of a transformer's config that decide which code runs."""


def load_model(
    folder: Path | str, config: dict[str, Any], options: LoadOptions, task: str = "feature-extraction"
) -> PreTrainedModel:
    """Load the transformer in ``folder``.

    Args:
        folder: A checkpoint of transformers, or its id on the hub.
        config: The Transformer module's config, of which ``model_kwargs`` and ``config_kwargs`` are used.
        options: They win over the config.
        task: What the model is for, one of `TASKS`.

    Raises:
        ValueError: The architecture cannot embed, weights are missing, or an option is not supported.
    """
    kwargs = _stored(config, "model_kwargs", STORED_MODEL_KWARGS, folder) | dict(options.model_kwargs)
    if "device_map" in kwargs:
        raise ValueError("model_kwargs must not hold device_map; pass device instead")
    common = _common(folder, options)
    model_config = _load_config(folder, config, options)
    if task == "sequence-classification" and "num_labels" not in options.config_kwargs:
        architectures = getattr(model_config, "architectures", None) or []
        if not any(name.endswith("ForSequenceClassification") for name in architectures):
            model_config.num_labels = 1  # a model that was made for something else becomes one that scores
    _check_attention(model_config, kwargs, folder)
    requested = kwargs.pop("dtype", None) or kwargs.pop("torch_dtype", None) or options.config_kwargs.get("dtype")
    dtype = load_dtype(requested, getattr(model_config, "dtype", None), options.device)
    if options.allow_pickle and any(Path(folder, name).exists() for name in SAFE_WEIGHTS):
        del kwargs["use_safetensors"]  # it is another module that has pickled weights
    kwargs.setdefault("use_safetensors", True)  # never a pickle, unless the user asks for it
    with _no_progress_bar():
        model, report = _architecture(model_config, task).from_pretrained(
            folder, config=model_config, dtype=dtype, output_loading_info=True, **(common | kwargs)
        )
    _check_missing(model, report["missing_keys"], task, folder)
    loaded: PreTrainedModel = model.eval()
    return loaded


def _check_missing(model: Any, keys: Collection[str], task: str, folder: Path | str) -> None:
    # Poolers are not used for embeddings, and many checkpoints lack theirs.
    missing = sorted(key for key in keys if "pooler" not in key)
    if task == "sequence-classification":
        prefix = f"{model.base_model_prefix}."
        if new := [key for key in missing if not key.startswith(prefix)]:
            logger.warning("%s has no %s: they start at random, to be trained", folder, new)
        missing = [key for key in missing if key.startswith(prefix)]
    if missing:
        raise ValueError(f"the weights in {str(folder)!r} must hold {missing[:5]} ({len(missing)} are missing)")


def load_tokenizer(
    folder: Path | str, config: dict[str, Any], options: LoadOptions, model_config: PreTrainedConfig
) -> Any:
    """Load the tokenizer in ``folder``, its ``model_max_length`` being the module's, or what the model can take."""
    kwargs = _stored(config, "processor_kwargs", STORED_PROCESSOR_KWARGS, folder) | dict(options.processor_kwargs)
    if config.get("max_seq_length") is not None:
        kwargs.setdefault("model_max_length", config["max_seq_length"])
    tokenizer = AutoTokenizer.from_pretrained(folder, **(_common(folder, options) | kwargs))
    positions = getattr(model_config, "max_position_embeddings", -1)
    if "model_max_length" not in kwargs and positions not in (None, -1):
        tokenizer.model_max_length = min(tokenizer.model_max_length, positions)
    if config.get("do_lower_case"):
        _lowercase(tokenizer)
    return tokenizer


def _load_config(folder: Path | str, config: Mapping[str, Any], options: LoadOptions) -> PreTrainedConfig:
    given, common = dict(options.config_kwargs), _common(folder, options)
    loaded: PreTrainedConfig = AutoConfig.from_pretrained(folder, **(common | given))
    if config.get("config_kwargs"):
        fields = loaded.to_dict().keys() - set(NOT_A_SETTING)
        stored = _stored(config, "config_kwargs", fields, folder)
        loaded = AutoConfig.from_pretrained(folder, **(common | stored | given))
    return loaded


def _check_attention(config: PreTrainedConfig, kwargs: Mapping[str, Any], folder: Path | str) -> None:
    found = str(getattr(config, "_attn_implementation", None))
    if "/" in found and "attn_implementation" not in kwargs:
        raise ValueError(
            f"config.json in {str(folder)!r} asks for the attention kernel {found!r}, which would be code to fetch;"
            " give another one, such as model_kwargs={'attn_implementation': 'sdpa'}"
        )


def _stored(config: Mapping[str, Any], name: str, allowed: Collection[str], folder: Path | str) -> dict[str, Any]:
    """Return the arguments that a checkpoint's config gives under ``name``, less what only the user may give."""
    stored: dict[str, Any] = config.get(name) or {}
    kept = {key: value for key, value in stored.items() if key in allowed and not key.startswith("_")}
    if "/" in str(kept.get("attn_implementation", "")):
        del kept["attn_implementation"]  # a kernel to fetch, which is code
    if ignored := sorted(stored.keys() - kept.keys() - {"trust_remote_code"}):
        logger.warning("ignoring %s, which the config in %s gives as %s: only you may", ignored, folder, name)
    return kept


def _common(folder: Path | str, options: LoadOptions) -> dict[str, Any]:
    # Of a folder, only code that is not in it may have to be fetched.
    is_whole = Path(folder).is_dir() and not options.trust_remote_code
    return {"trust_remote_code": options.trust_remote_code, "local_files_only": is_whole}


def _architecture(config: PreTrainedConfig, task: str) -> Any:
    if task == "feature-extraction":
        if config.model_type in ENCODERS:
            return getattr(transformers, ENCODERS[config.model_type])
        if getattr(config, "is_encoder_decoder", False) and config.model_type not in WHOLE:
            known = sorted({*ENCODERS, *WHOLE})
            raise ValueError(f"encoder-decoder models must be of {known}, got {config.model_type!r}")
    return getattr(transformers, TASKS[task].architecture)


def _lowercase(tokenizer: Any) -> None:
    core = tokenizer.backend_tokenizer
    steps: list[Any] = [core.normalizer]
    if isinstance(core.normalizer, Normalizers):
        steps = [core.normalizer[index] for index in range(len(core.normalizer))]
    if not any(isinstance(step, Lowercase) for step in steps):
        core.normalizer = Normalizers([Lowercase(), *(step for step in steps if step is not None)])


@contextmanager
def _no_progress_bar() -> Iterator[None]:
    shown = transformers_logging.is_progress_bar_enabled()
    transformers_logging.disable_progress_bar()
    try:
        yield
    finally:
        if shown:
            transformers_logging.enable_progress_bar()
