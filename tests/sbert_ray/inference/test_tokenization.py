"""Tokenizing: the Rust core gives what the tokenizer gives, and other tokenizers are asked themselves."""

import random
import threading
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tokenizers import processors
from transformers import AutoTokenizer, BertTokenizer, PreTrainedTokenizerFast

from benchmarks.architectures import ARCHITECTURES
from sbert_ray.inference.tokenization import Text, TextTokenizer
from tests.sbert_ray.inference.nasty import CORES, nasty_text, unigram

TEXTS = [
    "a cat",
    "",
    "the fast dog ran on the mat",
    "zebra [SEP] crossing",
    "the " * 50,
    "caf\u00e9 \U0001f642 \u4f60\u597d",
]


@pytest.mark.parametrize("side", ["right", "left"])
@pytest.mark.parametrize("limit", [6, 512])
def test_equals_the_tokenizers_own_call(side: str, limit: int, minilm: Path) -> None:
    tokenizer = AutoTokenizer.from_pretrained(minilm, padding_side=side, truncation_side=side, model_max_length=limit)
    tokens = TextTokenizer(tokenizer)(TEXTS)
    batch = tokens.batch(np.arange(len(TEXTS)))
    expected = tokenizer(TEXTS, padding=True, truncation=True, return_tensors="np")
    assert batch.keys() == expected.keys()
    for name, values in expected.items():
        np.testing.assert_array_equal(batch[name], values)


def test_other_uses_of_the_tokenizer_do_not_matter(minilm: Path) -> None:
    tokenizer = AutoTokenizer.from_pretrained(minilm)
    tokenize = TextTokenizer(tokenizer)
    before = tokenize(TEXTS)
    tokenizer(TEXTS, padding="max_length", truncation=True, max_length=4)
    np.testing.assert_array_equal(tokenize(TEXTS).ids, before.ids)


class ShoutingTokenizer(BertTokenizer):
    """A tokenizer with a way of its own."""

    def _encode_plus(self, text: list[str], *args: object, **kwargs: object) -> object:
        return super()._encode_plus([f"{one} dog" for one in text], *args, **kwargs)


def test_a_tokenizer_with_a_way_of_its_own_is_asked_itself(minilm: Path) -> None:
    plain, own = BertTokenizer.from_pretrained(minilm), ShoutingTokenizer.from_pretrained(minilm)
    expected = TextTokenizer(plain)(["a cat dog", "red dog"])
    np.testing.assert_array_equal(TextTokenizer(own)(["a cat", "red"]).ids, expected.ids)


def test_counts_the_tokens_of_the_prompt(minilm: Path) -> None:
    tokenize = TextTokenizer(AutoTokenizer.from_pretrained(minilm))
    assert tokenize(["cat"], "a red ").prompt_length == 3  # [CLS] a red
    assert tokenize(["cat"]).prompt_length is None
    assert tokenize(["cat"], "").prompt_length is None


