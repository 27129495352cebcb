"""Tokenizers of the kinds that real checkpoints have, with a few hundred pieces learnt from docstrings."""

import json
from collections import Counter
from collections.abc import Callable, Sequence
from functools import cache, partial
from typing import Any

import transformers
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors, trainers

from benchmarks.docstrings import docstrings

MAX_LENGTH = 48
"""Tokens to which texts are cut."""
NUM_PIECES = 500
IMAGE_SIZE = 32
_ANGULAR = ("<s>", "<pad>", "</s>", "<unk>", "<mask>")
_SQUARE = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")

Pieces = list[tuple[str, float]]


def wordpiece(kind: Callable[..., Any] = transformers.BertTokenizer, special: Sequence[str] = _SQUARE) -> Any:
    """Return a tokenizer of the BERT family: lowercased words cut into pieces."""
    return kind(vocab=_numbered([*special, *_word_pieces()]), model_max_length=MAX_LENGTH)


mpnet = partial(wordpiece, transformers.MPNetTokenizer, ("<s>", "<pad>", "</s>", "[UNK]", "<mask>"))
distilbert = partial(wordpiece, transformers.DistilBertTokenizer)


def roberta() -> Any:
    """Return a byte-level tokenizer with the special tokens of RoBERTa and BART."""
    pieces, merges = _byte_pairs()
    return transformers.RobertaTokenizer(
        vocab=_numbered([*_ANGULAR, *pieces]), merges=merges, model_max_length=MAX_LENGTH
    )


def byte_level(template: str | None = None, special: Sequence[str] = _ANGULAR, **options: Any) -> Any:
    """Return a byte-level tokenizer as newer models have it, which is no class of its own.

    Args:
        template: How special tokens go around a text ``$A``; none if None.
        special: Further tokens, at the start of the vocabulary.
        options: Passed on to the tokenizer.
    """
    pieces, merges = _byte_pairs()
    vocabulary = _numbered([*special, *pieces])
    core = Tokenizer(models.BPE(vocabulary, merges))
    core.normalizer = normalizers.NFC()
    core.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    if template:
        around = [(token, vocabulary[token]) for token in special if token in template.split()]
        core.post_processor = processors.TemplateProcessing(
            single=template, pair=f"{template} $B", special_tokens=around
        )
    return transformers.PreTrainedTokenizerFast(tokenizer_object=core, model_max_length=MAX_LENGTH, **options)


def clip() -> Any:
    """Return the processor of an image-text model: a byte-level tokenizer that marks ends of words, and image sizes."""
    pieces, merges = _byte_pairs("</w>")
    vocabulary = _numbered(["<|startoftext|>", "<|endoftext|>", *pieces])
    tokenizer = transformers.CLIPTokenizer(vocab=vocabulary, merges=merges, model_max_length=MAX_LENGTH)
    size = {"height": IMAGE_SIZE, "width": IMAGE_SIZE}
    images = transformers.CLIPImageProcessorPil(size={"shortest_edge": IMAGE_SIZE}, crop_size=size)
    return transformers.CLIPProcessor(images, tokenizer)


def unigram(kind: Callable[..., Any], special: Sequence[str] = _ANGULAR, **options: Any) -> Any:
    """Return a tokenizer of the SentencePiece family: likely pieces, with a mark where a word starts."""
    return kind(vocab=[(token, 0.0) for token in special] + _scored_pieces(), model_max_length=MAX_LENGTH, **options)


xlm_roberta = partial(unigram, transformers.XLMRobertaTokenizer)
camembert = partial(unigram, transformers.CamembertTokenizer)
mbart = partial(unigram, transformers.MBartTokenizer)
albert = partial(unigram, transformers.AlbertTokenizer, ("<pad>", "<unk>", "[CLS]", "[SEP]", "[MASK]"))
deberta = partial(unigram, transformers.DebertaV2Tokenizer, _SQUARE)
t5 = partial(unigram, transformers.T5Tokenizer, ("<pad>", "</s>", "<unk>"), extra_ids=0)
xlnet = partial(unigram, transformers.XLNetTokenizer, ("<unk>", "<s>", "</s>", "<cls>", "<sep>", "<pad>", "<mask>"))
pegasus = partial(unigram, transformers.PegasusTokenizer, ("<pad>", "</s>", "<mask_1>", "<mask_2>", "<unk>"), offset=0)


def _numbered(tokens: Sequence[str]) -> dict[str, int]:
    return {token: index for index, token in enumerate(dict.fromkeys(tokens))}


@cache
def words() -> Counter[str]:
    """Return how often each lowercased word is used, of those that learning sees."""
    return Counter(word for text in _texts() for word in text.lower().split() if word.isalpha())


@cache
def _texts() -> list[str]:
    return [doc.text for doc in docstrings(400)]


@cache
def _word_pieces() -> list[str]:
    core = Tokenizer(models.WordPiece(unk_token="[UNK]"))
    core.normalizer = normalizers.BertNormalizer()
    core.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    core.train_from_iterator(_texts(), trainers.WordPieceTrainer(vocab_size=NUM_PIECES, show_progress=False))
    return sorted(core.get_vocab())


@cache
def _byte_pairs(word_end: str = "") -> tuple[list[str], list[tuple[str, str]]]:
    ending = {"end_of_word_suffix": word_end} if word_end else {}
    core = Tokenizer(models.BPE(**ending))
    core.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(vocab_size=NUM_PIECES, initial_alphabet=alphabet, show_progress=False, **ending)
    core.train_from_iterator(_texts(), trainer)
    return sorted(core.get_vocab()), [(left, right) for left, right in json.loads(core.to_str())["model"]["merges"]]


@cache
def _scored_pieces() -> Pieces:
    core = Tokenizer(models.Unigram())
    core.pre_tokenizer = pre_tokenizers.Metaspace()
    trainer = trainers.UnigramTrainer(vocab_size=NUM_PIECES, unk_token="<unk>", special_tokens=["<unk>"])
    trainer.show_progress = False
    core.train_from_iterator(_texts(), trainer)
    return [(piece, score) for piece, score in json.loads(core.to_str())["model"]["vocab"] if piece != "<unk>"]
