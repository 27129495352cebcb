"""Transformers' models and tokenizers, read from a checkpoint's folder."""

import logging
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from importlib import import_module
from pathlib import Path
from typing import Any

import transformers
from tokenizers.normalizers import Lowercase
from tokenizers.normalizers import Sequence as Normalizers
from transformers import AutoConfig, AutoTokenizer, PreTrainedConfig, PreTrainedModel
from transformers.utils import logging as transformers_logging

from sbert_ray.inference.precision import load_precision
from sbert_ray.modules.configs import SAFE_WEIGHTS, TASKS, is_classifier
from sbert_ray.modules.int8_layers import compute_in_int8
from sbert_ray.modules.modalities import IMAGE_TEXT_MODELS
from sbert_ray.modules.module import LoadOptions

logger = logging.getLogger(__name__)

ENCODERS = {  # encoder-decoder models of which the encoder alone embeds
    "longt5": "LongT5EncoderModel",
    "mt5": "MT5EncoderModel",
    "switch_transformers": "SwitchTransformersEncoderModel",
    "t5": "T5EncoderModel",
    "t5gemma": "T5GemmaEncoderModel",
    "umt5": "UMT5EncoderModel",
}

INNER_ENCODERS = {  # those of which transformers has no class that loads the encoder out of a whole checkpoint
    "blenderbot": "BlenderbotEncoder",
    "blenderbot-small": "BlenderbotSmallEncoder",
    "m2m_100": "M2M100Encoder",
    "marian": "MarianEncoder",
    "pegasus": "PegasusEncoder",
    "pegasus_x": "PegasusXEncoder",
    "prophetnet": "ProphetNetEncoder",
}

WHOLE = ("bart", "bigbird_pegasus", "fsmt", "led", "mbart", "mvp", "plbart")
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
    common = hub_arguments(folder, options)
    model_config = _load_config(folder, config, options)
    _fit_to_task(model_config, task, options)
    _check_attention(model_config, kwargs, folder)
    requested = kwargs.pop("dtype", None) or kwargs.pop("torch_dtype", None) or options.config_kwargs.get("dtype")
    precision = load_precision(requested, getattr(model_config, "dtype", None), options.device)
    if options.allow_pickle and any(Path(folder, name).exists() for name in SAFE_WEIGHTS):
        del kwargs["use_safetensors"]  # it is another module that has pickled weights
    kwargs.setdefault("use_safetensors", True)  # never a pickle, unless the user asks for it
    with _no_progress_bar():
        model, report = _architecture(model_config, task).from_pretrained(
            folder,
            config=model_config,
            dtype=precision.dtype,
            output_loading_info=True,
            **(common | kwargs | {"ignore_mismatched_sizes": True}),
        )
    _check_shapes(report["mismatched_keys"], kwargs.get("ignore_mismatched_sizes", False), folder)
    new = _check_missing(model, report["missing_keys"], task, folder)
    is_whole = task == "feature-extraction" and model_config.model_type in INNER_ENCODERS and hasattr(model, "decoder")
    used: Any = model.get_encoder() if is_whole else model
    used.untrained_weights = [*new, *(key for key, *_ in report["mismatched_keys"])]
    if precision.is_int8:
        compute_in_int8(used)
    loaded: PreTrainedModel = used.eval()
    return loaded


def _fit_to_task(config: PreTrainedConfig, task: str, options: LoadOptions) -> None:
    is_new_head = task == "sequence-classification" and not is_classifier(config.architectures)
    if is_new_head and "num_labels" not in options.config_kwargs:
        config.num_labels = 1  # a model that was made for something else becomes one that scores
    elif task == "feature-extraction" and config.model_type == "t5gemma":
        config.is_encoder_decoder = False  # without which its encoder does not load


