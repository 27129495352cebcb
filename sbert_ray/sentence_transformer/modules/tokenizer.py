"""Face: tokenizers of word-level models at the import path that `sentence_transformers` has. No code lives here."""

from sbert_ray.modules import (
    ENGLISH_STOP_WORDS,
    PhraseTokenizer,
    TransformersTokenizerWrapper,
    WhitespaceTokenizer,
    WordTokenizer,
)

__all__ = [
    "ENGLISH_STOP_WORDS",
    "PhraseTokenizer",
    "TransformersTokenizerWrapper",
    "WhitespaceTokenizer",
    "WordTokenizer",
]
