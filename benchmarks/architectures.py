"""Checkpoints of every architecture that embeds, small and with random weights, for tests and benchmarks."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
import transformers

from benchmarks import vocabularies

DIMENSION = 32
# Weights larger than a fresh model's, lest attention be so even that what a mask hides makes no difference.
_SPREAD = {"initializer_range": 0.2}
_SIZES = {
    "hidden_size": DIMENSION,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "intermediate_size": 48,
    **_SPREAD,
}
_POSITIONS = {"max_position_embeddings": 64}
_ENCODER = {**_SIZES, **_POSITIONS}
_T5 = {"d_model": DIMENSION, "d_kv": 16, "d_ff": 48, "num_layers": 2, "num_heads": 2, "initializer_factor": 1.0}
_SEQUENCE = {  # an encoder and a decoder, as BART and those after it call their sizes
    "d_model": DIMENSION,
    **{f"{side}_{name}": 2 for side in ("encoder", "decoder") for name in ("layers", "attention_heads")},
    "encoder_ffn_dim": 48,
    "decoder_ffn_dim": 48,
    "init_std": 0.2,
    **_POSITIONS,
}
_DECODER = {**_ENCODER, "num_key_value_heads": 1, "head_dim": 16}

CLASSES = {
    "feature-extraction": transformers.AutoModel,
    "fill-mask": transformers.AutoModelForMaskedLM,
    "sequence-classification": transformers.AutoModelForSequenceClassification,
    "text-generation": transformers.AutoModelForCausalLM,
}
"""What makes a model for a task."""


@dataclass(frozen=True)
class Architecture:
    """A kind of transformer, how large it is here, and the tokenizer or processor that goes with it."""

    model_type: str
    sizes: Mapping[str, Any]
    tokenizer: Callable[[], Any]
    task: str = "feature-extraction"
    """What the checkpoint holds unless another task is asked for."""
    heads: tuple[str, ...] = ()
    """Further tasks, for which sparse models and cross-encoders of this kind are in use."""
    is_encoder: bool = False
    """Whether the checkpoint holds the encoder alone of an encoder-decoder model."""

    @property
    def pooling(self) -> str | None:
        """The pooling that a checkpoint gets which says nothing about it; None if the transformer gives one vector."""
        if self.model_type == "clip":
            return None
        return "lasttoken" if self.task == "text-generation" else "mean"

    def write(self, folder: Path, task: str | None = None, **fields: Any) -> None:
        """Write a checkpoint of transformers, with the same weights each time.

        Args:
            folder: Where to.
            task: One of `CLASSES`; the architecture's own if None.
            fields: Of the config, besides the sizes.
        """
        processor = self.tokenizer()
        tokenizer = getattr(processor, "tokenizer", processor)
        known = {"vocab_size": len(tokenizer), "pad_token_id": tokenizer.pad_token_id}
        special = {name: getattr(tokenizer, name) for name in ("bos_token_id", "eos_token_id")}
        config = transformers.AutoConfig.for_model(self.model_type, **{**known, **special, **self.sizes, **fields})
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            model = CLASSES[task or self.task].from_config(config).eval()
        (model.get_encoder() if self.is_encoder else model).save_pretrained(folder)
        processor.save_pretrained(folder)


def _decoder(left: bool, **options: Any) -> Callable[[], Any]:
    side = "left" if left else "right"
    return partial(vocabularies.byte_level, padding_side=side, **options)


_ENDS: Any = {
    "special": ("<|end|>", "yes", "no"),
    "template": "$A <|end|>",
    "pad_token": "<|end|>",
    "eos_token": "<|end|>",
}
_BEGINS: Any = {
    "special": ("<|begin|>", "<|end|>", "<|pad|>"),
    "bos_token": "<|begin|>",
    "eos_token": "<|end|>",
    "pad_token": "<|pad|>",
    "add_bos_token": True,
}
_SQUARE_BYTES = partial(
    vocabularies.byte_level,
    "[CLS] $A [SEP]",
    ("[CLS]", "[SEP]", "[PAD]", "[UNK]", "[MASK]"),
    **{f"{name}_token": f"[{name.upper()}]" for name in ("cls", "sep", "pad", "unk", "mask")},
)
_TOWER = {**_SIZES, "projection_dim": DIMENSION}
_BOTH = ("fill-mask", "sequence-classification")

ARCHITECTURES = {
    "BERT": Architecture("bert", _ENCODER, vocabularies.wordpiece, heads=_BOTH),
    "RoBERTa": Architecture("roberta", _ENCODER, vocabularies.roberta, heads=_BOTH),
    "XLM-R": Architecture("xlm-roberta", _ENCODER, vocabularies.xlm_roberta, heads=_BOTH),
    "CamemBERT": Architecture("camembert", _ENCODER, vocabularies.camembert, heads=_BOTH),
    "DistilBERT": Architecture(
        "distilbert",
        {"dim": DIMENSION, "n_layers": 2, "n_heads": 2, "hidden_dim": 48, **_SPREAD, **_POSITIONS},
        vocabularies.distilbert,
        heads=_BOTH,
    ),
    "ELECTRA": Architecture("electra", {**_ENCODER, "embedding_size": 16}, vocabularies.wordpiece, heads=_BOTH),
    "MPNet": Architecture("mpnet", _ENCODER, vocabularies.mpnet, heads=_BOTH),
    "ALBERT": Architecture("albert", {**_ENCODER, "embedding_size": 16}, vocabularies.albert, heads=_BOTH),
    "DeBERTa-v2": Architecture(
        "deberta-v2",
        {
            **_ENCODER,
            "relative_attention": True,
            "position_buckets": 8,
            "pos_att_type": ["p2c", "c2p"],
            "norm_rel_ebd": "layer_norm",
            "share_att_key": True,
            "position_biased_input": False,
        },
        vocabularies.deberta,
        heads=_BOTH,
    ),
    "ModernBERT": Architecture(
        "modernbert", {**_ENCODER, "local_attention": 8, "global_attn_every_n_layers": 2}, _SQUARE_BYTES, heads=_BOTH
    ),
    "NomicBERT": Architecture("nomic_bert", _ENCODER, vocabularies.wordpiece),
    "GTE": Architecture("gte", _ENCODER, vocabularies.xlm_roberta),
    "Jina v3": Architecture("jina_embeddings_v3", _ENCODER, vocabularies.xlm_roberta),
    "EuroBERT": Architecture("eurobert", _DECODER, _SQUARE_BYTES),
    "DeBERTa": Architecture(
        "deberta", {**_ENCODER, "relative_attention": True, "pos_att_type": ["p2c", "c2p"]}, _SQUARE_BYTES
    ),
    "Longformer": Architecture("longformer", {**_ENCODER, "attention_window": 8}, vocabularies.roberta),
    "XLNet": Architecture(
        "xlnet", {"d_model": DIMENSION, "n_layer": 2, "n_head": 2, "d_inner": 48, **_SPREAD}, vocabularies.xlnet
    ),
    "XLM": Architecture(
        "xlm",
        {"emb_dim": DIMENSION, "n_layers": 2, "n_heads": 2, "init_std": 0.2, "embed_init_std": 0.2, **_POSITIONS},
        vocabularies.xlm_roberta,
    ),
    "Qwen3": Architecture("qwen3", _DECODER, _decoder(True, **_ENDS), "text-generation", heads=("text-generation",)),
    "Qwen3, padded right": Architecture("qwen3", _DECODER, _decoder(False, **_ENDS), "text-generation"),
    "Llama": Architecture(
        "llama", _DECODER, _decoder(True, **_BEGINS), "text-generation", heads=("sequence-classification",)
    ),
    "Llama, padded right": Architecture("llama", _DECODER, _decoder(False, **_BEGINS), "text-generation"),
    "Mistral": Architecture("mistral", {**_DECODER, "sliding_window": 8}, _decoder(True, **_BEGINS), "text-generation"),
    "GPT-2": Architecture(
        "gpt2",
        {"n_embd": DIMENSION, "n_layer": 2, "n_head": 2, **_SPREAD, "n_positions": 64},
        _decoder(False, **_ENDS),
    ),
    "EmbeddingGemma": Architecture(
        "gemma3_text",
        {
            **_DECODER,
            "use_bidirectional_attention": True,
            "sliding_window": 8,
            "layer_types": ["sliding_attention", "full_attention"],
        },
        _decoder(False, **_BEGINS),
    ),
    "T5": Architecture("t5", _T5, vocabularies.t5),
    "mT5": Architecture("mt5", {**_T5, "feed_forward_proj": "gated-gelu"}, vocabularies.t5),
    "UMT5": Architecture("umt5", {**_T5, "feed_forward_proj": "gated-gelu"}, vocabularies.t5),
    "LongT5": Architecture("longt5", {**_T5, "local_radius": 7}, vocabularies.t5),
    "Switch": Architecture("switch_transformers", {**_T5, "num_experts": 2, "expert_capacity": 99}, vocabularies.t5),
    "T5Gemma": Architecture(
        "t5gemma",
        {
            side: {**_DECODER, "layer_types": ["sliding_attention", "full_attention"], "sliding_window": 8}
            for side in ("encoder", "decoder")
        },
        vocabularies.t5,
    ),
    "M2M100": Architecture("m2m_100", _SEQUENCE, vocabularies.xlm_roberta, is_encoder=True),
    "Marian": Architecture("marian", _SEQUENCE, vocabularies.t5, is_encoder=True),
    "Pegasus": Architecture("pegasus", _SEQUENCE, vocabularies.pegasus, is_encoder=True),
    "Pegasus-X": Architecture(
        "pegasus_x", {**_SEQUENCE, "num_global_tokens": 4, "block_size": 8}, vocabularies.pegasus, is_encoder=True
    ),
    "ProphetNet": Architecture(
        "prophetnet",
        {
            "hidden_size": DIMENSION,
            **{f"num_{side}_{name}": 2 for side in ("encoder", "decoder") for name in ("layers", "attention_heads")},
            "encoder_ffn_dim": 48,
            "decoder_ffn_dim": 48,
            "init_std": 0.2,
            **_POSITIONS,
        },
        vocabularies.wordpiece,
        is_encoder=True,
    ),
    "Blenderbot": Architecture("blenderbot", _SEQUENCE, vocabularies.roberta, is_encoder=True),
    "Blenderbot-small": Architecture("blenderbot-small", _SEQUENCE, vocabularies.roberta, is_encoder=True),
    "BART": Architecture("bart", _SEQUENCE, vocabularies.roberta, heads=("sequence-classification",)),
    "mBART": Architecture("mbart", _SEQUENCE, vocabularies.mbart),
    "PLBart": Architecture("plbart", _SEQUENCE, vocabularies.roberta),
    "MVP": Architecture("mvp", _SEQUENCE, vocabularies.roberta),
    "LED": Architecture("led", {**_SEQUENCE, "attention_window": 8}, vocabularies.roberta),
    "BigBird-Pegasus": Architecture(
        "bigbird_pegasus", {**_SEQUENCE, "attention_type": "original_full"}, vocabularies.pegasus
    ),
    "FSMT": Architecture(
        "fsmt", {**_SEQUENCE, "langs": ["en", "de"], "src_vocab_size": 600, "tgt_vocab_size": 600}, vocabularies.t5
    ),
    "CLIP": Architecture(
        "clip",
        {
            "projection_dim": DIMENSION,
            "text_config": {**_TOWER, **_POSITIONS, "vocab_size": 600, "eos_token_id": 1, "pad_token_id": 1},
            "vision_config": {**_TOWER, "image_size": vocabularies.IMAGE_SIZE, "patch_size": 8},
        },
        vocabularies.clip,
    ),
}
"""By the name that tables give them."""