def _check_shapes(mismatched: Collection[tuple[str, Any, Any]], is_allowed: bool, folder: Path | str) -> None:
    wrong = [f"{key} {tuple(found)}, not {tuple(wanted)}" for key, found, wanted in sorted(mismatched)]
    if wrong and not is_allowed:
        raise ValueError(
            f"the weights in {str(folder)!r} have another shape than the config asks for: {wrong}; with another number"
            " of labels the head has to be trained anew, which model_kwargs={'ignore_mismatched_sizes': True} allows"
        )
    if wrong:
        logger.warning("%s has %s: they start at random, to be trained", folder, wrong)


def _check_missing(model: Any, keys: Collection[str], task: str, folder: Path | str) -> list[str]:
    """Return the weights of a new head."""
    # Poolers are not used for embeddings, and many checkpoints lack theirs.
    missing = sorted(key for key in keys if "pooler" not in key and not _is_computed(model, key))
    new: list[str] = []
    if task == "sequence-classification" and not is_classifier(model.config.architectures):
        prefix = f"{model.base_model_prefix}."
        new = sorted(key for key in keys if not key.startswith(prefix) or "pooler" in key)
        if new:
            logger.warning("%s has no %s: they start at random, to be trained", folder, new)
            missing = [key for key in missing if key not in new]
    if missing:
        raise ValueError(f"the weights in {str(folder)!r} must hold {missing[:5]} ({len(missing)} are missing)")
    return new


def _is_computed(model: Any, key: str) -> bool:
    """Return whether a parameter is what a formula gives, such as Marian's positions, which checkpoints leave out."""
    return "Sinusoidal" in type(model.get_submodule(key.rpartition(".")[0])).__name__


def load_tokenizer(
    folder: Path | str, config: dict[str, Any], options: LoadOptions, model_config: PreTrainedConfig
) -> Any:
    """Load the tokenizer in ``folder``, its ``model_max_length`` being the module's, or what the model can take."""
    kwargs = _stored(config, "processor_kwargs", STORED_PROCESSOR_KWARGS, folder) | dict(options.processor_kwargs)
    if config.get("max_seq_length") is not None:
        kwargs.setdefault("model_max_length", config["max_seq_length"])
    tokenizer = AutoTokenizer.from_pretrained(folder, **(hub_arguments(folder, options) | kwargs))
    scope = model_config.get_text_config() if model_config.model_type in IMAGE_TEXT_MODELS else model_config
    positions = getattr(scope, "max_position_embeddings", -1)
    if "model_max_length" not in kwargs and positions not in (None, -1):
        tokenizer.model_max_length = min(tokenizer.model_max_length, positions)
    if config.get("do_lower_case"):
        _lowercase(tokenizer)
    return tokenizer


def _load_config(folder: Path | str, config: Mapping[str, Any], options: LoadOptions) -> PreTrainedConfig:
    given, common = dict(options.config_kwargs), hub_arguments(folder, options)
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


def hub_arguments(folder: Path | str, options: LoadOptions) -> dict[str, Any]:
    """Return what every ``from_pretrained`` is told of the hub."""
    # Of a folder, only code that is not in it may have to be fetched.
    is_whole = Path(folder).is_dir() and not options.trust_remote_code
    return {"trust_remote_code": options.trust_remote_code, "local_files_only": is_whole}


def _architecture(config: PreTrainedConfig, task: str) -> Any:
    kind = config.model_type
    if task == "feature-extraction":
        if kind in ENCODERS:
            return getattr(transformers, ENCODERS[kind])
        if (encoder := INNER_ENCODERS.get(kind)) and encoder in (config.architectures or ()):
            module = kind.replace("-", "_")
            return getattr(import_module(f"transformers.models.{module}.modeling_{module}"), encoder)
        known = sorted({*ENCODERS, *INNER_ENCODERS, *WHOLE})
        if getattr(config, "is_encoder_decoder", False) and kind not in known:
            raise ValueError(f"encoder-decoder models must be of {known}, got {kind!r}")
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