def test_chunks_do_not_show(minilm: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tokenize = TextTokenizer(AutoTokenizer.from_pretrained(minilm))
    whole = tokenize(TEXTS)
    for name, limit in {"CHUNK_ROWS": 2, "CHUNK_CHARS": 30}.items():
        monkeypatch.setattr(f"sbert_ray.inference.tokenization.{name}", limit)
        parts = tokenize(TEXTS)
        np.testing.assert_array_equal(parts.ids, whole.ids)
        np.testing.assert_array_equal(parts.offsets, whole.offsets)
    assert len(tokenize([])) == 0


def check(tokenize: TextTokenizer, texts: Sequence[Any], **options: Any) -> None:
    """Compare with what the tokenizer itself gives."""
    tokens = tokenize(texts, **options)
    expected = tokenize.tokenizer(list(texts), truncation=options.pop("truncate", True), **options)
    rows = np.split(tokens.ids, tokens.offsets[1:-1])
    assert [row.tolist() for row in rows] == expected["input_ids"]
    assert (tokens.ids.dtype, tokens.offsets.dtype) == (np.int32, np.int64)
    if tokens.type_ids is not None:
        assert tokens.type_ids.tolist() == [type_id for row in expected["token_type_ids"] for type_id in row]


SHORT = [
    *("", "a", "the cat", "the number of rows", "na\u00efve caf\u00e9 \U0001f642", "[SEP] <s> </s> <mask> x"),
    *(
        "it's 12345",
        "\u4f60\u597d\u3002\u4e16\u754c",
        "  two  spaces ",
        "a b c d e f g h i j k l m n o p q r s t u v w x y z",
    ),
]
KINDS = (
    *(
        "BERT",
        "RoBERTa",
        "XLM-R",
        "CamemBERT",
        "MPNet",
        "ALBERT",
        "DeBERTa-v2",
        "ModernBERT",
        "XLNet",
        "Qwen3",
        "Llama",
    ),
    *("T5", "Pegasus", "mBART", "CLIP"),
)
"""Architectures whose tokenizers differ."""
PAIRS = [(first, second) for first in SHORT for second in SHORT]


@pytest.mark.parametrize("side", ["right", "left"])
@pytest.mark.parametrize("kind", KINDS)
def test_texts_and_pairs_equal_the_tokenizers_own_call(kind: str, side: str) -> None:
    processor = ARCHITECTURES[kind].tokenizer()
    tokenize = TextTokenizer(getattr(processor, "tokenizer", processor))
    tokenize.tokenizer.truncation_side = side
    for limit in (2, 4, 9, 14):
        tokenize.tokenizer.model_max_length = limit
        check(tokenize, SHORT)
        check(tokenize, PAIRS)
    check(tokenize, PAIRS, add_special_tokens=False)
    check(tokenize, PAIRS, truncate=False)


def test_texts_and_pairs_may_be_mixed(minilm: Path) -> None:
    tokenize = TextTokenizer(AutoTokenizer.from_pretrained(minilm, model_max_length=6))
    check(tokenize, ["a cat", ("a cat", "the red dog ran"), "so"])


def test_prompts_are_put_before_the_first_text_of_pairs(minilm: Path) -> None:
    tokenize = TextTokenizer(AutoTokenizer.from_pretrained(minilm))
    tokens, expected = (
        tokenize([("cat", "cat"), ("dog", "cat")], "a red "),
        tokenize([("a red cat", "cat"), ("a red dog", "cat")]),
    )
    np.testing.assert_array_equal(tokens.ids, expected.ids)
    assert tokens.prompt_length == 3


@pytest.fixture
def read(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[str]]:
    """All texts that come to the Rust core."""
    texts: list[str] = []
    encode = TextTokenizer._encode

    def recorded(self: TextTokenizer, given: Sequence[str]) -> list[Any]:
        texts.extend(given)
        return encode(self, given)

    monkeypatch.setattr(TextTokenizer, "_encode", recorded)
    return texts


def test_a_query_is_tokenized_once(minilm: Path, read: list[str]) -> None:
    tokenize = TextTokenizer(AutoTokenizer.from_pretrained(minilm))
    documents = [f"document {row}" for row in range(20)]
    check(tokenize, [("a query", text) for text in documents] + [(text, "a query") for text in documents])
    assert sorted(read) == sorted(["a query", *documents])


def long_texts() -> list[str]:
    rng = random.Random(0)
    texts = [nasty_text(rng, length) for length in (50, 200, 400, 600, 900, 1500)]
    texts += [" " * 5000 + "word", "x" * 20_000, "x " * 2000, "a cat" + " \n\t" * 1000 + "end", "\u4f60\u597d" * 1000]
    return [
        *texts,
        "\u4f60\u597d\u3002" * 1000,
        "\u4e2d\u56fd\uff0c\u65e5\u672c\u3001" * 400,
        "word and word " * 500,
        "a cat",
    ]


@pytest.mark.parametrize("kind", CORES)
def test_long_texts_are_read_in_part_and_nothing_shows(kind: str, read: list[str]) -> None:
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=CORES[kind](), model_max_length=13)
    texts = long_texts()
    check(TextTokenizer(tokenizer), texts)
    lengths = [min(map(len, (part for part in read if text.startswith(part)))) for text in texts]
    assert lengths[texts.index("word and word " * 500)] < 150
    check(TextTokenizer(tokenizer), [(text, "the other text") for text in texts])


