"""Tiny cross-encoders with random weights, on our side and on the peer's."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
import transformers
from tokenizers import Tokenizer, models, pre_tokenizers, processors

from sbert_ray import CrossEncoder

WORDS = "yes no a the cat dog sat ran on mat fast slow red blue".split()
PAIRS = [
    ("a cat", "the fast dog ran on the mat"),
    ("red", "blue"),
    ("the " * 30, "a dog"),
    ("a dog", "the cat sat " * 20),
    ("zebra crossing", ""),
    ("red", "blue"),
    ("the dog", "a cat sat on a mat"),
]


def load(folder: Path, **options: Any) -> CrossEncoder:
    return CrossEncoder(str(folder), device="cpu", **options)


def load_peer(folder: Path, **options: Any) -> Any:
    import sentence_transformers as peer

    return peer.CrossEncoder(str(folder), device="cpu", **options)


def assert_close(ours: Any, theirs: Any) -> None:
    np.testing.assert_allclose(ours, theirs, atol=2e-6)


def edit(path: Path, **values: Any) -> None:
    path.write_text(json.dumps(json.loads(path.read_text()) | values))


def word_tokenizer(types: bool = False, left: bool = False) -> Any:
    vocabulary = {word: index for index, word in enumerate(["<s>", "<pad>", "</s>", "<unk>", *WORDS])}
    core = Tokenizer(models.WordLevel(vocabulary, unk_token="<unk>"))
    core.pre_tokenizer = pre_tokenizers.Whitespace()
    second = 1 if types else 0
    core.post_processor = processors.TemplateProcessing(
        single="<s> $A </s>",
        pair=f"<s> $A </s> $B:{second} </s>:{second}",
        special_tokens=[("<s>", 0), ("</s>", 2)],
    )
    return transformers.PreTrainedTokenizerFast(
        tokenizer_object=core,
        pad_token="<pad>",
        bos_token="<s>",
        eos_token="</s>",
        unk_token="<unk>",
        padding_side="left" if left else "right",
        model_max_length=24,
        model_input_names=["input_ids", *(["token_type_ids"] if types else []), "attention_mask"],
    )


SIZES = {"vocab_size": 18, "hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 32}
LONG = {**SIZES, "max_position_embeddings": 40, "pad_token_id": 1}
LLAMA = {**LONG, "num_key_value_heads": 1}
ARCHITECTURES: dict[str, tuple[str, dict[str, Any], Callable[[], Any]]] = {
    "bert": ("Bert", LONG, lambda: word_tokenizer(types=True)),
    "roberta": ("Roberta", LONG, word_tokenizer),
    "xlm-roberta": ("XLMRoberta", LONG, word_tokenizer),
    "distilbert": (
        "DistilBert",
        {"vocab_size": 18, "dim": 16, "n_layers": 2, "n_heads": 2, "hidden_dim": 32, "max_position_embeddings": 40},
        word_tokenizer,
    ),
    "electra": ("Electra", {**LONG, "embedding_size": 16}, lambda: word_tokenizer(types=True)),
    "mpnet": ("MPNet", LONG, word_tokenizer),
    "deberta-v2": (
        "DebertaV2",
        {**LONG, "relative_attention": True, "pos_att_type": ["p2c", "c2p"], "type_vocab_size": 0},
        lambda: word_tokenizer(types=True),
    ),
    "albert": ("Albert", {**LONG, "embedding_size": 8}, lambda: word_tokenizer(types=True)),
    "modernbert": ("ModernBert", {**LONG, "local_attention": 4, "global_attn_every_n_layers": 2}, word_tokenizer),
    "llama, left": ("Llama", LLAMA, lambda: word_tokenizer(left=True)),
    "qwen3, right": ("Qwen3", {**LLAMA, "head_dim": 8}, word_tokenizer),
}


def make_checkpoint(folder: Path, name: str = "bert", num_labels: int = 1) -> Path:
    """Write a transformer with random weights and a head, as transformers writes it."""
    architecture, sizes, tokenizer = ARCHITECTURES[name]
    config = getattr(transformers, f"{architecture}Config")(**sizes, num_labels=num_labels)
    torch.manual_seed(3)
    model = getattr(transformers, f"{architecture}ForSequenceClassification")(config).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.2 * torch.randn_like(parameter))  # heads start so small that all scores are near zero
    model.save_pretrained(folder)
    tokenizer().save_pretrained(folder)
    return folder
