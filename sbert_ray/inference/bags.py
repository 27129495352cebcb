"""Texts as bags of tokens: ids of one text after the other, which no model pads.

Shapes: N texts, L tokens of all texts together, B texts of a batch, M tokens of all texts of a batch.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import chain

import numpy as np
import torch
from numpy.typing import NDArray
from tokenizers import Tokenizer

from sbert_ray.inference.prepared import Features
from sbert_ray.inference.tokenization import Text, refuse_surrogates, text_chunks, with_prompt
from sbert_ray.inference.tokenized import flat_positions


@dataclass(frozen=True)
class TokenBags:
    """The token ids of N texts; a text may have none."""

    ids: NDArray[np.int32]
    """(L,)"""
    offsets: NDArray[np.int64]
    """(N + 1,), where each text begins in ``ids``, and L"""
    max_rows: int | None = None
    """The most rows of a batch, for modules that make much of few tokens."""

    def __len__(self) -> int:
        return len(self.offsets) - 1

    @cached_property
    def lengths(self) -> NDArray[np.int64]:
        """Tokens of each text (N,)."""
        return np.diff(self.offsets)

    def num_positions(self, rows: NDArray[np.int64]) -> int:
        """Return the tokens of ``rows``: there is no padding."""
        return int(self.lengths[rows].sum())

    def batch(self, rows: NDArray[np.int64]) -> Features:
        """Return the features of ``rows``: ``input_ids`` (M,) and ``offsets`` (B,), where each text begins in them."""
        lengths = self.lengths[rows]
        ids = self.ids[flat_positions(self.offsets[rows], lengths)].astype(np.int64)
        return {"input_ids": torch.from_numpy(ids), "offsets": torch.from_numpy(np.cumsum(lengths) - lengths)}


def tokenize_bags(
    tokenizer: Tokenizer,
    texts: Sequence[Text],
    prompt: str | None = None,
    on_chunk: Callable[[], None] | None = None,
) -> TokenBags:
    """Tokenize texts without special tokens, each after ``prompt``, as long as the tokenizer's own settings let them.

    It changes no settings of the tokenizer, so several threads may share it.

    Args:
        tokenizer: A tokenizer of the tokenizers library that does not pad.
        texts: N texts, or pairs, whose bag is that of both texts.
        prompt: Put before each, in a pair before the first text.
        on_chunk: Called now and then, after some texts.

    Raises:
        ValueError: A text is not valid Unicode; the message names its row.
    """
    parts: list[NDArray[np.int32]] = [np.empty(0, np.int32)]
    lengths: list[int] = []
    for start, end in text_chunks(texts):
        chunk = list(with_prompt(texts[start:end], prompt))
        try:
            encodings = tokenizer.encode_batch_fast(chunk, add_special_tokens=False)
        except TypeError:
            refuse_surrogates(chunk, start)
            raise
        rows = [encoding.ids for encoding in encodings]
        lengths.extend(map(len, rows))
        parts.append(np.fromiter(chain.from_iterable(rows), np.int32))
        if on_chunk:
            on_chunk()
    return TokenBags(np.concatenate(parts), np.concatenate([[0], np.cumsum(lengths, dtype=np.int64)]))
