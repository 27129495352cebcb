"""Texts to token ids, by the tokenizer's Rust core where that is known to give what the tokenizer gives.

Each text is tokenized once and alone. What belongs around it, how it is cut, and how pairs are put together follows in
NumPy, as the tokenizer would do it.

Shapes: N rows, C texts of a row, U distinct texts, M tokens of them.
"""

import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from itertools import chain
from threading import Lock
from typing import Any

import numpy as np
from numpy.typing import NDArray
from transformers import PreTrainedTokenizerBase, TokenizersBackend

from sbert_ray.inference.distinct import Distinct, distinct
from sbert_ray.inference.prefixes import Boundaries, prefix
from sbert_ray.inference.templates import Rows, Template, Templates, kept_lengths, undecided
from sbert_ray.inference.tokenized import Padding, TokenizedTexts

CHUNK_ROWS = 1000
"""Texts tokenized at a time: enough to feed every thread of the Rust core, few enough to bound its memory."""
CHUNK_CHARS = 2_000_000
"""Characters tokenized at a time; the Rust core keeps the tokens that are cut off, too."""
CHARS_PER_TOKEN = 8
"""Characters read of a long text at first, for each token that is kept; few texts take more."""

_NO_LIMIT = int(1e29)  # transformers' model_max_length of tokenizers without a limit is 1e30
_OVERRIDABLE = ("__call__", "_encode_plus", "_convert_encoding", "_switch_to_input_mode", "set_truncation_and_padding")

Text = str | tuple[str, str]
"""A text, or a pair of texts that a model reads together."""


