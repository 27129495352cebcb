"""Tokenizers of word-level models: a text to the ids of its words in a vocabulary. Knows no torch."""

import json
import string
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, ClassVar, Self

from sbert_ray.modules.configs import read_json

_STOP_WORDS = """
a about above across after afterwards again against ain all almost alone along already also although always am
among amongst amoungst amount an and another any anyhow anyone anything anyway anywhere are aren around as at
back be became because become becomes becoming been before beforehand behind being below beside besides between
beyond bill both bottom but by call can cannot cant co con could couldn couldnt cry d de describe detail did
didn do does doesn doing don done down due during each eg eight either eleven else elsewhere empty enough etc
even ever every everyone everything everywhere except few fifteen fifty fill find fire first five for former
formerly forty found four from front full further get give go had hadn has hasn hasnt have haven having he hence
her here hereafter hereby herein hereupon hers herself him himself his how however hundred i ie if in inc indeed
interest into is isn it its itself just keep last latter latterly least less ll ltd m ma made many may me
meanwhile might mightn mill mine more moreover most mostly move much must mustn my myself name namely needn
neither never nevertheless next nine no nobody none noone nor not nothing now nowhere o of off often on once one
only onto or other others otherwise our ours ourselves out over own part per perhaps please put rather re s same
see seem seemed seeming seems serious several shan she should shouldn show side since sincere six sixty so some
somehow someone something sometime sometimes somewhere still such system t take ten than that the their theirs
them themselves then thence there thereafter thereby therefore therein thereupon these they thick thin third
this those though three through throughout thru thus to together too top toward towards twelve twenty two un
under until up upon us ve very via was wasn we well were weren what whatever when whence whenever where
whereafter whereas whereby wherein whereupon wherever whether which while whither who whoever whole whom whose
why will with within without won would wouldn y yet you your yours yourself yourselves
"""
ENGLISH_STOP_WORDS = [*string.punctuation, "''", "``", *_STOP_WORDS.split()]
"""Words and marks that tokenizers leave out unless told otherwise."""


class WordTokenizer(ABC):
    """Turns a text into the ids of its words, leaving out words that are not in its vocabulary."""

    public_path: ClassVar[str]
    """The class's import path in sentence-transformers 6.2, by which configs name it."""

    @abstractmethod
    def set_vocab(self, vocab: Iterable[str]) -> None:
        """Give the tokenizer its words, whose ids are their places."""

    @abstractmethod
    def get_vocab(self) -> Any:
        """Return the words."""

    @abstractmethod
    def tokenize(self, text: str) -> list[int]:
        """Return the ids of a text's words."""

    @abstractmethod
    def save(self, output_path: str | Path) -> None:
        """Write the tokenizer to a folder."""

    @classmethod
    @abstractmethod
    def load(cls, input_path: str | Path) -> Self:
        """Read the tokenizer from a folder."""


class _VocabularyTokenizer(WordTokenizer):
    config_name: ClassVar[str]

    def __init__(self, vocab: Iterable[str], stop_words: Iterable[str], do_lower_case: bool) -> None:
        self.stop_words = set(stop_words)
        self.do_lower_case = do_lower_case
        self.set_vocab(vocab)

    def set_vocab(self, vocab: Iterable[str]) -> None:
        """Give the tokenizer its words, whose ids are their places; of a word that comes twice, the last one."""
        self.vocab = list(vocab)
        self.word2idx = {word: index for index, word in enumerate(self.vocab)}

    def get_vocab(self) -> list[str]:
        """Return the words."""
        return self.vocab

    def _ids(self, words: Iterable[str]) -> Iterator[int]:
        """Yield the id of each word by the first of its forms that is known, if that is no stop word."""
        for word in words:
            known = (form for form in self._forms(word) if form in self.stop_words or form in self.word2idx)
            form = next(known, None)
            if form is not None and form not in self.stop_words:
                yield self.word2idx[form]

    @staticmethod
    def _forms(word: str) -> Iterable[str]:
        raise NotImplementedError

    def _config(self) -> dict[str, Any]:
        # The whole vocabulary, so that the ids hold even where a word comes twice.
        return {"vocab": self.vocab, "stop_words": sorted(self.stop_words), "do_lower_case": self.do_lower_case}

    def save(self, output_path: str | Path) -> None:
        """Write the tokenizer's arguments to a folder."""
        Path(output_path, self.config_name).write_text(json.dumps(self._config()), encoding="utf-8")

    @classmethod
    def load(cls, input_path: str | Path) -> Self:
        """Read the tokenizer from a folder.

        Raises:
            FileNotFoundError: Its file is missing.
            ValueError: Its file does not hold its arguments.
        """
        path = Path(input_path, cls.config_name)
        if not path.exists():
            raise FileNotFoundError(f"{str(input_path)!r} lacks {cls.config_name}")
        try:
            return cls(**read_json(path))
        except TypeError as error:
            raise ValueError(f"{str(path)!r} does not fit {cls.__name__}: {error}") from error


class WhitespaceTokenizer(_VocabularyTokenizer):
    """Splits at white space, and looks each word up as it is, then without punctuation around it, then lowercased.

    Args:
        vocab: The words, whose ids are their places.
        stop_words: Words that are left out.
        do_lower_case: Whether to lowercase the text first.
    """

    public_path = "sentence_transformers.sentence_transformer.modules.tokenizer.whitespace.WhitespaceTokenizer"
    config_name = "whitespacetokenizer_config.json"

    def __init__(
        self, vocab: Iterable[str] = (), stop_words: Iterable[str] = ENGLISH_STOP_WORDS, do_lower_case: bool = False
    ) -> None:
        super().__init__(vocab, stop_words, do_lower_case)

    def tokenize(self, text: str) -> list[int]:
        """Return the ids of a text's words."""
        return list(self._ids((text.lower() if self.do_lower_case else text).split()))

    @staticmethod
    def _forms(word: str) -> tuple[str, ...]:
        bare = word.strip(string.punctuation)
        return word, bare, bare.lower()


