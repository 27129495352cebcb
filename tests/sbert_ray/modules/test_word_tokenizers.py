"""Tokenizers of words, with the peer as the oracle, and NLTK's words for phrases."""

import json
import sys
from pathlib import Path
from typing import Any

import pytest

from sbert_ray.modules import ENGLISH_STOP_WORDS, PhraseTokenizer, TransformersTokenizerWrapper, WhitespaceTokenizer
from sbert_ray.modules.word_tokenizers import TOKENIZERS, tokenizer_class

peer = pytest.importorskip("sentence_transformers.sentence_transformer.modules.tokenizer")
pytest.importorskip("nltk")

VOCAB = [
    "",
    "new",
    "york",
    "New_York",
    "new_york_city",
    "City",
    "is",
    "red",
    "don't",
    "n't",
    "bad__phrase",
    "a_b_c_d_e_f",
    "red",
]
TEXTS = [
    "New York is red, red; NEW york city! 'City'?",
    "new york city new york city",
    "don't  say\n(red) [red]. ...",
    "",
    "   ",
    "!!! ...",
    "the new City of New York city",
    "a b c d e f bad phrase",
    "NEW_YORK New_York",
]
OPTIONS: list[dict[str, Any]] = [
    {},
    {"stop_words": []},
    {"stop_words": ["red", "City"]},
    {"do_lower_case": True, "stop_words": ["new"]},
]
PHRASES: list[dict[str, Any]] = [*OPTIONS, {"max_ngram_length": 2}, {"ngram_separator": None}, {"max_ngram_length": 6}]
CASES = [("WhitespaceTokenizer", options) for options in OPTIONS] + [
    ("PhraseTokenizer", options) for options in PHRASES
]


def test_stop_words_are_the_peers() -> None:
    assert len(ENGLISH_STOP_WORDS) == len(set(ENGLISH_STOP_WORDS))
    assert set(ENGLISH_STOP_WORDS) == set(peer.ENGLISH_STOP_WORDS)


@pytest.mark.parametrize(("name", "options"), CASES)
def test_ids_are_the_peers(name: str, options: dict[str, Any], tmp_path: Path) -> None:
    ours, theirs = TOKENIZERS[name](VOCAB, **options), getattr(peer, name)(VOCAB, **options)
    expected = [theirs.tokenize(text) for text in TEXTS]
    assert any(expected)
    assert [ours.tokenize(text) for text in TEXTS] == expected
    assert ours.get_vocab() == theirs.get_vocab()
    ours.save(tmp_path)
    assert [getattr(peer, name).load(str(tmp_path)).tokenize(text) for text in TEXTS] == expected
    assert [TOKENIZERS[name].load(tmp_path).tokenize(text) for text in TEXTS] == expected


@pytest.mark.parametrize("name", ["WhitespaceTokenizer", "PhraseTokenizer"])
def test_reads_what_the_peer_writes(name: str, tmp_path: Path) -> None:
    theirs = getattr(peer, name)(VOCAB[:-1])  # its file loses a word that comes twice, and so changes ids
    theirs.save(str(tmp_path))
    ours = TOKENIZERS[name].load(tmp_path)
    assert [ours.tokenize(text) for text in TEXTS] == [theirs.tokenize(text) for text in TEXTS]


def test_files_are_always_the_same(tmp_path: Path) -> None:
    WhitespaceTokenizer(VOCAB).save(tmp_path)
    config = json.loads((tmp_path / "whitespacetokenizer_config.json").read_text())
    assert config == {"vocab": VOCAB, "stop_words": sorted(ENGLISH_STOP_WORDS), "do_lower_case": False}


def test_phrases_need_nltk(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "nltk.tokenize", None)
    with pytest.raises(ImportError, match=r"needs the package nltk: pip install 'sbert-ray\[words\]'"):
        PhraseTokenizer(VOCAB)


@pytest.mark.parametrize("place", ["sentence_transformers.models.tokenizer.WhitespaceTokenizer", "sbert_ray.modules"])
def test_a_class_is_known_wherever_it_was(place: str, tmp_path: Path) -> None:
    assert tokenizer_class(f"{place}.WhitespaceTokenizer", tmp_path) is WhitespaceTokenizer


@pytest.mark.parametrize("dotted", ["os.system", "evil.WhitespaceTokenizer", "sentence_transformers.x.Other", None])
def test_no_other_class_is_imported(dotted: Any, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"must be one of \['PhraseTokenizer', 'TransformersTokenizerWrapper', "):
        tokenizer_class(dotted, tmp_path)


def test_broken_files_are_named(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"lacks whitespacetokenizer_config\.json"):
        WhitespaceTokenizer.load(tmp_path)
    (tmp_path / "whitespacetokenizer_config.json").write_text('{"words": []}')
    with pytest.raises(ValueError, match=r"does not fit WhitespaceTokenizer: .*'words'"):
        WhitespaceTokenizer.load(tmp_path)


def test_wraps_a_tokenizer_of_transformers(tiny_checkpoint: Path, tmp_path: Path) -> None:
    from transformers import AutoTokenizer

    ours = TransformersTokenizerWrapper(AutoTokenizer.from_pretrained(tiny_checkpoint))
    theirs = peer.TransformersTokenizerWrapper(ours.tokenizer)
    assert ours.tokenize("the cat") == theirs.tokenize("the cat")
    assert ours.get_vocab() == ours.tokenizer.get_vocab()
    ours.set_vocab(["other"])
    ours.save(tmp_path)
    assert TransformersTokenizerWrapper.load(tmp_path).tokenize("the cat") == ours.tokenize("the cat")
