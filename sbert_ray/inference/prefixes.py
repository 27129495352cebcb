r"""Where a long text may be cut before it is tokenized, so that its first tokens stay what they are.

A cut is a place b in a text whose neighbours are known: two letters, then one space, then a letter. The tokens of the
text before b are the first tokens of the whole text, since no step of the tokenizer looks across b:

- Added tokens are found from left to right. None of them has a space behind another character, so none reaches over b,
  and what is a word's end before a space is one at the end of a text as well.
- Normalizers map characters, or graphemes, or runs of white space, or punctuation. b divides graphemes, and composes
  with nothing. So letters and the space become the same as anywhere else, which one text that has them all shows.
- Pre-tokenizers split there, since the space is white space to them, or the mark "\u2581". Alternatives of regular
  expressions that are told from others here read a space at most as their first character, or among nothing but white
  space; what they look ahead for is before b, too.
- Models tokenize what lies between two splits for itself.

After a Chinese or Japanese word, punctuation does what the space does, where pre-tokenizers split before it.
"""

import json
import re
import unicodedata
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from functools import cache
from typing import Any

# Letters and digits that no neighbour joins: they neither combine, nor extend a grapheme, nor start one for others.
_LETTERS = (
    "0-9A-Za-z\u00c0-\u00d6\u00d8-\u00f6\u00f8-\u024f"  # Latin
    "\u0391-\u03a1\u03a3-\u03c9\u0400-\u0481\u048a-\u052f"  # Greek, Cyrillic
    "\u0561-\u0586\u05d0-\u05ea\u0620-\u064a"  # Armenian, Hebrew, Arabic
    "\u0905-\u0939\u0e01-\u0e2e\u10d0-\u10f0\uac00-\ud7a3"  # Devanagari, Thai, Georgian, Hangul
)
# Ideographs, and the kana with which sentences end that are not made of two characters.
_IDEOGRAPHS = "\u4e00-\u9fff\u3044\u304f\u3057\u3059\u305f\u3066\u306a-\u306e\u307e-\u3093"
_PUNCTUATION = "\u3001\u3002\uff01\uff0c\uff1a\uff1b\uff1f"

_BEFORE_SPACE = f"[{_LETTERS}]{{2}}(?= [{_LETTERS}])"
_BEFORE_PUNCTUATION = f"[{_IDEOGRAPHS}]{{2}}(?=[{_PUNCTUATION}][{_IDEOGRAPHS}])"

_MARK = "\u2581"
_NO_LETTER = re.compile(rf"[\s{_MARK}!-/:-@\[-`{{-~]")
_SPACE_BEHIND_ANOTHER = re.compile(rf"[^\s{_MARK}][\s{_MARK}]")

_LOCAL_NORMALIZERS = (
    *("NFC", "NFD", "NFKC", "NFKD", "Lowercase", "StripAccents", "BertNormalizer", "Nmt", "Precompiled"),
    *("Strip", "Prepend"),  # which work at the ends of a text
)
_WHITE_SPACE_PATTERNS = (" {2,}", r"\s{2,}|[\n\r\t]", r"\s{2,}", r"[\n\r\t]", r"\n", r"\s+", r"\s")
_LITERALS = re.compile(r" |\n|[!-/:-@\[-`{-~]+")

