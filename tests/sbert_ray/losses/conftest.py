"""Models for losses: ours and the peer's of the same weights, dropout off."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from sbert_ray import SentenceTransformer
from tests.sbert_ray.losses.oracle import Models


@pytest.fixture(scope="session")
def minilm_pair(minilm: Path) -> tuple[SentenceTransformer, Any]:
    """MiniLM in this library and in the peer."""
    from sentence_transformers import SentenceTransformer as Peer

    return SentenceTransformer(str(minilm), device="cpu"), Peer(str(minilm), device="cpu").eval()


@pytest.fixture
def tiny_model(tiny_checkpoint: Path) -> SentenceTransformer:
    return SentenceTransformer(str(tiny_checkpoint), device="cpu")


@pytest.fixture(scope="session")
def tiny_pair(tiny_checkpoint: Path) -> tuple[SentenceTransformer, Any]:
    """The tiny BERT in this library and in the peer."""
    from sentence_transformers import SentenceTransformer as Peer

    return SentenceTransformer(str(tiny_checkpoint), device="cpu"), Peer(str(tiny_checkpoint), device="cpu").eval()


@pytest.fixture(scope="session")
def models(tiny_checkpoint: Path) -> Models:
    """The same in double precision, with weights that tell texts apart."""
    return Models.load(tiny_checkpoint)


@pytest.fixture(autouse=True)
def seeded_thread() -> Iterator[None]:
    """One thread, as tensors are so small here that more would wait for each other, and the same random numbers."""
    torch.manual_seed(0)
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)