class PhraseTokenizer(_VocabularyTokenizer):
    """Finds words as NLTK does, and joins neighbours that are a phrase of the vocabulary, longer phrases first.

    A word is looked up as it is, then lowercased, then without punctuation around it.

    Args:
        vocab: The words and phrases, whose ids are their places.
        stop_words: Words that are left out.
        do_lower_case: Kept for the file format; every word is looked up lowercased anyway.
        ngram_separator: What is between the words of a phrase, as in ``New_York``; None knows no phrases.
        max_ngram_length: Words of the longest phrase.

    Raises:
        ImportError: NLTK is not installed.
    """

    public_path = "sentence_transformers.sentence_transformer.modules.tokenizer.phrase.PhraseTokenizer"
    config_name = "phrasetokenizer_config.json"

    def __init__(
        self,
        vocab: Iterable[str] = (),
        stop_words: Iterable[str] = ENGLISH_STOP_WORDS,
        do_lower_case: bool = False,
        ngram_separator: str | None = "_",
        max_ngram_length: int = 5,
    ) -> None:
        try:
            from nltk.tokenize import NLTKWordTokenizer
        except ImportError as error:
            raise ImportError("PhraseTokenizer needs the package nltk: pip install 'sbert-ray[words]'") from error
        self.ngram_separator = ngram_separator
        self.max_ngram_length = max_ngram_length
        self._words = NLTKWordTokenizer()
        super().__init__(vocab, stop_words, do_lower_case)

    def set_vocab(self, vocab: Iterable[str]) -> None:
        """Give the tokenizer its words and phrases, whose ids are their places."""
        super().set_vocab(vocab)
        self.ngram_lookup: set[str] = set()
        self.ngram_lengths: set[int] = set()
        separator = self.ngram_separator
        for phrase in self.vocab:
            # Two separators in a row are an accident, which the vectors of Google News have.
            if separator is None or separator not in phrase or 2 * separator in phrase:
                continue
            if (length := phrase.count(separator) + 1) <= self.max_ngram_length:
                self.ngram_lookup.add(phrase)
                self.ngram_lengths.add(length)

    def tokenize(self, text: str) -> list[int]:
        """Return the ids of a text's words and phrases."""
        words = self._words.tokenize(text)
        for length in sorted(self.ngram_lengths, reverse=True):
            words = list(self._joined(words, length))
        return list(self._ids(words))

    def _joined(self, words: list[str], length: int) -> Iterator[str]:
        """Yield words, those that are a phrase of ``length`` words as one."""
        start = 0
        while start < len(words):
            phrase = (self.ngram_separator or "").join(words[start : start + length])
            found = next((form for form in (phrase, phrase.lower()) if form in self.ngram_lookup), None)
            if found is None or start + length > len(words):
                yield words[start]
                start += 1
            else:
                yield found
                start += length

    @staticmethod
    def _forms(word: str) -> Iterator[str]:
        lower = word.lower()
        return filter(None, (word, lower, lower.strip(string.punctuation)))

    def _config(self) -> dict[str, Any]:
        phrases = {"ngram_separator": self.ngram_separator, "max_ngram_length": self.max_ngram_length}
        return super()._config() | phrases


class TransformersTokenizerWrapper(WordTokenizer):
    """A tokenizer of transformers as one of words, its special tokens included.

    Args:
        tokenizer: The tokenizer of transformers.
    """

    public_path = "sentence_transformers.sentence_transformer.modules.tokenizer.word.TransformersTokenizerWrapper"

    def __init__(self, tokenizer: Any) -> None:
        self.tokenizer = tokenizer

    def set_vocab(self, vocab: Iterable[str]) -> None:
        """Leave the tokenizer's vocabulary as it is."""

    def get_vocab(self) -> dict[str, int]:
        """Return the ids by token."""
        vocab: dict[str, int] = self.tokenizer.get_vocab()
        return vocab

    def tokenize(self, text: str) -> list[int]:
        """Return the ids of a text's tokens."""
        ids: list[int] = self.tokenizer(text)["input_ids"]
        return ids

    def save(self, output_path: str | Path) -> None:
        """Write the tokenizer to a folder."""
        self.tokenizer.save_pretrained(output_path)

    @classmethod
    def load(cls, input_path: str | Path) -> Self:
        """Read the tokenizer from a folder."""
        from transformers import AutoTokenizer

        # Not None, on which transformers would ask whoever sits at the terminal.
        return cls(AutoTokenizer.from_pretrained(input_path, local_files_only=True, trust_remote_code=False))


TOKENIZERS: dict[str, type[WordTokenizer]] = {
    kind.__name__: kind for kind in (PhraseTokenizer, TransformersTokenizerWrapper, WhitespaceTokenizer)
}
"""By the name that configs use."""


def tokenizer_class(dotted: Any, folder: Path) -> type[WordTokenizer]:
    """Return the class of tokenizers that a config in ``folder`` names, wherever earlier versions had it.

    Raises:
        ValueError: It is none of `TOKENIZERS`.
    """
    package, _, name = str(dotted).rpartition(".")
    if package.partition(".")[0] not in ("sentence_transformers", "sbert_ray") or name not in TOKENIZERS:
        raise ValueError(f"tokenizer_class in {str(folder)!r} must be one of {sorted(TOKENIZERS)}, got {dotted!r}")
    return TOKENIZERS[name]