_CONTRACTIONS = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)"
_CASED_WORDS = (
    r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+",
    r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*",
)
_WORDS = (
    *(r" ?\p{L}+", r"[\p{L}]+", r"[^\r\n\p{L}\p{N}]?\p{L}+", r"[^\r\n\p{L}\p{N}]?[\p{L}\p{M}]+"),
    *_CASED_WORDS,
    *(f"{words}{_CONTRACTIONS}?" for words in _CASED_WORDS),
)
_ALTERNATIVES = (
    *_WORDS,
    *(_CONTRACTIONS, "'s", "'t", "'re", "'ve", "'m", "'ll", "'d", r"<\|startoftext\|>", r"<\|endoftext\|>"),
    *(r"\p{N}", r"[\p{N}]", r"\p{N}+", r" ?\p{N}+", r"\p{N}{1,3}"),
    *(r"[^\s\p{L}\p{N}]+", r" ?[^\s\p{L}\p{N}]+", r" ?[^\s\p{L}\p{N}]+[\r\n]*", r" ?[^\s\p{L}\p{N}]+[\r\n/]*"),
    *(r"[^\s\p{L}\p{M}\p{N}]+", r" ?[^\s\p{L}\p{M}\p{N}]+[\r\n]*"),
    *(r"\s*[\r\n]+", r"\s+(?!\S)", r"\s+"),
)
_ANY_ALTERNATIVE = "|".join(re.escape(pattern) for pattern in _ALTERNATIVES)
_KNOWN_PATTERN = re.compile(rf"(?:{_ANY_ALTERNATIVE})(?:\|(?:{_ANY_ALTERNATIVE}))*")


class Boundaries:
    """Finds where texts may be cut for a tokenizer, anew only if what that depends on has changed."""

    def __init__(self) -> None:
        self._found: tuple[_State | None, re.Pattern[str] | None] = (None, None)

    def of(self, core: Any) -> re.Pattern[str] | None:
        """Return the pattern whose matches end where a text may be cut; None if that cannot be told.

        Args:
            core: A tokenizer of the tokenizers library.
        """
        state = _state(core)
        if state is None:
            return None
        known, boundary = self._found
        if state != known:
            boundary = _boundary(core, state)
            self._found = state, boundary
        return boundary


def prefix(text: str, size: int, boundary: re.Pattern[str]) -> str:
    """Return ``text`` up to a boundary soon after ``size`` characters; all of it where there is none.

    Args:
        text: The text.
        size: A positive number.
        boundary: What `Boundaries` found.
    """
    while size < len(text):
        if found := boundary.search(text, size, 2 * size):
            return text[: found.end()]
        size *= 2
    return text


@dataclass(frozen=True)
class _State:
    """What boundaries depend on."""

    normalizer: bytes
    pre_tokenizer: bytes
    added: tuple[tuple[str, bool], ...]
    """The content of each added token, and whether it is looked for in normalized text."""
    is_random: bool


def _state(core: Any) -> _State | None:
    try:
        normalizer, pre_tokenizer = (
            step.__getstate__() if step else b"null" for step in (core.normalizer, core.pre_tokenizer)
        )
    except Exception as error:
        if "Custom" in str(error):  # written in Python, and the library has no exceptions of its own
            return None
        raise
    added = tuple((token.content, token.normalized) for token in core.get_added_tokens_decoder().values())
    return _State(normalizer, pre_tokenizer, added, bool(getattr(core.model, "dropout", None)))


def _boundary(core: Any, state: _State) -> re.Pattern[str] | None:
    splitting = _splitting(_steps(json.loads(state.pre_tokenizer), "pretokenizers"))
    is_local = all(map(_is_local, _steps(json.loads(state.normalizer), "normalizers")))
    if splitting is None or not is_local or state.is_random:
        return None

    def normalized(text: str) -> str:
        return core.normalizer.normalize_str(text) if core.normalizer else text

    contents = [content for content, _ in state.added]
    contents += [normalized(content) for content, is_normalized in state.added if is_normalized]
    if any(_SPACE_BEHIND_ANOTHER.search(content) for content in contents):
        return None
    space = _image_of_spaces(normalized)
    if not (splitting.at_marks if space == _MARK else splitting.at_spaces and space == " "):
        return None
    if not (splitting.at_punctuation and _keeps_punctuation(normalized)) or _has_any(_PUNCTUATION, contents):
        return re.compile(_BEFORE_SPACE)
    return re.compile(f"{_BEFORE_SPACE}|{_BEFORE_PUNCTUATION}")


@dataclass(frozen=True)
class _Splitting:
    """At what, between letters, texts are split."""

    at_spaces: bool = False
    at_marks: bool = False
    at_punctuation: bool = False


