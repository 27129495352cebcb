"""Tokenizers of many kinds, and texts that are hard on them."""

import random
import struct
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

from tokenizers import AddedToken, Regex, Tokenizer, normalizers, pre_tokenizers

from benchmarks import vocabularies

LLAMA3 = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}"
    r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
QWEN3 = LLAMA3.replace("{1,3}", "")
QWEN3_5 = QWEN3.replace(r"?\p{L}+", r"?[\p{L}\p{M}]+").replace(r"[^\s\p{L}\p{N}]", r"[^\s\p{L}\p{M}\p{N}]")
O200K = (
    r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+(?i:'s|'t|'re|'ve|'m|'ll|'d)?"
    r"|[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*(?i:'s|'t|'re|'ve|'m|'ll|'d)?"
    r"|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
CLIP = r"<\|startoftext\|>|<\|endoftext\|>|'s|'t|'re|'ve|'m|'ll|'d|[\p{L}]+|[\p{N}]|[^\s\p{L}\p{N}]+"
_RUNS = [AddedToken(" " * length) for length in range(2, 6)]
_GREEDY = [AddedToken("foo", lstrip=True, rstrip=True), AddedToken("rn", single_word=True), AddedToken("\n\n")]

LETTERS = (
    *("abcdeinorst", "0123XYZ", "\u00e9\u00f6\u0130\u0149", "\u0431\u0432\u0439", "\u03b1\u03a3\u03c2", "\u05d0\u05e9"),
    *("\u0627\u0634\u0629", "\u0915\u0928", "\u0e01\u0e02", "\ud55c\uad6d", "\u4e2d\u56fd\u6587", "\u3057\u3059\u3093"),
)
_WORDS = ("foo", "learn", "it's", "[SEP]", "<s>", "</s>", "<mask>", "<|end|>", "en_XX", "``", "''", "  ", "   ", "\n\n")
_MARKS = (
    "\t\n\u00a0\u3000\u2581\u200b\u00ad\u200d\u0301\u0308\u094d\u0e33\ufe0f\u1100\u1161\u0600\ufdfa\ufe70\ufb01\u00b4\u00a8"
    "\u2460\u00bd\u3099\uff9e'\".,-_/|<>[]\U0001f642\U0001f468\U0001f1e9\ufffd\x00\x07\u3001\u3002\uff0c\uff1f"
)


def nasty_text(rng: random.Random, length: int) -> str:
    """Return ``length`` words, letters, spaces and marks, without any sense."""
    kinds: list[Sequence[str]] = [" ", _WORDS, _MARKS]
    kinds = [rng.choice(kinds if rng.random() < 0.6 else LETTERS) for _ in range(length)]
    return "".join(rng.choice(rng.choice((kind, " "))) for kind in kinds)


def charsmap(images: Mapping[str, str]) -> bytes:
    """Return a normalizer as SentencePiece keeps it: a double array, with a block of 256 for each node, and images."""
    sources = {source.encode(): image.encode() for source, image in images.items()}
    nodes = sorted({source[:length] for source in sources for length in range(len(source) + 1)})
    blocks = {node: 256 * (1 + place) for place, node in enumerate(nodes)}
    units, targets = [0] * (256 * (1 + len(nodes))), b""
    for node, block in blocks.items():
        place = blocks[node[:-1]] + node[-1] if node else 0
        units[place] = (place ^ block) << 10 | (node in sources) << 8 | (node[-1] if node else 0)
        if node in sources:
            units[block] = 1 << 31 | len(targets)
            targets += sources[node] + b"\0"
    return struct.pack(f"<I{len(units)}I", 4 * len(units), *units) + targets


def byte_level(
    pattern: str = "", normalizer: Any = None, pre_tokenizer: Any = None, added: Sequence[AddedToken] = ()
) -> Tokenizer:
    """Return a tokenizer over bytes that splits as ``pattern`` says, or else as GPT-2 does."""
    if pattern:
        split = pre_tokenizers.Split(Regex(pattern), "isolated")
        in_bytes = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
        pre_tokenizer = pre_tokenizers.Sequence([split, in_bytes])
    return _changed(vocabularies.byte_level(), normalizer, pre_tokenizer, added)


def unigram(normalizer: Any = None, pre_tokenizer: Any = None, added: Sequence[AddedToken] = ()) -> Tokenizer:
    """Return a tokenizer of likely pieces, which marks where words start."""
    return _changed(vocabularies.xlm_roberta(), normalizer, pre_tokenizer, added)


def _changed(tokenizer: Any, normalizer: Any, pre_tokenizer: Any, added: Sequence[AddedToken]) -> Tokenizer:
    core = Tokenizer.from_str(tokenizer.backend_tokenizer.to_str())
    core.normalizer = normalizer or normalizers.Sequence([])
    core.pre_tokenizer = pre_tokenizer or core.pre_tokenizer
    core.add_tokens(list(added))
    return core


def precompiled() -> Any:
    """Return a normalizer with what SentencePiece's own does to some characters."""
    return normalizers.Precompiled(
        charsmap(
            {"\ufb01": "fi", "\u3000": " ", "\u00a0": " ", "\n": " ", "\u200b": "", "\uff0c": ",", "e\u0301": "\u00e9"}
        )
    )


def _two_spaces() -> Any:
    return normalizers.Replace(Regex(" {2,}"), " ")


CORES: dict[str, Callable[[], Tokenizer]] = {
    "BERT": lambda: vocabularies.wordpiece().backend_tokenizer,
    "ALBERT": lambda: vocabularies.albert().backend_tokenizer,
    "DeBERTa-v2": lambda: vocabularies.deberta().backend_tokenizer,
    "Pegasus": lambda: vocabularies.pegasus().backend_tokenizer,
    "mBART": lambda: vocabularies.mbart().backend_tokenizer,
    "CLIP": lambda: byte_level(
        normalizer=normalizers.Sequence([normalizers.NFC(), normalizers.Replace(Regex(r"\s+"), " ")]),
        pre_tokenizer=pre_tokenizers.Sequence(
            [pre_tokenizers.Split(Regex(CLIP), "removed", invert=True), pre_tokenizers.ByteLevel(False)]
        ),
    ),
    "GPT-2": byte_level,
    "RoBERTa, a space before": partial(byte_level, pre_tokenizer=pre_tokenizers.ByteLevel(add_prefix_space=True)),
    "ModernBERT": lambda: byte_level(normalizer=normalizers.NFC(), added=_RUNS),
    "StarCoder": lambda: byte_level(
        pre_tokenizer=pre_tokenizers.Sequence([pre_tokenizers.Digits(True), pre_tokenizers.ByteLevel(False)])
    ),
    "Llama 3": partial(byte_level, LLAMA3, added=_GREEDY),
    "Qwen3": lambda: byte_level(QWEN3, normalizers.NFC()),
    "Qwen3.5": lambda: byte_level(QWEN3_5, normalizers.NFKD()),
    "o200k": partial(byte_level, O200K),
    "XLM-R": lambda: unigram(precompiled(), added=_GREEDY),
    "XLM-R, of transformers 5": lambda: unigram(
        normalizers.Sequence([precompiled(), _two_spaces()]), pre_tokenizers.Metaspace()
    ),
    "Metaspace at the start": lambda: unigram(
        normalizers.Sequence([normalizers.Nmt(), normalizers.NFKC(), _two_spaces(), normalizers.Strip()]),
        pre_tokenizers.Metaspace(prepend_scheme="first"),
        _GREEDY[:2],
    ),
    "Llama 2, split": lambda: unigram(
        normalizers.Sequence([normalizers.Prepend("\u2581"), normalizers.Replace(" ", "\u2581")]),
        pre_tokenizers.Metaspace(prepend_scheme="never"),
    ),
    "Whitespace": lambda: unigram(
        normalizers.Sequence([normalizers.NFD(), normalizers.StripAccents(), normalizers.Lowercase()]),
        pre_tokenizers.Whitespace(),
    ),
}
"""Tokenizers of which it is known where they split."""
