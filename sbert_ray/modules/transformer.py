"""The tokenizer and transformer at the head of a model."""

import inspect
import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Self

import numpy as np
from transformers import PreTrainedModel

from sbert_ray.inference.engine import Padding, pad_batch
from sbert_ray.inference.tokenization import TextTokenizer
from sbert_ray.inference.tokenized import TokenizedTexts
from sbert_ray.modules.configs import (
    TEXT_OUTPUT,
    TRANSFORMER_CONFIG_NAMES,
    check_transformer_config,
    hidden_size,
    read_transformer_config,
)
from sbert_ray.modules.module import Features, LoadOptions, Module
from sbert_ray.modules.pretrained import load_model, load_tokenizer

_INPUTS = ("input_ids", "attention_mask", "token_type_ids")


class Transformer(Module):
    """Turns texts into ``input_ids`` and ``attention_mask`` (B, T), and those into ``token_embeddings`` (B, T, D).

    Args:
        model: A transformers model whose output has ``last_hidden_state``.
        tokenizer: Its tokenizer; longer texts are cut to its ``model_max_length``.
    """

    public_path = "sentence_transformers.base.modules.transformer.Transformer"
    config_name = TRANSFORMER_CONFIG_NAMES[0]

    def __init__(self, model: PreTrainedModel, tokenizer: Any) -> None:
        super().__init__()
        self.model = model
        self.tokenizer = tokenizer
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

    @property
    def padding(self) -> Padding:
        """How the tokenizer pads; where it has no padding token, the mask alone tells padding."""
        tokenizer = self.tokenizer
        return Padding(tokenizer.pad_token_id or 0, tokenizer.pad_token_type_id, tokenizer.padding_side)

    def tokenize_texts(
        self, texts: Sequence[str], prompt: str | None = None, on_chunk: Callable[[], None] | None = None
    ) -> TokenizedTexts:
        """Tokenize texts, each after ``prompt``, without padding; safe while another thread runs the model."""
        return self.text_tokenizer(texts, prompt, on_chunk)

    def preprocess(self, inputs: Sequence[str], prompt: str | None = None) -> Features:
        """Tokenize texts, each after ``prompt``, into one batch padded to the longest."""
        tokens = self.tokenize_texts(inputs, prompt)
        return pad_batch(tokens, np.arange(len(tokens)), self.padding)

    def forward(self, features: Features) -> Features:
        """Add ``token_embeddings``."""
        inputs: dict[str, Any] = {
            name: features[name] for name in _INPUTS if name in features and name in self._accepted
        }
        if "use_cache" in self._accepted:
            inputs["use_cache"] = False  # keys and values are for generation
        return features | {"token_embeddings": self.model(**inputs).last_hidden_state}

    def get_embedding_dimension(self) -> int | None:
        """Return D, where the model's config tells it."""
        return hidden_size(self.model.config.to_dict())

    def config(self) -> dict[str, Any]:
        """Return what the transformer's own files do not say."""
        return {
            "transformer_task": "feature-extraction",
            "modality_config": {"text": dict(TEXT_OUTPUT)},
            "module_output_name": "token_embeddings",
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
    def load(cls, folder: Path, options: LoadOptions) -> Self:
        """Load the transformer and its tokenizer from a checkpoint's folder.

        Raises:
            ValueError: The config asks for what is not supported, or weights are missing.
        """
        config = cls.read_config(folder)
        check_transformer_config(config, folder)
        model = load_model(folder, config, options)
        return cls(model, load_tokenizer(folder, config, options, model.config))
