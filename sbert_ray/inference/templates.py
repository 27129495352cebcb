"""What a tokenizer puts around texts that are read together, and how much of each text it keeps.

So each text is tokenized once, without anything around it, however many rows have it.

Shapes: N rows, C texts of a row, S special tokens of a row, L tokens of all rows, M tokens of all distinct texts.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import chain, groupby, pairwise
from operator import itemgetter
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sbert_ray.inference.tokenized import flat_positions

_PROBES = (("a", "b"), ("0", "1"), ("\u4e00", "\u4e8c"))
"""Texts to look at templates with; a vocabulary may lack some of them."""
_BLOCK = 2**20
"""Tokens that are put together at a time, which bounds what that takes besides the result."""

Rows = tuple[NDArray[np.int32], NDArray[np.int64], NDArray[np.int32]]
"""Token ids (L,), where each row begins in them, and L (N + 1,), and type ids (L,)."""


@dataclass(frozen=True)
class Template:
    """The tokens of a row, some special and some a text's."""

    special_ids: NDArray[np.int32]
    """(S,)"""
    slots: NDArray[np.int64]
    """(S + C,), what comes one after the other: a special token as its place in ``special_ids``, text c as S + c."""
    type_ids: NDArray[np.int32]
    """(S + C,), of each slot."""

    @property
    def num_special(self) -> int:
        """S."""
        return len(self.special_ids)

    def compose(self, ids: NDArray[np.int32], starts: NDArray[np.int64], lengths: NDArray[np.int64]) -> Rows:
        """Put texts into the template.

        Args:
            ids: Tokens of texts (M,).
            starts: Where in ``ids`` the texts of each row begin (N, C).
            lengths: How many tokens each has (N, C).
        """
        num_rows = len(lengths)
        pool = np.concatenate([self.special_ids, ids])
        # For each row and slot, a slice of the pool, (N, S + C).
        special = np.broadcast_to(np.arange(self.num_special), (num_rows, self.num_special))
        begins = np.concatenate([special, starts + self.num_special], 1)[:, self.slots]
        sizes = np.concatenate([np.ones_like(special), lengths], 1)[:, self.slots]
        offsets = np.concatenate([[0], np.cumsum(sizes.sum(1))])
        composed, types = np.empty(offsets[-1], np.int32), np.empty(offsets[-1], np.int32)
        for first, last in _blocks(offsets):
            block, counts = slice(offsets[first], offsets[last]), sizes[first:last].ravel()
            composed[block] = pool[flat_positions(begins[first:last].ravel(), counts)]
            types[block] = np.repeat(np.tile(self.type_ids, last - first), counts)
        return composed, offsets, types


class Templates:
    """Finds the templates of a tokenizer, and remembers them as long as its post-processor is the same."""

    def __init__(self) -> None:
        self._found: dict[tuple[bytes, int, bool], Template] = {}

    def of(self, core: Any, num_texts: int, add_special_tokens: bool) -> Template | None:
        """Return the template of a row; None if there is none that is the same for all texts.

        Args:
            core: A tokenizer of the tokenizers library, without truncation and padding.
            num_texts: C, 1 or 2.
            add_special_tokens: Whether any are wanted.
        """
        post_processor = core.post_processor
        key = (post_processor.__getstate__() if post_processor else b"", num_texts, add_special_tokens)
        template = self._found.get(key) or _find_template(core, num_texts, add_special_tokens)
        if template is not None:
            self._found[key] = template
        return template


def _find_template(core: Any, num_texts: int, add_special_tokens: bool) -> Template | None:
    def encode(texts: Sequence[str], add_special_tokens: bool) -> Any:
        given = texts[0] if num_texts == 1 else tuple(texts[:num_texts])
        [row] = core.encode_batch_fast([given], add_special_tokens=add_special_tokens)
        return row

    for probe in _PROBES:
        parts = [row.ids for row in core.encode_batch_fast(probe, add_special_tokens=False)]
        if all(parts):
            break
    else:
        return None
    template = _template_of(encode(probe, add_special_tokens), num_texts)
    num_special = core.num_special_tokens_to_add(num_texts == 2) if add_special_tokens else 0
    if template is None or template.num_special != num_special:
        return None  # a text is left out or recurs, and some of its tokens look like special ones
    turned = parts[::-1][:num_texts]
    is_right = _gives(template, turned, encode(probe[::-1], add_special_tokens))
    return template if is_right else None


