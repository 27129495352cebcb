"""Transformers' models and tokenizers, read from a checkpoint's folder."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import transformers
from tokenizers.normalizers import Lowercase
from tokenizers.normalizers import Sequence as Normalizers
from transformers import AutoConfig, AutoModel, AutoTokenizer, PreTrainedConfig, PreTrainedModel
from transformers.utils import logging as transformers_logging

from sbert_ray.inference.precision import load_dtype
from sbert_ray.modules.module import LoadOptions

ENCODERS = {  # encoder-decoder models of which the encoder alone embeds
    "longt5": "LongT5EncoderModel",
    "mt5": "MT5EncoderModel",
    "switch_transformers": "SwitchTransformersEncoderModel",
    "t5": "T5EncoderModel",
    "umt5": "UMT5EncoderModel",
}


def load_model(folder: Path, config: dict[str, Any], options: LoadOptions) -> PreTrainedModel:
    """Load the transformer in ``folder``.

    Args:
        folder: A checkpoint of transformers.
        config: The Transformer module's config, of which ``model_kwargs`` and ``config_kwargs`` are used.
        options: They win over the config.

    Raises:
        ValueError: The architecture cannot embed, weights are missing, or an option is not supported.
    """
    kwargs = config.get("model_kwargs", {}) | dict(options.model_kwargs)
    if "device_map" in kwargs:
        raise ValueError("model_kwargs must not hold device_map; pass device instead")
    common = _common(options)
    model_config = AutoConfig.from_pretrained(
        folder, **(common | config.get("config_kwargs", {}) | dict(options.config_kwargs))
    )
    requested = kwargs.pop("dtype", None) or kwargs.pop("torch_dtype", None)
    dtype = load_dtype(requested, getattr(model_config, "dtype", None), options.device)
    kwargs.setdefault("use_safetensors", True)  # never a pickle, unless the user asks for it
    with _no_progress_bar():
        model, report = _architecture(model_config).from_pretrained(
            folder, config=model_config, dtype=dtype, output_loading_info=True, **(common | kwargs)
        )
    # Poolers are not used, and many checkpoints lack theirs.
    if missing := sorted(key for key in report["missing_keys"] if "pooler" not in key):
        raise ValueError(f"the weights in {str(folder)!r} must hold {missing[:5]} ({len(missing)} are missing)")
    loaded: PreTrainedModel = model.eval()
    return loaded


def load_tokenizer(folder: Path, config: dict[str, Any], options: LoadOptions, model_config: PreTrainedConfig) -> Any:
    """Load the tokenizer in ``folder``, its ``model_max_length`` being the module's, or what the model can take."""
    kwargs = config.get("processor_kwargs", {}) | dict(options.processor_kwargs)
    if config.get("max_seq_length") is not None:
        kwargs.setdefault("model_max_length", config["max_seq_length"])
    tokenizer = AutoTokenizer.from_pretrained(folder, **(_common(options) | kwargs))
    positions = getattr(model_config, "max_position_embeddings", -1)
    if "model_max_length" not in kwargs and positions not in (None, -1):
        tokenizer.model_max_length = min(tokenizer.model_max_length, positions)
    if config.get("do_lower_case"):
        _lowercase(tokenizer)
    return tokenizer


def _common(options: LoadOptions) -> dict[str, Any]:
    # Code that is not in the folder may have to be fetched; nothing else has.
    return {"trust_remote_code": options.trust_remote_code, "local_files_only": not options.trust_remote_code}


def _architecture(config: PreTrainedConfig) -> Any:
    if config.model_type in ENCODERS:
        return getattr(transformers, ENCODERS[config.model_type])
    if getattr(config, "is_encoder_decoder", False):
        raise ValueError(f"encoder-decoder models must be of {sorted(ENCODERS)}, got {config.model_type!r}")
    return AutoModel


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
