"""Masked language models of many kinds, small and with random weights, as plain checkpoints."""

from pathlib import Path
from typing import Any

import torch
import transformers
from tokenizers import Tokenizer, models, pre_tokenizers, processors
from transformers import AutoModelForMaskedLM, PreTrainedModel

WORDS = "a the cat dog sat ran on mat fast slow red blue".split()
VOCABULARY = ["<s>", "<pad>", "</s>", "<unk>", *WORDS]
TEXTS = [
    "a cat",
    "",
    "the fast dog ran on the mat",
    "red",
    "zebra crossing",
    "a cat",
    "the " * 50,
    "the dog sat on a mat",
]

_SPREAD = {"initializer_range": 0.3}  # more than a fresh model's, lest all logits be alike
_SIZES = {
    "vocab_size": len(VOCABULARY),
    "hidden_size": 24,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "intermediate_size": 32,
    "max_position_embeddings": 40,
    "pad_token_id": 1,
    "bos_token_id": 0,
    "eos_token_id": 2,
    **_SPREAD,
}
CONFIGS: dict[str, Any] = {
    "albert": transformers.AlbertConfig(**_SIZES, embedding_size=12),
    "bert": transformers.BertConfig(**_SIZES),
    "deberta-v2": transformers.DebertaV2Config(
        **_SIZES, relative_attention=True, pos_att_type=["p2c", "c2p"], legacy=True
    ),
    "deberta-v2, new head": transformers.DebertaV2Config(**_SIZES, legacy=False),
    "distilbert": transformers.DistilBertConfig(
        vocab_size=16,
        dim=24,
        n_layers=2,
        n_heads=2,
        hidden_dim=32,
        max_position_embeddings=40,
        pad_token_id=1,
        **_SPREAD,
    ),
    "electra": transformers.ElectraConfig(**_SIZES, embedding_size=12),
    "mobilebert": transformers.MobileBertConfig(
        **(_SIZES | {"num_attention_heads": 4}), embedding_size=12, intra_bottleneck_size=16, true_hidden_size=16
    ),
    "modernbert": transformers.ModernBertConfig(
        **_SIZES, local_attention=4, global_attn_every_n_layers=2, cls_token_id=0, sep_token_id=2
    ),
    "mpnet": transformers.MPNetConfig(**_SIZES),
    "roberta": transformers.RobertaConfig(**_SIZES),
    "xlm": transformers.XLMConfig(
        vocab_size=16, emb_dim=24, n_layers=2, n_heads=2, max_position_embeddings=40, pad_index=1, pad_token_id=1
    ),
    "xlm-roberta": transformers.XLMRobertaConfig(**_SIZES),
}
WITHOUT_PROJECTION = {"deberta-v2, new head", "mobilebert"}
"""Those that multiply by an embedding matrix instead of calling a layer."""


def masked_model(name: str) -> PreTrainedModel:
    """Return a model with random weights, and random biases too, since a new one has zeros."""
    torch.manual_seed(0)
    model = AutoModelForMaskedLM.from_config(CONFIGS[name]).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.ndim == 1:
                parameter.add_(torch.randn_like(parameter) / 4)
    return model


def word_tokenizer(**options: Any) -> Any:
    """Return a tokenizer of twelve words."""
    core = Tokenizer(models.WordLevel({word: index for index, word in enumerate(VOCABULARY)}, unk_token="<unk>"))
    core.pre_tokenizer = pre_tokenizers.Whitespace()
    special = [("<s>", 0), ("</s>", 2)]
    core.post_processor = processors.TemplateProcessing(single="<s> $A </s>", special_tokens=special)
    names = {"pad_token": "<pad>", "bos_token": "<s>", "eos_token": "</s>", "unk_token": "<unk>"}
    settings = {"model_max_length": 24, "model_input_names": ["input_ids", "attention_mask"]}
    return transformers.PreTrainedTokenizerFast(tokenizer_object=core, **names, **settings | options)


def save_masked(name: str, folder: Path, **options: Any) -> Path:
    """Write a model and its tokenizer as a plain checkpoint, and return its folder."""
    masked_model(name).save_pretrained(folder)
    word_tokenizer(**options).save_pretrained(folder)
    return folder