class TextTokenizer:
    """Tokenizes texts without padding; safe to use from several threads.

    Args:
        tokenizer: A tokenizer of transformers.
    """

    def __init__(self, tokenizer: PreTrainedTokenizerBase) -> None:
        self.tokenizer = tokenizer
        self._lock = Lock()  # the Rust core's settings are state, and a call while another changes them fails
        self._templates = Templates()
        self._boundaries = Boundaries()
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
        limit = self.tokenizer.model_max_length if truncate else None
        limit = None if limit is None or limit > _NO_LIMIT else limit
        on_chunk = on_chunk or (lambda: None)
        try:
            rows = self._compose(texts, prompt, on_chunk, limit, add_special_tokens) if self._is_plain else None
            if rows is None:
                rows = self._ask(with_prompt(texts, prompt), on_chunk, limit, add_special_tokens)
        except (TypeError, UnicodeEncodeError):  # what the Rust core and Python say of a lone surrogate
            refuse_surrogates(with_prompt(texts, prompt), 0)
            raise
        ids, offsets, type_ids = rows
        return TokenizedTexts(
            ids=ids,
            offsets=offsets,
            type_ids=type_ids if self._has_types else None,
            prompt_length=self._prompt_length(prompt) if prompt else None,
            padding=self.padding,
        )

    @property
    def padding(self) -> Padding:
        """How the tokenizer pads; where it has no padding token, the mask alone tells padding."""
        tokenizer = self.tokenizer
        return Padding(tokenizer.pad_token_id or 0, tokenizer.pad_token_type_id, tokenizer.padding_side)

    @property
    def _has_types(self) -> bool:
        return "token_type_ids" in self.tokenizer.model_input_names

    def _compose(
        self,
        texts: Sequence[Text],
        prompt: str | None,
        on_chunk: Callable[[], None],
        limit: int | None,
        add_special_tokens: bool,
    ) -> Rows | None:
        """Tokenize each text alone and put special tokens around; None where the tokenizer must be asked itself."""
        columns = _columns(texts)
        if columns is None:
            return None
        with self._core() as core:
            template = self._templates.of(core, len(columns), add_special_tokens)
        if template is None or (limit is not None and limit < template.num_special):
            return None
        most = None if limit is None else limit - template.num_special
        columns[0] = [prompt + text for text in columns[0]] if prompt else columns[0]
        return self._rows(columns, template, most, on_chunk)

    def _rows(
        self, columns: list[list[str]], template: Template, most: int | None, on_chunk: Callable[[], None]
    ) -> Rows:
        if len(columns) == 1:  # whether whole inputs recur is the engine's business
            texts = Distinct(columns[0], np.arange(len(columns[0])))
        else:
            texts = distinct(list(chain.from_iterable(columns)))  # a query recurs with each of its documents
        places = texts.rows.reshape(len(columns), -1).T  # (N, C), of U
        reader = self._reader(texts.values, most)
        contents = reader.read(texts.values, on_chunk)
        unsure = undecided(contents.counts[places], contents.is_whole[places], most)
        if unsure.any():
            cut = np.setdiff1d(places[unsure], np.flatnonzero(contents.is_whole))
            contents.counts[cut] = replace(reader, boundary=None).read([texts.values[place] for place in cut]).counts
        kept = kept_lengths(contents.counts[places], most)
        is_right = self.tokenizer.truncation_side == "right"
        starts = contents.offsets[places] if is_right else contents.offsets[places + 1] - kept
        return template.compose(contents.ids, starts, kept)

    def _reader(self, texts: Sequence[str], most: int | None) -> "_Reader":
        side, boundary = self.tokenizer.truncation_side, None
        if most is not None and side == "right" and max(map(len, texts), default=0) > most * CHARS_PER_TOKEN:
            with self._core() as core:
                boundary = self._boundaries.of(core)
        return _Reader(self._encode, most, side, boundary)

    def _encode(self, texts: Sequence[str]) -> list[Any]:
        with self._core() as core:
            encodings: list[Any] = core.encode_batch_fast(texts, add_special_tokens=False)
        return encodings

    @contextmanager
    def _core(self) -> Iterator[Any]:
        """Give the Rust core, which neither cuts nor pads, to one thread at a time."""
        tokenizer: Any = self.tokenizer
        core = tokenizer.backend_tokenizer
        with self._lock:
            if core.padding is not None:
                core.no_padding()
            if core.truncation is not None:
                core.no_truncation()
            if core.encode_special_tokens != tokenizer.split_special_tokens:
                core.encode_special_tokens = tokenizer.split_special_tokens
            yield core

    def _ask(
        self, texts: Sequence[Text], on_chunk: Callable[[], None], limit: int | None, add_special_tokens: bool
    ) -> Rows:
        """Let the tokenizer itself do it all."""
        ids: list[list[int]] = []
        type_ids: list[list[int]] = []
        for start, end in text_chunks(texts):
            with self._lock:
                batch = self.tokenizer(
                    list(texts[start:end]),
                    padding=False,
                    truncation=limit is not None,
                    add_special_tokens=add_special_tokens,
                )
            ids += batch["input_ids"]
            type_ids += batch.get("token_type_ids", [])
            on_chunk()
        return _flat(ids), _offsets(ids), _flat(type_ids)

    def _prompt_length(self, prompt: str) -> int:
        ids = self([prompt]).ids.tolist()
        return len(ids) - int(bool(ids) and ids[-1] in self.tokenizer.all_special_ids)


@dataclass(frozen=True)
class _Contents:
    """Tokens of U texts, without any around them."""

    ids: NDArray[np.int32]
    """(M,), of each text no more than asked for"""
    offsets: NDArray[np.int64]
    """(U + 1,), where each text begins in ``ids``, and M"""
    counts: NDArray[np.int64]
    """(U,), tokens of each text before it is cut; of long texts, of the prefix that was read"""
    is_whole: NDArray[np.bool_]
    """(U,), whether all of a text was read"""


