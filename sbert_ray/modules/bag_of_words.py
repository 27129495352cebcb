"""Counts of words as an embedding, with a dimension for each word of a vocabulary.

Shapes: V words, B texts, M words of all of them.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from sbert_ray.inference.bags import TokenBags
from sbert_ray.inference.prepared import Features, rows_of_width
from sbert_ray.inference.tokenization import refuse_pairs, text_chunks
from sbert_ray.modules.module import UnlimitedModule
from sbert_ray.modules.word_tokenizers import WhitespaceTokenizer
from sbert_ray.modules.word_weights import weights_of


class BoW(UnlimitedModule):
    """Turns texts into ``sentence_embedding`` (B, V), the weight of each word of theirs, such as tf-idf.

    Args:
        vocab: The words; one that comes twice counts once.
        word_weights: Weights by word, such as the inverse document frequency.
        unknown_word_weight: The weight of words of ``vocab`` that have none.
        cumulative_term_frequency: Whether a word weighs as often as it comes.
    """

    public_path = "sentence_transformers.sentence_transformer.modules.bow.BoW"

    weights: Tensor
    """(V,)"""

    def __init__(
        self,
        vocab: Sequence[str],
        word_weights: Mapping[str, float] | None = None,
        unknown_word_weight: float = 1,
        cumulative_term_frequency: bool = True,
    ) -> None:
        super().__init__()
        self.vocab = list(dict.fromkeys(vocab))
        self.word_weights = dict(word_weights or {})
        self.unknown_word_weight = unknown_word_weight
        self.cumulative_term_frequency = cumulative_term_frequency
        weights = torch.tensor(weights_of(self.vocab, self.word_weights, unknown_word_weight), dtype=torch.float32)
        self.register_buffer("weights", weights, persistent=False)  # it is in the config
        self.tokenizer = WhitespaceTokenizer(self.vocab, stop_words=())
        self.sentence_embedding_dimension = len(self.vocab)

    def prepare(
        self,
        inputs: Sequence[Any],
        prompt: str | None = None,
        *,
        task: str | None = None,  # noqa: ARG002 (for a Router)
        on_chunk: Callable[[], None] | None = None,
    ) -> TokenBags:
        """Split texts into the words of the vocabulary, each after ``prompt``.

        Raises:
            TypeError: An input is a pair.
        """
        refuse_pairs(inputs, type(self).__name__)
        rows: list[list[int]] = []
        for start, end in text_chunks(inputs):
            rows.extend(self.tokenizer.tokenize((prompt or "") + text) for text in inputs[start:end])
            if on_chunk:
                on_chunk()
        ids = np.fromiter((index for row in rows for index in row), np.int32)
        # A row has V values, however few its words.
        max_rows = rows_of_width(max(len(self.vocab), 1))
        return TokenBags(ids, np.cumsum([0, *map(len, rows)], dtype=np.int64), max_rows)

    def forward(self, features: Features) -> Features:
        """Add ``sentence_embedding``, from ``input_ids`` (M,) and ``offsets`` (B,), where each text begins in them."""
        ids, offsets = features["input_ids"], features["offsets"]
        ends = torch.cat([offsets[1:], offsets.new_tensor([len(ids)])])
        rows = torch.repeat_interleave(torch.arange(len(offsets), device=ids.device), ends - offsets)  # (M,)
        embeddings = self.weights.new_zeros(len(offsets), len(self.vocab))
        embeddings.index_put_((rows, ids), self.weights[ids], accumulate=self.cumulative_term_frequency)
        return features | {"sentence_embedding": embeddings}

    def get_embedding_dimension(self) -> int:
        """Return V."""
        return self.sentence_embedding_dimension

    def config(self) -> dict[str, Any]:
        """Return the constructor's arguments."""
        return {
            "vocab": self.vocab,
            "word_weights": self.word_weights,
            "unknown_word_weight": self.unknown_word_weight,
            "cumulative_term_frequency": self.cumulative_term_frequency,
        }
