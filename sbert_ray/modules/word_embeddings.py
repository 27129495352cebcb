"""One vector per word, at the head of models that are older than transformers.

Shapes: V words, D dimensions, B texts, T words of the longest of them.
"""

import gzip
import logging
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Self

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from transformers import PreTrainedTokenizerBase

from sbert_ray.inference.prepared import Features
from sbert_ray.inference.tokenization import refuse_pairs, text_chunks
from sbert_ray.inference.tokenized import TokenizedTexts
from sbert_ray.modules.configs import CONFIG_NAMES
from sbert_ray.modules.module import InputModule, LoadOptions, read_weights, weights_file
from sbert_ray.modules.word_tokenizers import (
    TransformersTokenizerWrapper,
    WhitespaceTokenizer,
    WordTokenizer,
    tokenizer_class,
)

logger = logging.getLogger(__name__)

PADDING_WORD = "PADDING_TOKEN"
"""The word with id 0, whose vector is zero, in a vocabulary that is read from a text file."""


@dataclass(frozen=True)
class WordTexts(TokenizedTexts):
    """The word ids of N texts."""

    def batch(self, rows: NDArray[np.int64]) -> Features:
        """Return the features of ``rows``: ids and mask (B, T), and ``sentence_lengths`` (B,)."""
        return super().batch(rows) | {"sentence_lengths": torch.from_numpy(self.lengths[rows])}