@dataclass(frozen=True)
class _Reader:
    """Tokenizes texts, of long ones no more than it takes."""

    encode: Callable[[Sequence[str]], list[Any]]
    most: int | None
    """Tokens that are kept of each text."""
    side: str
    """Where texts are cut that have more."""
    boundary: re.Pattern[str] | None
    """Where they may be cut before that."""

    def read(self, texts: Sequence[str], on_chunk: Callable[[], None] = lambda: None) -> _Contents:
        """Tokenize texts."""
        size = CHARS_PER_TOKEN * max(self.most or 0, 1)
        flat: list[NDArray[np.int32]] = []
        rows: list[tuple[int, int, bool]] = []
        for start, end in text_chunks(texts, size if self.boundary else None):
            chunk = self._read_chunk(texts[start:end], [size] * (end - start))
            flat.append(_flat([ids for ids, _, _ in chunk]))
            rows += [(len(ids), count, is_whole) for ids, count, is_whole in chunk]
            on_chunk()
        lengths, counts, is_whole = np.array(rows, np.int64).reshape(-1, 3).T
        offsets = np.concatenate([[0], np.cumsum(lengths)])
        return _Contents(np.concatenate([*flat, np.empty(0, np.int32)]), offsets, counts, is_whole.astype(np.bool_))

    def _read_chunk(self, texts: Sequence[str], sizes: Sequence[int]) -> list[tuple[list[int], int, bool]]:
        """Return of each text its tokens, how many there were before they were cut, and whether all of it was read.

        Args:
            texts: Texts.
            sizes: How many characters of each to read at least; twice as many where too few tokens come of them.
        """
        parts = list(map(self._part, texts, sizes))
        rows: list[tuple[list[int], int, bool]] = []
        for start, end in text_chunks(parts):
            rows += map(self._row, self.encode(parts[start:end]), parts[start:end], texts[start:end])
        short = [row for row, (_, count, is_whole) in enumerate(rows) if not is_whole and count < (self.most or 0)]
        if short:
            again = self._read_chunk([texts[row] for row in short], [2 * len(parts[row]) for row in short])
            for row, found in zip(short, again, strict=True):
                rows[row] = found
        return rows

    def _part(self, text: str, size: int) -> str:
        if self.boundary is None or len(text) <= size:
            return text
        if not text.isascii():
            text.encode()  # lest a lone surrogate be a mistake in short texts only
        return prefix(text, size, self.boundary)

    def _row(self, encoding: Any, part: str, text: str) -> tuple[list[int], int, bool]:
        ids: list[int] = encoding.ids
        count = len(ids)
        if self.most is not None and count > self.most:
            ids = ids[: self.most] if self.side == "right" else ids[count - self.most :]
        return ids, count, len(part) == len(text)


def _columns(texts: Sequence[Text]) -> list[list[str]] | None:
    """Return texts as one column, pairs as two, and None for what is a mixture."""
    kinds = set(map(type, texts))
    if all(issubclass(kind, str) for kind in kinds):
        return [list(texts)]  # type: ignore[arg-type]
    if all(issubclass(kind, (tuple, list)) for kind in kinds) and set(map(len, texts)) == {2}:
        return [list(column) for column in zip(*texts, strict=True)]
    return None


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


def text_chunks(texts: Sequence[Text], most: int | None = None) -> Iterator[tuple[int, int]]:
    """Yield where each chunk of texts begins and ends that is tokenized at a time.

    Args:
        texts: Texts or pairs.
        most: About how many characters are read of a text.
    """
    start = num_chars = 0
    for row, text in enumerate(texts):
        length = len(text) if isinstance(text, str) else len(text[0]) + len(text[1])
        length = length if most is None else min(length, most)
        if row - start >= CHUNK_ROWS or (row > start and num_chars + length > CHUNK_CHARS):
            yield start, row
            start, num_chars = row, 0
        num_chars += length
    if start < len(texts):
        yield start, len(texts)


def _flat(rows: Iterable[Iterable[int]]) -> NDArray[np.int32]:
    return np.fromiter(chain.from_iterable(rows), np.int32)


def _offsets(rows: Iterable[Sequence[int]]) -> NDArray[np.int64]:
    return np.concatenate([[0], np.cumsum([len(row) for row in rows], dtype=np.int64)])
