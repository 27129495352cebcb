"""The tokenizer and transformer at the head of a model."""

import inspect
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, ClassVar, Self

import numpy as np
from torch import Tensor
from transformers import PreTrainedModel

from sbert_ray.inference.chat import chat_template
from sbert_ray.inference.mixed import by_kind
from sbert_ray.inference.prepared import Features, Prepared
from sbert_ray.inference.tokenization import TextTokenizer
from sbert_ray.inference.tokenized import TokenizedTexts
from sbert_ray.modules.configs import (
    TASKS,
    TRANSFORMER_CONFIG_NAMES,
    check_transformer_config,
    embedding_size,
    read_transformer_config,
)
from sbert_ray.modules.image_text import image_text_embeddings, load_processor, prepare_images, reads_images
from sbert_ray.modules.modalities import IMAGE_TEXT_SETTINGS, image_positions
from sbert_ray.modules.module import InputModule, LoadOptions
from sbert_ray.modules.packed_transformer import can_pack, packed_output
from sbert_ray.modules.pretrained import load_model
from sbert_ray.modules.token_logits import token_logits
from sbert_ray.renamed import renamed

_INPUTS = ("input_ids", "attention_mask", "token_type_ids")


class Transformer(InputModule):
    """Turns texts into ``input_ids`` and ``attention_mask`` (B, T), and those into what its task asks for.

    That is ``token_embeddings`` (B, T, D), which for ``fill-mask`` are logits over the vocabulary, a `TokenLogits` that
    computes them where they are read; or ``scores`` (B, K) for ``sequence-classification``; or ``causal_logits``
    (B, 1, V) of the token that follows each text for ``text-generation``. CLIP takes images too, as ``pixel_values``
    (B, C, H, W), and gives the ``sentence_embedding`` (B, D) of either.

    Args:
        model_name_or_path: A folder or hub id of transformers; or a model of transformers, with ``tokenizer``.
        tokenizer: The model's tokenizer, or CLIP's processor; longer texts are cut to its ``model_max_length``.
        transformer_task: ``feature-extraction``, ``fill-mask``, ``sequence-classification`` or ``text-generation``.
        model_kwargs: Passed on to the model's ``from_pretrained``.
        processor_kwargs: Passed on to the tokenizer's ``from_pretrained``.
        config_kwargs: Passed on to the config's ``from_pretrained``.
        max_seq_length: Tokens to which a text is cut, special tokens included.
        do_lower_case: Whether to lowercase texts, whatever the tokenizer does.
        modality_config: How each kind of input is read; texts go through the chat template if it names ``message``, or
            if it is None and the tokenizer has a template.
        processing_kwargs: Variables of the chat template under ``chat_template``, such as ``add_generation_prompt``.

    Raises:
        ValueError: The task is unknown, or the checkpoint does not fit.
    """

    public_path = "sentence_transformers.base.modules.transformer.Transformer"
    config_name = TRANSFORMER_CONFIG_NAMES[0]
    save_in_root: ClassVar[bool] = True

    @renamed(model_args="model_kwargs", tokenizer_args="processor_kwargs", config_args="config_kwargs")
    def __init__(  # noqa: PLR0913 (much like the public signature)
        self,
        model_name_or_path: str | PreTrainedModel,
        tokenizer: Any = None,
        *,
        transformer_task: str = "feature-extraction",
        model_kwargs: Mapping[str, Any] | None = None,
        processor_kwargs: Mapping[str, Any] | None = None,
        config_kwargs: Mapping[str, Any] | None = None,
        max_seq_length: int | None = None,
        do_lower_case: bool = False,
        modality_config: Mapping[str, Any] | None = None,
        processing_kwargs: Mapping[str, Any] | None = None,
    ) -> None:
        super().__init__()
        if transformer_task not in TASKS:
            raise ValueError(f"unknown transformer_task {transformer_task!r}; known tasks are {list(TASKS)}")
        if isinstance(model_name_or_path, PreTrainedModel):
            if tokenizer is None:
                raise ValueError("a model of transformers needs its tokenizer")
            model = model_name_or_path
        else:
            if tokenizer is not None:
                raise ValueError(f"tokenizer must be None with the name of a model, got {tokenizer!r}")
            if Path(model_name_or_path, "adapter_config.json").exists():
                raise ValueError(f"{model_name_or_path!r} is a PEFT adapter; merge it into its base model first")
            options = LoadOptions("cpu", False, model_kwargs or {}, processor_kwargs or {}, config_kwargs or {})
            config = {"do_lower_case": do_lower_case, "max_seq_length": max_seq_length}
            model = load_model(model_name_or_path, config, options, transformer_task)
            tokenizer = load_processor(model_name_or_path, config, options, model, transformer_task)
        self.model = model
        self.untrained: list[str] = list(getattr(model, "untrained_weights", ()))
        self.transformer_task = transformer_task
        self._processor: Any = None
        if reads_images(model.config, transformer_task):
            if not hasattr(tokenizer, "image_processor"):
                raise ValueError(f"a model of texts and images needs its processor, got {type(tokenizer).__name__}")
            self._processor, tokenizer = tokenizer, tokenizer.tokenizer
            self.modalities = tuple(IMAGE_TEXT_SETTINGS["modality_config"])
        self.tokenizer = tokenizer
        if transformer_task == "sequence-classification":
            _share_padding(model, self.tokenizer)
        if transformer_task == "text-generation":
            tokenizer.padding_side = "left"  # the last position is then each text's last token
        variables = (processing_kwargs or {}).get("chat_template")
        self.chat = chat_template(tokenizer, model.config.model_type, modality_config, variables)
        parameters = inspect.signature(model.forward).parameters
        self._accepted = set(parameters) if "input_ids" in parameters else set(_INPUTS)

    @property
    def tokenizer(self) -> Any:
        """The tokenizer of transformers."""
        return self.text_tokenizer.tokenizer

    @tokenizer.setter
    def tokenizer(self, tokenizer: Any) -> None:
        self.text_tokenizer = TextTokenizer(tokenizer)
        if self._processor is not None:
            self._processor.tokenizer = tokenizer

    @property
    def processor(self) -> Any:
        """The processor of transformers for texts and images, or for texts alone the tokenizer."""
        return self.tokenizer if self._processor is None else self._processor

    @property
    def auto_model(self) -> PreTrainedModel:
        """The model of transformers: the old name of ``model``."""
        return self.model

    @property
    def max_seq_length(self) -> int | None:
        """Tokens to which a text is cut, special tokens included."""
        limit: int | None = self.tokenizer.model_max_length
        return limit

    @max_seq_length.setter
    def max_seq_length(self, value: int | None) -> None:
        self.tokenizer.model_max_length = value

    @property
    def max_positions(self) -> int | None:
        """Positions that the costliest possible input takes: those of the longest text, or of an image."""
        if self._processor is None or self.max_seq_length is None:
            return self.max_seq_length
        return max(self.max_seq_length, image_positions(self.model.config.to_dict()))

    def prepare(
        self,
        inputs: Sequence[Any],
        prompt: str | None = None,
        *,
        task: str | None = None,
        on_chunk: Callable[[], None] | None = None,
    ) -> Prepared:
        """Tokenize texts or pairs of them, each after ``prompt``, without padding; or as messages of a chat.

        Images, and texts among images, are told by `by_kind`; they are read when their batch is due.
        """
        if self._processor is not None:
            return by_kind(inputs, self.modalities, lambda kind, rows: self._prepare(kind, rows, prompt, on_chunk))
        if self.chat is not None:
            return self._to_right(self.chat.tokenize(self.text_tokenizer, inputs, prompt, task=task, on_chunk=on_chunk))
        return self._to_right(self.text_tokenizer(inputs, prompt, on_chunk))

    def preprocess(self, inputs: Sequence[Any], prompt: str | None = None, *, task: str | None = None) -> Features:
        """Return the features of all inputs as one batch, padded on the tokenizer's side."""
        prepared = self.prepare(inputs, prompt, task=task)
        if isinstance(prepared, TokenizedTexts):
            prepared = replace(prepared, padding=self.text_tokenizer.padding)
        return prepared.batch(np.arange(len(prepared)))

    def _to_right(self, tokens: TokenizedTexts) -> TokenizedTexts:
        # Absolute positions count padding on the left, so that a text's embedding would depend on its batch.
        if self.transformer_task == "text-generation":
            return tokens  # the last position must be each text's last token
        return replace(tokens, padding=replace(tokens.padding, side="right"))

    def _prepare(
        self, kind: str, inputs: Sequence[Any], prompt: str | None, on_chunk: Callable[[], None] | None
    ) -> Prepared:
        if kind == "image":
            return prepare_images(inputs, self._processor, self.model.config)
        return self.text_tokenizer(inputs, prompt, on_chunk)

    def forward(self, features: Features) -> Features:
        """Add what the task asks for; of packed texts, token embeddings (L, D)."""
        if features.get("packing") is not None:
            return self._forward_packed(features)
        if self._processor is not None:
            return features | {self._output_name: image_text_embeddings(self.model, features)}
        inputs: dict[str, Any] = {
            name: features[name] for name in _INPUTS if name in features and name in self._accepted
        }
        if "use_cache" in self._accepted:
            inputs["use_cache"] = False  # keys and values are for generation
        if self.transformer_task == "text-generation":
            inputs |= self._last_position(features["attention_mask"])
        task = TASKS[self.transformer_task]
        if self.transformer_task == "fill-mask":
            return features | {task.feature: token_logits(self.model, inputs)}
        output = self.model(**inputs)
        return features | {task.feature: getattr(output, task.output)} | self._all_layers(output)

    def can_pack(self) -> bool:
        """Return whether the transformer gives the same for packed texts as for padded ones."""
        is_known = isinstance(self.model, PreTrainedModel) and self._processor is None  # and not a compiled one
        return is_known and can_pack(self.model, self.transformer_task)

    def _forward_packed(self, features: Features) -> Features:
        packing, firsts_only = features["packing"], features.get("firsts_only", False)
        type_ids = features.get("token_type_ids") if "token_type_ids" in self._accepted else None
        output = packed_output(
            self.model, self.transformer_task, features["input_ids"], packing, type_ids, firsts_only=firsts_only
        )
        found = {TASKS[self.transformer_task].feature: output}
        return features | found | ({"packing": packing.firsts()} if firsts_only else {})

    def _all_layers(self, output: Any) -> Features:
        # For WeightedLayerPooling, where the config asks for them.
        is_asked_for = getattr(self.model.config, "output_hidden_states", False)
        layers = getattr(output, "hidden_states", None)
        return {"all_layer_embeddings": layers} if is_asked_for and layers is not None else {}

    def _last_position(self, mask: Tensor) -> dict[str, Any]:
        # Positions count from a text's first token, so that its logits do not depend on the padding before it.
        inputs: dict[str, Any] = {"logits_to_keep": 1, "position_ids": (mask.cumsum(dim=1) - 1).clamp(min=0)}
        return {name: value for name, value in inputs.items() if name in self._accepted}

    def get_embedding_dimension(self) -> int | None:
        """Return D, where the model's config tells it; for ``fill-mask`` that is the vocabulary's size."""
        if self.transformer_task == "fill-mask":
            return int(self.model.config.get_text_config().vocab_size)
        return embedding_size(self.model.config.to_dict(), self._output_name)

    @property
    def _output_name(self) -> str:
        name: str = IMAGE_TEXT_SETTINGS["module_output_name"]
        return TASKS[self.transformer_task].feature if self._processor is None else name

    def config(self) -> dict[str, Any]:
        """Return what the transformer's own files do not say."""
        task = TASKS[self.transformer_task]
        if self._processor is not None:
            return {"transformer_task": self.transformer_task} | IMAGE_TEXT_SETTINGS
        text = {"method": "forward", "method_output_name": task.output}
        config: dict[str, Any] = {
            "transformer_task": self.transformer_task,
            "modality_config": {"text": text},
            "module_output_name": task.feature,
        }
        if self.chat is not None:
            config["modality_config"]["message"] = text | {"format": self.chat.message_format}
            if settings := self.chat.settings():
                config["processing_kwargs"] = {"chat_template": settings}
        return config

    def save(self, folder: Path) -> None:
        """Write the transformer, its tokenizer and its config to a checkpoint's folder."""
        folder = Path(folder)
        folder.mkdir(parents=True, exist_ok=True)
        self.model.save_pretrained(folder)
        self.processor.save_pretrained(folder)
        (folder / self.config_name).write_text(json.dumps(self.config(), indent=4), encoding="utf-8")

    @classmethod
    def read_config(cls, folder: Path) -> dict[str, Any]:
        """Return the config in ``folder`` under whichever of its names it has, by today's keys."""
        return read_transformer_config(folder)

    @classmethod
    def load(
        cls, folder: Path, options: LoadOptions, given: Mapping[str, Any] | None = None, is_plain: bool = False
    ) -> Self:
        """Load the transformer and its tokenizer from a checkpoint's folder.

        Args:
            folder: The module's folder.
            options: How to load it.
            given: Config that wins over the folder's own.
            is_plain: Whether the folder's own config does not count, as it is of another type of model, if any.

        Raises:
            ValueError: The config asks for what is not supported, or weights are missing.
        """
        config = dict(given or {}) if is_plain else cls.read_config(folder) | dict(given or {})
        check_transformer_config(config, folder)
        task = config.get("transformer_task", "feature-extraction")
        model = load_model(folder, config, options, task)
        return cls(
            model,
            load_processor(folder, config, options, model, task),
            transformer_task=task,
            modality_config=config.get("modality_config", None if is_plain else {}),
            processing_kwargs=config.get("processing_kwargs"),
        )


def _share_padding(model: PreTrainedModel, tokenizer: Any) -> None:
    # A decoder's head looks for the last token that is no padding, and refuses batches if it does not know padding.
    if getattr(model.config, "pad_token_id", None) is None and tokenizer.pad_token_id is not None:
        model.config.pad_token_id = tokenizer.pad_token_id