_PRE_TOKENIZERS = {
    "BertPreTokenizer": _Splitting(at_spaces=True, at_punctuation=True),
    "Whitespace": _Splitting(at_spaces=True),
    "WhitespaceSplit": _Splitting(at_spaces=True),
    "Digits": _Splitting(),
    "Punctuation": _Splitting(),
}


def _splitting(steps: Iterable[Mapping[str, Any]]) -> _Splitting | None:
    """Return where a row of pre-tokenizers splits, None if that is not known.

    Only those up to the first one that splits at white space matter: the others see its pieces one by one.
    """
    at_punctuation = False
    for step in steps:
        found = _splitting_of(step)
        if found is None:
            return None
        at_punctuation |= found.at_punctuation
        if found.at_spaces or found.at_marks:
            return replace(found, at_punctuation=at_punctuation)
    return None


def _splitting_of(step: Mapping[str, Any]) -> _Splitting | None:
    kind = step["type"]
    if kind == "Metaspace":  # which makes marks of spaces first, also where it does not split
        splits = step["split"] and step["replacement"] == _MARK
        return _Splitting(at_spaces=True, at_marks=True) if splits else None
    if kind == "ByteLevel":  # which makes other characters of spaces, also where it does not split
        return _Splitting(at_spaces=True, at_punctuation=True) if step["use_regex"] else None
    if kind == "Split":
        return _splitting_of_pattern(step)
    return _PRE_TOKENIZERS.get(kind)


def _splitting_of_pattern(step: Mapping[str, Any]) -> _Splitting | None:
    pattern = step["pattern"].get("Regex", "")
    way = (step["behavior"], step["invert"])
    if not _KNOWN_PATTERN.fullmatch(pattern) or way not in {("Isolated", False), ("Removed", True)}:
        return None
    # A space that is read begins a match. One that is not is dropped, or may share a piece with what is before it.
    reads_spaces = pattern.endswith(r"|\s+") or way == ("Removed", True)
    return _Splitting(at_spaces=reads_spaces, at_punctuation=any(words in pattern for words in _WORDS))


def _steps(step: Mapping[str, Any] | None, name: str) -> list[Mapping[str, Any]]:
    """Return the steps of a sequence, and of sequences in it, one after the other."""
    if step is None:
        return []
    return [inner for one in step[name] for inner in _steps(one, name)] if step["type"] == "Sequence" else [step]


def _is_local(normalizer: Mapping[str, Any]) -> bool:
    if normalizer["type"] != "Replace":
        return normalizer["type"] in _LOCAL_NORMALIZERS
    pattern = normalizer["pattern"]
    if "Regex" in pattern:
        return pattern["Regex"] in _WHITE_SPACE_PATTERNS
    return _LITERALS.fullmatch(pattern["String"]) is not None


@cache
def _members(of: str) -> list[str]:
    """Return the characters of a class of a regular expression."""
    return re.findall(f"[{of}]", "".join(map(chr, range(0xD800))) + "".join(map(chr, range(0xE000, 0x10000))))


def _has_any(of: str, texts: Iterable[str]) -> bool:
    return any(re.search(f"[{of}]", text) for text in texts)


def _image_of_spaces(normalized: Callable[[str], str]) -> str | None:
    """Return what a space between letters becomes, if it is one or its mark, and letters become no such thing."""
    letters = _members(_LETTERS)
    image = normalized(" ".join(letters)).lstrip(f" {_MARK}")
    for space in (" ", _MARK):
        images = image.split(space)
        if len(images) == len(letters) and all(images) and not _NO_LETTER.search("".join(images)):
            return space
    return None


def _keeps_punctuation(normalized: Callable[[str], str]) -> bool:
    """Tell whether punctuation remains punctuation, and ideographs remain, but for spaces around them."""
    ideographs = "".join(_members(_IDEOGRAPHS))
    images = map(normalized, _members(_PUNCTUATION))
    are_kept = all(len(image) == 1 and unicodedata.category(image) == "Po" for image in images)
    return are_kept and normalized(ideographs).replace(" ", "") == ideographs
