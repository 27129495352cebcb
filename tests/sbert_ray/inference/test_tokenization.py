"""Tokenizing: the Rust core gives what the tokenizer gives, and other tokenizers are asked themselves."""

from pathlib import Path

import numpy as np
import pytest
from transformers import AutoTokenizer, BertTokenizer

from sbert_ray.inference.tokenization import TextTokenizer

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