def _template_of(row: Any, num_texts: int) -> Template | None:
    special_ids: list[int] = []
    slots: list[int] = []  # texts as -1 - c
    type_ids: list[int] = []
    tokens = zip(row.sequence_ids, row.ids, row.type_ids, strict=True)
    for text, group in groupby(tokens, itemgetter(0)):
        members = list(group)
        if text is not None:
            slots.append(-1 - text)
            type_ids.append(members[0][2])
            continue
        slots += range(len(special_ids), len(special_ids) + len(members))
        special_ids += [token_id for _, token_id, _ in members]
        type_ids += [type_id for _, _, type_id in members]
    if sorted(slot for slot in slots if slot < 0) != list(range(-num_texts, 0)):
        return None
    places = [slot if slot >= 0 else len(special_ids) - 1 - slot for slot in slots]
    return Template(np.array(special_ids, np.int32), np.array(places), np.array(type_ids, np.int32))


def _gives(template: Template, parts: Sequence[Sequence[int]], row: Any) -> bool:
    lengths = np.array([list(map(len, parts))])
    flat = np.array(list(chain.from_iterable(parts)), np.int32)
    ids, _, type_ids = template.compose(flat, np.cumsum(lengths, 1) - lengths, lengths)
    return bool(ids.tolist() == row.ids and type_ids.tolist() == row.type_ids)


def _blocks(offsets: NDArray[np.int64]) -> list[tuple[int, int]]:
    """Return the first row of each block and that of the next one; rows that are longer are blocks of their own."""
    if offsets[-1] <= _BLOCK:
        return [(0, len(offsets) - 1)]
    firsts = np.searchsorted(offsets, np.arange(0, offsets[-1], _BLOCK))
    bounds = np.unique(np.append(firsts, len(offsets) - 1)).tolist()
    return list(pairwise(bounds))


def kept_lengths(counts: NDArray[np.int64], most: int | None) -> NDArray[np.int64]:
    """Return how many tokens are kept of each text (N, C), as the tokenizers library does it for the longest first.

    Args:
        counts: Tokens of each text (N, C), where C is 1 or 2.
        most: How many a row may have, special ones left out; None is no limit.
    """
    if most is None:
        return counts
    if counts.shape[1] == 1:
        return np.minimum(counts, most)
    shorter, longer = counts.min(1), counts.max(1)
    longer = np.minimum(longer, np.where(shorter > most, shorter, np.maximum(shorter, most - shorter)))
    is_over = shorter + longer > most
    shorter, longer = np.where(is_over, most // 2, shorter), np.where(is_over, most - most // 2, longer)
    is_swapped = counts[:, 0] > counts[:, 1]
    kept: NDArray[np.int64] = np.stack(
        [np.where(is_swapped, longer, shorter), np.where(is_swapped, shorter, longer)], 1
    )
    return np.minimum(kept, counts)


def undecided(counts: NDArray[np.int64], is_whole: NDArray[np.bool_], most: int | None) -> NDArray[np.bool_]:
    """Tell for which rows (N,) `kept_lengths` could depend on how long texts are of which only a prefix is counted.

    Args:
        counts: Tokens of each text or of its prefix (N, C); of a prefix they are at least ``most``.
        is_whole: Whether it is the whole text (N, C).
        most: As in `kept_lengths`.
    """
    if most is None or counts.shape[1] == 1 or most % 2 == 0:
        return np.zeros(len(counts), np.bool_)
    # Both texts are cut to half, and the longer one has one token more, or the second of equals.
    first_is_longer = (counts[:, 0] > counts[:, 1]) & is_whole[:, 1]
    second_is_not_shorter = (counts[:, 0] <= counts[:, 1]) & is_whole[:, 0]
    return ~(first_is_longer | second_is_not_shorter)
