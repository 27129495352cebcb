"""The tokenizer and transformer at the head of a model."""

import inspect
import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar, Self

from transformers import PreTrainedModel

from sbert_ray.inference.prepared import Features, Prepared
from sbert_ray.inference.tokenization import TextTokenizer
from sbert_ray.modules.configs import (
    TASKS,
    TRANSFORMER_CONFIG_NAMES,
    check_transformer_config,
    hidden_size,
    read_transformer_config,
)
from sbert_ray.modules.module import InputModule, LoadOptions
from sbert_ray.modules.pretrained import load_model, load_tokenizer

_INPUTS = ("input_ids", "attention_mask", "token_type_ids")


class Transformer(InputModule):
    """Turns texts into ``input_ids`` and ``attention_mask`` (B, T), and those into what its task asks for.

    That is ``token_embeddings`` (B, T, D), which for ``fill-mask`` are logits over the vocabulary; or ``scores``
    (B, K) for ``sequence-classification``; or ``causal_logits`` (B, 1, V) of the token that follows each text for
    ``text-generation``.

    Args:
        model_name_or_path: A folder or hub id of transformers; or a model of transformers, with ``tokenizer``.
        tokenizer: The model's tokenizer; longer texts are cut to its ``model_max_length``.
        transformer_task: ``feature-extraction``, ``fill-mask``, ``sequence-classification`` or ``text-generation``.
        model_kwargs: Passed on to the model's ``from_pretrained``.
        processor_kwargs: Passed on to the tokenizer's ``from_pretrained``.
        config_kwargs: Passed on to the config's ``from_pretrained``.
        max_seq_length: Tokens to which a text is cut, special tokens included.
        do_lower_case: Whether to lowercase texts, whatever the tokenizer does.

    Raises:
        ValueError: The task is unknown, or the checkpoint does not fit.
    """

    public_path = "sentence_transformers.base.modules.transformer.Transformer"
    config_name = TRANSFORMER_CONFIG_NAMES[0]
    save_in_root: ClassVar[bool] = True

    def __init__(
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
    ) -> None:
        super().__init__()
        if transformer_task not in TASKS:
            raise ValueError(f"unknown transformer_task {transformer_task!r}; known tasks are {list(TASKS)}")
        if isinstance(model_name_or_path, PreTrainedModel):
            if tokenizer is None:
                raise ValueError("a model of transformers needs its tokenizer")
            model = model_name_or_path
        else:
            options = LoadOptions("cpu", False, model_kwargs or {}, processor_kwargs or {}, config_kwargs or {})
            config = {"do_lower_case": do_lower_case, "max_seq_length": max_seq_length}
            model = load_model(model_name_or_path, config, options, transformer_task)
            tokenizer = load_tokenizer(model_name_or_path, config, options, model.config)
        self.model = model
        self.transformer_task = transformer_task
        self.tokenizer = tokenizer
        if transformer_task == "text-generation":
            tokenizer.padding_side = "left"  # the last position is then each text's last token
        parameters = inspect.signature(model.forward).parameters
        self._accepted = set(parameters) if "input_ids" in parameters else set(_INPUTS)

    @property
    def tokenizer(self) -> Any:
        """The tokenizer of transformers."""
        return self.text_tokenizer.tokenizer

    @tokenizer.setter
    def tokenizer(self, tokenizer: Any) -> None:
        self.text_tokenizer = TextTokenizer(tokenizer)

    @property
    def max_seq_length(self) -> int | None:
        """Tokens to which a text is cut, special tokens included."""
        limit: int | None = self.tokenizer.model_max_length
        return limit

    @max_seq_length.setter
    def max_seq_length(self, value: int | None) -> None:
        self.tokenizer.model_max_length = value

    def prepare(
        self,
        inputs: Sequence[Any],
        prompt: str | None = None,
        *,
        task: str | None = None,  # noqa: ARG002 (for a Router)
        on_chunk: Callable[[], None] | None = None,
    ) -> Prepared:
        """Tokenize texts or pairs of them, each after ``prompt``, without padding."""
        return self.text_tokenizer(inputs, prompt, on_chunk)

    def forward(self, features: Features) -> Features:
        """Add what the task asks for."""
        inputs: dict[str, Any] = {
            name: features[name] for name in _INPUTS if name in features and name in self._accepted
        }
        if "use_cache" in self._accepted:
            inputs["use_cache"] = False  # keys and values are for generation
        if self.transformer_task == "text-generation" and "logits_to_keep" in self._accepted:
            inputs["logits_to_keep"] = 1
        task = TASKS[self.transformer_task]
        return features | {task.feature: getattr(self.model(**inputs), task.output)}

    def get_embedding_dimension(self) -> int | None:
        """Return D, where the model's config tells it."""
        return hidden_size(self.model.config.to_dict())

    def get_word_embedding_dimension(self) -> int | None:
        """Return D: the old name of `get_embedding_dimension`."""
        return self.get_embedding_dimension()

    def config(self) -> dict[str, Any]:
        """Return what the transformer's own files do not say."""
        task = TASKS[self.transformer_task]
        return {
            "transformer_task": self.transformer_task,
            "modality_config": {"text": {"method": "forward", "method_output_name": task.output}},
            "module_output_name": task.feature,
        }

    def save(self, folder: Path) -> None:
        """Write the transformer, its tokenizer and its config to a checkpoint's folder."""
        folder.mkdir(parents=True, exist_ok=True)
        self.model.save_pretrained(folder)
        self.tokenizer.save_pretrained(folder)
        (folder / self.config_name).write_text(json.dumps(self.config(), indent=4), encoding="utf-8")

    @classmethod
    def read_config(cls, folder: Path) -> dict[str, Any]:
        """Return the config in ``folder`` under whichever of its names it has, by today's keys."""
        return read_transformer_config(folder)

    @classmethod
    def load(cls, folder: Path, options: LoadOptions, defaults: Mapping[str, Any] | None = None) -> Self:
        """Load the transformer and its tokenizer from a checkpoint's folder.

        Args:
            folder: The module's folder.
            options: How to load it.
            defaults: Config that the folder's own wins over, for a checkpoint that knows nothing of this library.

        Raises:
            ValueError: The config asks for what is not supported, or weights are missing.
        """
        config = dict(defaults or {}) | cls.read_config(folder)
        check_transformer_config(config, folder)
        task = config.get("transformer_task", "feature-extraction")
        model = load_model(folder, config, options, task)
        return cls(model, load_tokenizer(folder, config, options, model.config), transformer_task=task)