class WordEmbeddings(InputModule):
    """Turns texts into word ids and ``attention_mask`` (B, T), and those into ``token_embeddings`` (B, T, D).

    Args:
        tokenizer: Splits texts into words; or a tokenizer of transformers.
        embedding_weights: The vectors (V, D), as an array, a tensor or nested lists.
        update_embeddings: Whether training changes them.
        max_seq_length: Words to which a text is cut.

    Raises:
        ValueError: The tokenizer is of another kind, or has words without a vector.
    """

    public_path = "sentence_transformers.sentence_transformer.modules.word_embeddings.WordEmbeddings"
    config_name = CONFIG_NAMES["WordEmbeddings"]
    save_in_root: ClassVar[bool] = True

    def __init__(
        self,
        tokenizer: WordTokenizer | PreTrainedTokenizerBase,
        embedding_weights: NDArray[Any] | Tensor | Sequence[Any],
        update_embeddings: bool = False,
        max_seq_length: int = 1000000,
    ) -> None:
        super().__init__()
        if isinstance(tokenizer, PreTrainedTokenizerBase):
            tokenizer = TransformersTokenizerWrapper(tokenizer)
        if not isinstance(tokenizer, WordTokenizer):
            raise ValueError(
                f"tokenizer must be a WordTokenizer or one of transformers, got {type(tokenizer).__name__}"
            )
        if not isinstance(embedding_weights, Tensor):
            embedding_weights = torch.from_numpy(np.asarray(embedding_weights))
        if embedding_weights.ndim != 2 or len(embedding_weights) < len(tokenizer.get_vocab()):
            raise ValueError(
                f"embedding_weights must have a row for each of {len(tokenizer.get_vocab())} words, got the shape "
                f"{tuple(embedding_weights.shape)}"
            )
        self.emb_layer = nn.Embedding.from_pretrained(embedding_weights.float(), freeze=not update_embeddings)
        self.embeddings_dimension: int = self.emb_layer.embedding_dim
        self.tokenizer = tokenizer
        self.update_embeddings = update_embeddings
        self.max_seq_length: int | None = max_seq_length

    def prepare(
        self,
        inputs: Sequence[Any],
        prompt: str | None = None,
        *,
        task: str | None = None,  # noqa: ARG002 (for a Router)
        on_chunk: Callable[[], None] | None = None,
    ) -> WordTexts:
        """Split texts into the words that have a vector, each after ``prompt``.

        Raises:
            TypeError: An input is a pair.
        """
        refuse_pairs(inputs, type(self).__name__)
        rows: list[list[int]] = []
        for start, end in text_chunks(inputs):
            texts = ((prompt or "") + text for text in inputs[start:end])
            rows.extend(self.tokenizer.tokenize(text)[: self.max_seq_length] for text in texts)
            if on_chunk:
                on_chunk()
        ids = np.fromiter((index for row in rows for index in row), np.int32)
        return WordTexts(ids, np.cumsum([0, *map(len, rows)], dtype=np.int64))

    def forward(self, features: Features) -> Features:
        """Add ``token_embeddings``."""
        return features | {"token_embeddings": self.emb_layer(features["input_ids"])}

    def get_embedding_dimension(self) -> int:
        """Return D."""
        return self.embeddings_dimension

    def config(self) -> dict[str, Any]:
        """Return the constructor's arguments, with the tokenizer's class in the place of the tokenizer."""
        return {
            "tokenizer_class": self.tokenizer.public_path,
            "update_embeddings": self.update_embeddings,
            "max_seq_length": self.max_seq_length,
        }

    def save(self, folder: Path) -> None:
        """Write the vectors, the config and the tokenizer to a checkpoint's folder."""
        super().save(folder)
        self.tokenizer.save(folder)

    @classmethod
    def load(cls, folder: Path, options: LoadOptions) -> Self:
        """Build the module from its folder in a checkpoint.

        Raises:
            FileNotFoundError: The vectors or the tokenizer are missing.
            ValueError: The config does not fit, or names an unknown tokenizer.
        """
        config = cls.read_config(folder)
        tokenizer = tokenizer_class(config.pop("tokenizer_class", None), folder).load(folder)
        path = weights_file(folder, options)
        weights = read_weights(path)
        if "emb_layer.weight" not in weights:
            raise ValueError(f"{str(path)!r} must hold 'emb_layer.weight', got {sorted(weights)}")
        return cls._from_config(
            {"tokenizer": tokenizer, "embedding_weights": weights["emb_layer.weight"]} | config, folder
        )

    @classmethod
    def from_text_file(
        cls,
        embeddings_file_path: str | Path,
        update_embeddings: bool = False,
        item_separator: str = " ",
        tokenizer: WordTokenizer | None = None,
        max_vocab_size: int | None = None,
    ) -> Self:
        """Build the module from a text file with a word and its D numbers on each line, as of GloVe or word2vec.

        Args:
            embeddings_file_path: The file, compressed if its name ends with ``.gz``.
            update_embeddings: Whether training changes the vectors.
            item_separator: What is between a word and its numbers.
            tokenizer: Gets the vocabulary; a `WhitespaceTokenizer` if None.
            max_vocab_size: Words to read; all if None.

        Raises:
            FileNotFoundError: There is no such file; nothing is downloaded.
            ValueError: A line has a word and no numbers, or there are no lines.
        """
        vectors: dict[str, NDArray[np.float32]] = {}
        words: list[str] = []
        with _text_lines(Path(embeddings_file_path)) as lines:
            for word, vector in _read_vectors(lines, item_separator, embeddings_file_path):
                words.append(word)
                vectors[word] = vector
                if max_vocab_size and len(words) >= max_vocab_size:
                    break
        if not words:
            raise ValueError(f"{str(embeddings_file_path)!r} must have a word and its numbers on each line, got none")
        tokenizer = tokenizer or WhitespaceTokenizer()
        tokenizer.set_vocab([PADDING_WORD, *words])
        matrix = np.stack([np.zeros_like(vectors[words[0]]), *(vectors[word] for word in words)])
        return cls(tokenizer, matrix, update_embeddings)


@contextmanager
def _text_lines(path: Path) -> Iterator[Iterable[str]]:
    if path.suffix == ".gz":
        with gzip.open(path, "rt", encoding="utf-8") as lines:
            yield lines
    else:
        with path.open(encoding="utf-8") as lines:
            yield lines


def _read_vectors(lines: Iterable[str], separator: str, path: str | Path) -> Iterator[tuple[str, NDArray[np.float32]]]:
    """Yield words and vectors; lines with more or fewer numbers than the first are left out, with a warning."""
    dimension = None
    num_skipped = 0
    for number, line in enumerate(lines, 1):
        word, *values = line.rstrip().split(separator)
        if dimension is None and len(values) == 1:
            continue  # word2vec's first line: how many words and dimensions there are
        dimension = len(values) if dimension is None else dimension
        if len(values) != dimension:
            num_skipped += 1
            continue
        try:
            yield word, np.array(values, np.float32)
        except ValueError as error:
            raise ValueError(f"line {number} of {str(path)!r} must be a word and its numbers: {error}") from error
    if num_skipped:
        logger.warning("left out %d lines of %s that do not have %s numbers", num_skipped, path, dimension)
