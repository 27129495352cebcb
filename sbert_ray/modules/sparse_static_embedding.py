"""Texts as the set of their tokens, each with a weight of its own: the query side of inference-free SPLADE.

Shapes: B texts, T tokens with padding, V entries of the vocabulary.
"""

import logging
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, ClassVar, Self

import torch
from torch import Tensor, nn
from transformers import AutoTokenizer

from sbert_ray.inference.prepared import Features, Prepared, rows_of_width
from sbert_ray.inference.tokenization import TextTokenizer
from sbert_ray.modules.configs import read_json
from sbert_ray.modules.entries import leaves_folder, posix_path
from sbert_ray.modules.module import InputModule, LoadOptions, known_keys, read_weights, weights_file

logger = logging.getLogger(__name__)


class SparseStaticEmbedding(InputModule):
    """Adds ``sentence_embedding`` (B, V): the weights of the tokens that are in a text, 0 elsewhere.

    Special tokens do not count, nor how often a token comes. A ``sentence_embedding`` (B, V) that is there already is
    multiplied with it.

    Args:
        tokenizer: A tokenizer of transformers.
        weight: One weight per token (V,), such as its inverse document frequency; ones if None.
        frozen: Whether training leaves the weights as they are.

    Raises:
        ValueError: ``weight`` is no vector.

    References:
        Geng et al. 2024, Towards competitive search relevance for inference-free learned sparse retrievers,
        arXiv:2411.04403.
    """

    public_path = "sentence_transformers.sparse_encoder.modules.sparse_static_embedding.SparseStaticEmbedding"
    save_in_root: ClassVar[bool] = True

    def __init__(self, tokenizer: Any, weight: Tensor | None = None, frozen: bool = False) -> None:
        super().__init__()
        self.tokenizer = tokenizer
        if weight is None:
            weight = torch.ones(len(tokenizer.get_vocab()))
        if weight.ndim != 1:
            raise ValueError(f"weight must have one value per token (V,), got shape {tuple(weight.shape)}")
        self.weight = nn.Parameter(weight, requires_grad=not frozen)
        self.frozen = frozen

    @property
    def tokenizer(self) -> Any:
        """The tokenizer of transformers."""
        return self._text_tokenizer.tokenizer

    @tokenizer.setter
    def tokenizer(self, tokenizer: Any) -> None:
        self._text_tokenizer = TextTokenizer(tokenizer)

    @property
    def max_seq_length(self) -> int | None:
        """Tokens to which a text is cut."""
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
        """Tokenize texts, each after ``prompt``, without special tokens and padding.

        Raises:
            ValueError: A token has no weight.
        """
        tokens = self._text_tokenizer(inputs, prompt, on_chunk, add_special_tokens=False)
        if (largest := int(tokens.ids.max(initial=-1))) >= len(self.weight):
            token = self.tokenizer.convert_ids_to_tokens(largest)
            raise ValueError(
                f"every token must have a weight; {token!r} has id {largest} of {len(self.weight)} weights"
            )
        return replace(tokens, max_rows=rows_of_width(len(self.weight)))  # a row has V values, however few its tokens

    def forward(self, features: Features) -> Features:
        """Add ``sentence_embedding``; without a mask every token counts."""
        ids = features["input_ids"]  # (B, T)
        mask = features.get("attention_mask", torch.ones_like(ids)).to(self.weight.dtype)
        # A padding token may be a token of the text too, so the larger one counts.
        presence = self.weight.new_zeros(len(ids), len(self.weight)).scatter_reduce(1, ids, mask, "amax")  # (B, V)
        embedding = presence * self.weight
        if (before := features.get("sentence_embedding")) is not None:
            embedding = embedding * before
        return features | {"sentence_embedding": embedding}

    def get_embedding_dimension(self) -> int:
        """Return V."""
        return len(self.weight)

    def config(self) -> dict[str, Any]:
        """Return the constructor's arguments that are no weights."""
        return {"frozen": self.frozen}

    def save(self, folder: Path) -> None:
        """Write the tokenizer, the weights and the config to a checkpoint's folder."""
        super().save(folder)
        self.tokenizer.save_pretrained(folder)

    @classmethod
    def from_json(cls, json_path: str | Path, tokenizer: Any, **config: Any) -> Self:
        """Build the module from a JSON file of weights by token; tokens that it lacks get 0.

        Args:
            json_path: The file, or the id of a model on the Hugging Face hub that has an ``idf.json``.
            tokenizer: A tokenizer of transformers.
            config: ``frozen``, and for a model on the hub ``token``, ``cache_folder``, ``revision`` and
                ``local_files_only``.

        Raises:
            ValueError: No token is in the vocabulary, or the file is no object of numbers.
        """
        names = {"token": "token", "cache_folder": "cache_dir", "revision": "revision"}
        hub = {name: config.pop(given, None) for given, name in names.items()}
        local_files_only = config.pop("local_files_only", False)
        path = Path(json_path)
        if not path.exists():
            from huggingface_hub import hf_hub_download

            path = Path(hf_hub_download(str(json_path), "idf.json", local_files_only=local_files_only, **hub))
        return cls(tokenizer, _weights(path, tokenizer), **config)

    @classmethod
    def load(cls, folder: Path, options: LoadOptions) -> Self:
        """Build the module from its folder in a checkpoint.

        Its config may have a ``path``, of a JSON file in the folder with the weights by token.

        Raises:
            FileNotFoundError: The weights are missing.
            ValueError: The file is not in the folder, or what it holds are no weights.
        """
        config = known_keys(cls.read_config(folder), {"frozen", "path"}, folder)
        is_whole = not options.trust_remote_code  # else code may have to be fetched
        tokenizer = AutoTokenizer.from_pretrained(
            folder, trust_remote_code=options.trust_remote_code, local_files_only=is_whole
        )
        frozen = bool(config.get("frozen", False))
        if (name := config.get("path")) is not None:
            return cls(tokenizer, _weights(_inside(folder, name), tokenizer), frozen)
        path = weights_file(folder, options)
        weights = read_weights(path)
        if weights.keys() != {"weight"}:
            raise ValueError(f"{str(path)!r} must hold 'weight' and nothing else, got {sorted(weights)}")
        return cls(tokenizer, weights["weight"], frozen)


