"""What goes around texts, and how they are cut, as the Rust core does it."""

from typing import Any

import numpy as np
import pytest
from tokenizers import processors

from benchmarks.architectures import ARCHITECTURES
from sbert_ray.inference import templates
from sbert_ray.inference.templates import Template, Templates, kept_lengths, undecided
from tests.sbert_ray.inference.nasty import byte_level

LENGTHS = np.array([(first, second) for first in range(14) for second in range(14)])


def with_template(pair: str) -> Any:
    core = byte_level()
    special = [(token, core.token_to_id(token)) for token in ("<s>", "</s>")]
    core.post_processor = processors.TemplateProcessing(single="<s> $A </s>", pair=pair, special_tokens=special)
    return core


@pytest.mark.parametrize("side", ["right", "left"])
@pytest.mark.parametrize("most", range(13))
def test_as_much_is_kept_of_each_text_as_the_rust_core_keeps(most: int, side: str) -> None:
    core = byte_level()
    core.enable_truncation(most, direction=side)
    rows = core.encode_batch_fast([(" a" * first, " b" * second) for first, second in LENGTHS.tolist()])
    expected = [(row.sequence_ids.count(0), row.sequence_ids.count(1)) for row in rows]
    np.testing.assert_array_equal(kept_lengths(LENGTHS, most), expected)
    np.testing.assert_array_equal(kept_lengths(LENGTHS[:, :1], most), np.minimum(LENGTHS[:, :1], most))
    np.testing.assert_array_equal(kept_lengths(LENGTHS, None), LENGTHS)


@pytest.mark.parametrize("most", range(1, 10))
def test_a_row_is_undecided_if_more_of_a_prefix_could_change_what_is_kept(most: int) -> None:
    for is_whole in ((True, True), (True, False), (False, True), (False, False)):
        known = np.array([row for row in LENGTHS if all(row[~np.array(is_whole)] >= most)])
        kept = kept_lengths(known, most)
        changes = np.zeros(len(known), bool)
        for more in ((0, 1), (1, 0), (0, 99), (99, 0), (99, 99), (98, 99), (99, 98)):
            longer = known + np.where(is_whole, 0, more)
            changes |= (kept_lengths(longer, most) != kept).any(1)
        flags = undecided(known, np.broadcast_to(is_whole, known.shape), most)
        assert (flags | ~changes).all(), "what may change is undecided"
        if most % 2 == 1 and is_whole != (False, False):
            assert (~flags | changes | (known[:, 0] == known[:, 1])).all(), "and little else"


@pytest.mark.parametrize("add_special_tokens", [True, False])
@pytest.mark.parametrize("kind", ["BERT", "RoBERTa", "XLNet", "Llama", "Pegasus", "Qwen3", "T5"])
def test_composing_gives_what_the_rust_core_gives(kind: str, add_special_tokens: bool) -> None:
    core = ARCHITECTURES[kind].tokenizer().backend_tokenizer
    core.no_truncation()
    check(core, add_special_tokens)


@pytest.mark.parametrize(
    "pair", ["<s> $A </s> $B:1 </s>:1", "$B:1 <s> $A", "<s>:3 </s>:4 $B $A:2 </s>:5", "$A $B"], ids=str
)
def test_templates_may_be_odd(pair: str) -> None:
    check(with_template(pair), True)


def check(core: Any, add_special_tokens: bool) -> None:
    texts = ["", "a", "the number of rows", "def", "b"]
    encode = core.encode_batch_fast
    contents = [row.ids for row in encode(texts, add_special_tokens=False)]
    lengths = np.array(list(map(len, contents)))
    ends = np.cumsum(lengths)
    places = np.array([(first, second) for first in range(5) for second in range(5)])
    flat = np.array([token for row in contents for token in row], np.int32)
    for num_texts in (1, 2):
        used = places[:, :num_texts]
        given: list[Any] = [tuple(texts[place] for place in row) for row in used.tolist()]
        rows = encode([row[0] for row in given] if num_texts == 1 else given, add_special_tokens=add_special_tokens)
        template = Templates().of(core, num_texts, add_special_tokens)
        assert template is not None
        ids, offsets, type_ids = template.compose(flat, (ends - lengths)[used], lengths[used])
        assert ids.tolist() == [token for row in rows for token in row.ids]
        assert type_ids.tolist() == [type_id for row in rows for type_id in row.type_ids]
        assert np.diff(offsets).tolist() == [len(row.ids) for row in rows]
        assert (ids.dtype, offsets.dtype, type_ids.dtype) == (np.int32, np.int64, np.int32)


@pytest.mark.parametrize("pair", ["$A $B $A", "$A $A $B", "$A </s> $B $B:1"])
def test_a_template_that_has_not_each_text_once_is_none(pair: str) -> None:
    assert Templates().of(with_template(pair), 2, True) is None


def test_another_post_processor_is_noticed() -> None:
    core, known = with_template("$A </s> $B"), Templates()
    first, again = known.of(core, 2, True), known.of(core, 2, True)
    assert first is again is not None
    core.post_processor = with_template("<s> $A $B </s>").post_processor
    second = known.of(core, 2, True)
    assert second is not None
    assert (first.num_special, second.num_special) == (1, 2)


def test_blocks_do_not_show(monkeypatch: pytest.MonkeyPatch) -> None:
    template = Template(np.array([7, 8], np.int32), np.array([0, 2, 1, 3]), np.array([0, 0, 1, 1], np.int32))
    ids = np.arange(100, 150, dtype=np.int32)
    lengths = LENGTHS[::-3] % 7
    starts = LENGTHS[::3]
    whole = template.compose(ids, starts, lengths)
    monkeypatch.setattr(templates, "_BLOCK", 10)
    for part, expected in zip(template.compose(ids, starts, lengths), whole, strict=True):
        np.testing.assert_array_equal(part, expected)


def test_no_rows_are_composed_of_nothing() -> None:
    template = Template(np.array([7], np.int32), np.array([0, 1]), np.array([0, 0], np.int32))
    none = np.empty((0, 1), np.int64)
    ids, offsets, type_ids = template.compose(np.empty(0, np.int32), none, none)
    assert (len(ids), offsets.tolist(), len(type_ids)) == (0, [0], 0)