@pytest.mark.parametrize("limit", [12, 13])
def test_which_of_two_long_texts_is_longer_decides_who_gets_the_odd_token(
    limit: int, minilm: Path, read: list[str]
) -> None:
    tokenize = TextTokenizer(AutoTokenizer.from_pretrained(minilm, model_max_length=limit))
    texts = ["word and word " * count for count in (1, 2, 3, 20, 21, 22)]
    check(tokenize, [(first, second) for first in texts for second in texts])
    is_whole = texts[-1] in read
    assert is_whole == (limit % 2 == 0), "only where the number of tokens to share is odd"


def test_no_part_is_read_twice(minilm: Path, read: list[str]) -> None:
    tokenize = TextTokenizer(AutoTokenizer.from_pretrained(minilm, model_max_length=13))
    check(tokenize, ["x" * 5000 + " and " + "y" * 50_000 + " so on"])
    assert list(map(len, read)) == [5000, 55_005, 55_011]


def test_a_text_without_a_safe_place_is_read_whole(read: list[str]) -> None:
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=unigram(), model_max_length=13)
    tokenizer.backend_tokenizer.pre_tokenizer = None
    check(TextTokenizer(tokenizer), ["some words " * 500])
    assert read == ["some words " * 500]


def test_the_end_of_a_long_text_must_be_valid_too(minilm: Path) -> None:
    tokenize = TextTokenizer(AutoTokenizer.from_pretrained(minilm, model_max_length=8))
    for text in ("a cat \ud800", "a cat " * 1000 + "\ud800"):
        with pytest.raises(ValueError, match="row 1 has a lone surrogate"):
            tokenize(["so", text])
        with pytest.raises(ValueError, match="row 2 has a lone surrogate"):
            tokenize([("so", "so"), ("so", "not"), (text, "so")])


def test_a_changed_tokenizer_is_noticed(minilm: Path) -> None:
    tokenize = TextTokenizer(AutoTokenizer.from_pretrained(minilm, model_max_length=8))
    text = "new york and york " * 100
    check(tokenize, [text])
    tokenize.tokenizer.add_tokens(["york new"])
    check(tokenize, [text, "york new"])
    special = [(token, tokenize.tokenizer.convert_tokens_to_ids(token)) for token in ("[CLS]", "[MASK]")]
    template = processors.TemplateProcessing(single="[CLS] $A", pair="[CLS] $A [MASK] $B:1", special_tokens=special)
    tokenize.tokenizer.backend_tokenizer.post_processor = template
    check(tokenize, [text])
    check(tokenize, [(text, "a cat")])


def test_several_threads_may_tokenize(minilm: Path) -> None:
    tokenize = TextTokenizer(AutoTokenizer.from_pretrained(minilm, model_max_length=10))
    inputs: list[Sequence[Text]] = [SHORT, PAIRS, long_texts()[:5], [("a", "b")], ["so"]]
    expected = [tokenize(texts) for texts in inputs]
    start = threading.Barrier(4)

    def work(turn: int) -> None:
        start.wait(10)
        for step in range(20):
            place = (turn + step) % len(inputs)
            tokens = tokenize(inputs[place])
            np.testing.assert_array_equal(tokens.ids, expected[place].ids)
            np.testing.assert_array_equal(tokens.offsets, expected[place].offsets)

    with ThreadPoolExecutor(4) as threads:
        list(threads.map(work, range(4)))