def _inside(folder: Path, name: Any) -> Path:
    path = folder / str(name)
    if leaves_folder(posix_path(name)):  # by its name alone: the hub's cache is full of links
        raise ValueError(f"the path of weights must stay within {str(folder)!r}, got {name!r}")
    if not path.is_file():
        raise FileNotFoundError(f"{str(folder)!r} lacks {name!r}, which its config names as the weights")
    return path


def _weights(path: Path, tokenizer: Any) -> Tensor:
    """Return the weights (V,) in a JSON file, of a tokenizer's vocabulary."""
    by_token = read_json(path)
    is_object = isinstance(by_token, dict) and by_token
    if not is_object or not all(isinstance(weight, (int, float)) for weight in by_token.values()):
        raise ValueError(f"{str(path)!r} must be an object of one number per token")
    vocabulary = tokenizer.get_vocab()
    if unknown := sorted(by_token.keys() - vocabulary.keys()):
        if len(unknown) == len(by_token):
            raise ValueError(f"{str(path)!r} must have tokens of the vocabulary, got none, but {unknown[:5]}")
        logger.warning(
            "%s has weights of %d tokens that are not in the vocabulary: %s", path, len(unknown), unknown[:5]
        )
    known = {vocabulary[token]: weight for token, weight in by_token.items() if token in vocabulary}
    weights = torch.zeros(len(vocabulary))
    return weights.scatter(0, torch.tensor(list(known)), torch.tensor(list(known.values()), dtype=weights.dtype))
