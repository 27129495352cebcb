"""Where long texts may be cut: what is before a boundary is tokenized as in the whole text."""

import random
import unicodedata
from collections.abc import Callable
from typing import Any

import pytest
from tokenizers import AddedToken, Regex, Tokenizer, normalizers, pre_tokenizers

from sbert_ray.inference import prefixes
from sbert_ray.inference.prefixes import Boundaries, prefix
from tests.sbert_ray.inference.nasty import CORES, QWEN3, byte_level, nasty_text, precompiled, unigram


def ids(core: Tokenizer, texts: list[str]) -> list[list[int]]:
    return [encoding.ids for encoding in core.encode_batch_fast(texts, add_special_tokens=False)]


@pytest.mark.parametrize("kind", CORES)
def test_what_is_before_a_boundary_is_tokenized_as_in_the_whole_text(kind: str) -> None:
    core = CORES[kind]()
    core.no_truncation()
    boundary = Boundaries().of(core)
    assert boundary is not None
    rng = random.Random(kind)
    texts = [nasty_text(rng, 80) for _ in range(300)]
    ends = [(row, found.end()) for row, text in enumerate(texts) for found in boundary.finditer(text)]
    assert len(ends) > 100
    whole, parts = ids(core, texts), ids(core, [texts[row][:end] for row, end in ends])
    for (row, end), part in zip(ends, parts, strict=True):
        assert whole[row][: len(part)] == part, texts[row][:end]


def test_the_normalizer_of_sentence_piece_is_as_meant() -> None:
    assert precompiled().normalize_str("\ufb01sh\u3000e\u0301\u200bx\uff0c") == "fish \u00e9x,"


SPLIT_BEHIND = pre_tokenizers.Split(" ", "merged_with_previous")


def with_dropout() -> Tokenizer:
    core = byte_level()
    core.model.dropout = 0.1
    return core


class InPython:
    """A pre-tokenizer that no other program can read."""

    def pre_tokenize(self, pretok: Any) -> None: ...


@pytest.mark.parametrize(
    "build",
    [
        pytest.param(lambda: unigram(pre_tokenizer=pre_tokenizers.Metaspace(split=False)), id="no splits"),
        pytest.param(lambda: unigram(normalizers.Replace(" ", "\u2581"), SPLIT_BEHIND), id="Gemma"),
        pytest.param(lambda: byte_level(QWEN3.replace(r"\p{N}|", r"\p{N}+ \p{N}+|")), id="unknown pattern"),
        pytest.param(lambda: byte_level(r"[\p{L}]+|[\p{N}]"), id="spaces stay with what is before"),
        pytest.param(lambda: byte_level(pre_tokenizer=pre_tokenizers.Digits()), id="digits only"),
        pytest.param(
            lambda: byte_level(pre_tokenizer=pre_tokenizers.ByteLevel(use_regex=False)), id="bytes without splits"
        ),
        pytest.param(lambda: byte_level(normalizer=normalizers.Replace(Regex("a b"), "c")), id="unknown normalizer"),
        pytest.param(lambda: byte_level(normalizer=normalizers.Replace("b c", "d")), id="literal with a space"),
        pytest.param(lambda: byte_level(normalizer=normalizers.Replace(" ", "")), id="spaces vanish"),
        pytest.param(lambda: byte_level(normalizer=normalizers.Replace(" ", "\u2581")), id="spaces are marks"),
        pytest.param(lambda: byte_level(normalizer=normalizers.ByteLevel()), id="bytes by the normalizer"),
        pytest.param(lambda: byte_level(added=[AddedToken("new york")]), id="token with a space"),
        pytest.param(
            lambda: unigram(
                normalizers.Replace("_", " "), pre_tokenizers.Metaspace(), [AddedToken("a_b", normalized=True)]
            ),
            id="token that is normalized to one with a space",
        ),
        pytest.param(with_dropout, id="dropout"),
        pytest.param(
            lambda: byte_level(pre_tokenizer=pre_tokenizers.PreTokenizer.custom(InPython())), id="written in Python"
        ),
    ],
)
def test_there_are_none_where_that_cannot_be_told(build: Callable[[], Tokenizer]) -> None:
    assert Boundaries().of(build()) is None


@pytest.mark.parametrize(
    "build",
    [
        pytest.param(lambda: byte_level(added=[AddedToken("\u3002")]), id="token"),
        pytest.param(lambda: byte_level(normalizer=normalizers.Replace("\u3002", ".")), id="unknown normalizer"),
        pytest.param(lambda: unigram(pre_tokenizer=pre_tokenizers.Metaspace()), id="no split"),
    ],
)
def test_punctuation_is_none_where_it_may_be_part_of_a_word(build: Callable[[], Tokenizer]) -> None:
    text = "\u4e2d\u56fd\u3002\u65e5\u672c"
    boundary, usual = Boundaries().of(build()), Boundaries().of(byte_level())
    assert boundary is None or not boundary.search(text)
    assert usual is not None
    assert usual.search(text)


def test_a_new_token_is_noticed() -> None:
    core, boundaries = byte_level(), Boundaries()
    assert boundaries.of(core) is boundaries.of(core) is not None
    core.add_tokens(["new york"])
    assert boundaries.of(core) is None


def test_letters_neither_combine_nor_extend_what_is_before() -> None:
    letters = prefixes._members(prefixes._LETTERS) + prefixes._members(prefixes._IDEOGRAPHS)
    assert all(unicodedata.category(letter)[0] == "L" or letter.isdecimal() for letter in letters)
    assert not any(map(unicodedata.combining, letters))
    assert "\u0e33" not in letters, "a vowel that extends, though it is a letter"
    ideographs = "".join(prefixes._members(prefixes._IDEOGRAPHS))
    assert all(unicodedata.normalize(form, ideographs) == ideographs for form in ("NFC", "NFD", "NFKC", "NFKD"))


def test_a_prefix_ends_at_a_boundary_after_its_size() -> None:
    boundary = Boundaries().of(byte_level())
    assert boundary is not None
    text = "some words and others"
    assert prefix(text, 6, boundary) == "some words"
    assert prefix(text, 9, boundary) == "some words and"
    assert prefix(text, 16, boundary) == text
    assert prefix(text, 100, boundary) == text
    assert prefix("x" * 1000 + " and more", 3, boundary) == "x" * 1000
