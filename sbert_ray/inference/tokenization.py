"""Texts to token ids, by the tokenizer's Rust core where that is known to give what the tokenizer gives."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import chain
from threading import Lock
from typing import Any

import numpy as np
from numpy.typing import NDArray
from transformers import PreTrainedTokenizerBase, TokenizersBackend

from sbert_ray.inference.tokenized import Padding, TokenizedTexts

CHUNK_ROWS = 1000
"""Texts tokenized at a time: enough to feed every thread of the Rust core, few enough to bound its memory."""
CHUNK_CHARS = 2_000_000
"""Characters tokenized at a time; the Rust core keeps the tokens that it cuts off, too."""

_NO_LIMIT = int(1e29)  # transformers' model_max_length of tokenizers without a limit is 1e30
_OVERRIDABLE = ("__call__", "_encode_plus", "_convert_encoding", "_switch_to_input_mode", "set_truncation_and_padding")

Text = str | tuple[str, str]
"""A text, or a pair of texts that a model reads together."""

_Rows = list[list[int]]


class TextTokenizer:
    """Tokenizes texts without padding; safe to use from several threads.

    Args:
        tokenizer: A tokenizer of transformers.
    """

    def __init__(self, tokenizer: PreTrainedTokenizerBase) -> None:
        self.tokenizer = tokenizer
        self._lock = Lock()  # the Rust core's truncation is state, and a call while another changes it fails
        self._is_plain = isinstance(tokenizer, TokenizersBackend) and all(
            getattr(type(tokenizer), name, None) is getattr(TokenizersBackend, name, None) for name in _OVERRIDABLE
        )

    def __reduce__(self) -> tuple[type["TextTokenizer"], tuple[PreTrainedTokenizerBase]]:
        return TextTokenizer, (self.tokenizer,)  # a lock can be neither copied nor pickled

    def __call__(
        self,
        texts: Sequence[Text],
        prompt: str | None = None,
        on_chunk: Callable[[], None] | None = None,
        *,
        add_special_tokens: bool = True,
        truncate: bool = True,
    ) -> TokenizedTexts:
        """Tokenize texts, each after ``prompt``, cut to the tokenizer's ``model_max_length``.

        Args:
            texts: N texts, or N pairs, of which the longer text is cut first.
            prompt: Put before each, in a pair before the first text.
            on_chunk: Called now and then, after some texts.
            add_special_tokens: Whether to add those that the tokenizer puts around a text.
            truncate: Whether to cut them.

        Raises:
            ValueError: A text is not valid Unicode; the message names its row.
        """
        texts = with_prompt(texts, prompt)
        ids: list[NDArray[np.int32]] = []
        type_ids: list[NDArray[np.int32]] = []
        lengths: list[int] = []
        for start, end in text_chunks(texts):
            rows, row_types = self._encode(list(texts[start:end]), start, add_special_tokens, truncate)
            lengths.extend(map(len, rows))
            ids.append(_flat(rows))
            type_ids.append(_flat(row_types))
            if on_chunk:
                on_chunk()
        return TokenizedTexts(
            ids=_joined(ids),
            offsets=np.concatenate([[0], np.cumsum(lengths, dtype=np.int64)]),
            type_ids=_joined(type_ids) if "token_type_ids" in self.tokenizer.model_input_names else None,
            prompt_length=self._prompt_length(prompt) if prompt else None,
            padding=self.padding,
        )

    @property
    def padding(self) -> Padding:
        """How the tokenizer pads; where it has no padding token, the mask alone tells padding."""
        tokenizer = self.tokenizer
        return Padding(tokenizer.pad_token_id or 0, tokenizer.pad_token_type_id, tokenizer.padding_side)

    def _encode(
        self, texts: list[Text], start: int, add_special_tokens: bool = True, truncate: bool = True
    ) -> tuple[_Rows, _Rows]:
        encode = self._encode_plain if self._is_plain else self._encode_any
        try:
            with self._lock:
                return encode(texts, add_special_tokens, truncate)
        except TypeError:  # what the Rust core says of a lone surrogate
            refuse_surrogates(texts, start)
            raise

    def _encode_plain(self, texts: list[Text], add_special_tokens: bool, truncate: bool) -> tuple[_Rows, _Rows]:
        tokenizer: Any = self.tokenizer
        core = tokenizer.backend_tokenizer
        if core.padding is not None:
            core.no_padding()
        self._set_truncation(core, truncate)
        if core.encode_special_tokens != tokenizer.split_special_tokens:
            core.encode_special_tokens = tokenizer.split_special_tokens
        encodings = core.encode_batch_fast(texts, add_special_tokens=add_special_tokens)
        needs_types = "token_type_ids" in tokenizer.model_input_names
        return [row.ids for row in encodings], [row.type_ids for row in encodings] if needs_types else []

    def _set_truncation(self, core: Any, truncate: bool) -> None:
        limit = self.tokenizer.model_max_length if truncate else None
        if limit is None or limit > _NO_LIMIT:
            core.no_truncation()
            return
        wanted = {"max_length": limit, "stride": 0, "strategy": "longest_first"}
        wanted["direction"] = self.tokenizer.truncation_side
        if core.truncation is None or {name: core.truncation.get(name) for name in wanted} != wanted:
            core.enable_truncation(**wanted)

    def _encode_any(self, texts: list[Text], add_special_tokens: bool, truncate: bool) -> tuple[_Rows, _Rows]:
        batch = self.tokenizer(texts, padding=False, truncation=truncate, add_special_tokens=add_special_tokens)
        return batch["input_ids"], batch.get("token_type_ids", [])

    def _prompt_length(self, prompt: str) -> int:
        [ids], _ = self._encode([prompt], 0)
        return len(ids) - int(bool(ids) and ids[-1] in self.tokenizer.all_special_ids)


def with_prompt(texts: Sequence[Text], prompt: str | None) -> Sequence[Text]:
    """Return texts, each after ``prompt``, and pairs, the first text of each after it."""
    if not prompt:
        return texts
    return [prompt + text if isinstance(text, str) else (prompt + text[0], text[1]) for text in texts]


def refuse_pairs(texts: Sequence[Text], reader: str) -> None:
    """Refuse pairs, for modules that read words of single texts.

    Raises:
        TypeError: There is one; the message names its row, and the reader.
    """
    for row, text in enumerate(texts):
        if not isinstance(text, str):
            raise TypeError(f"{reader} reads texts and no pairs; row {row} is a {type(text).__name__}")


def refuse_surrogates(texts: Sequence[Text], start: int) -> None:
    """Refuse texts that are not valid Unicode.

    Args:
        texts: Texts or pairs.
        start: The row of the first one.

    Raises:
        ValueError: A text has a lone surrogate; the message names its row.
    """
    for row, text in enumerate(texts, start):
        if any("\ud800" <= char <= "\udfff" for char in "".join(text)):
            raise ValueError(f"inputs must be valid Unicode; row {row} has a lone surrogate") from None


def text_chunks(texts: Sequence[Text]) -> Iterator[tuple[int, int]]:
    """Yield where each chunk of texts begins and ends that is tokenized at a time."""
    start = num_chars = 0
    for row, text in enumerate(texts):
        length = len(text) if isinstance(text, str) else len(text[0]) + len(text[1])
        if row - start >= CHUNK_ROWS or (row > start and num_chars + length > CHUNK_CHARS):
            yield start, row
            start, num_chars = row, 0
        num_chars += length
    if start < len(texts):
        yield start, len(texts)


def _flat(rows: Iterable[Iterable[int]]) -> NDArray[np.int32]:
    return np.fromiter(chain.from_iterable(rows), np.int32)


def _joined(parts: list[NDArray[np.int32]]) -> NDArray[np.int32]:
    return np.concatenate(parts) if parts else np.empty(0, np.int32)
