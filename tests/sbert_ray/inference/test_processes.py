"""A model in several processes gives what it gives in one, and tells what goes wrong in them."""

import os
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from sbert_ray import SentenceTransformer
from sbert_ray.inference.processes import Pool

WORDS = "a the cat dog sat ran on mat fast slow red blue".split()
TEXTS = [" ".join(WORDS[: 1 + row * 7 % 12]) for row in range(50)]


@pytest.fixture(scope="module")
def model(tiny_checkpoint: Path) -> SentenceTransformer:
    return SentenceTransformer(tiny_checkpoint, device="cpu", prompts={"query": "a red "}, default_prompt_name="query")


@pytest.fixture(scope="module")
def pool(model: SentenceTransformer) -> Iterator[Pool]:
    pool = model.start_multi_process_pool(["cpu", "cpu"])
    yield pool
    model.stop_multi_process_pool(pool)


@pytest.mark.parametrize("chunk_size", [None, 1, 7, 1000])
def test_gives_what_one_process_gives(model: SentenceTransformer, pool: Pool, chunk_size: int | None) -> None:
    for options in ({}, {"prompt": ""}, {"truncate_dim": 4, "normalize_embeddings": True}):
        embeddings = model.encode(TEXTS, pool=pool, chunk_size=chunk_size, **options)
        np.testing.assert_allclose(embeddings, model.encode(TEXTS, **options), atol=1e-6)
    assert model.encode("a cat", pool=pool).shape == (16,)
    assert model.encode([], pool=pool).shape == (0, 16)
    assert model.encode([], pool=pool, truncate_dim=4).shape == (0, 4)


def test_quantizes_all_chunks_together(model: SentenceTransformer, pool: Pool) -> None:
    together = model.encode(TEXTS, pool=pool, chunk_size=5, precision="int8")
    assert (together != model.encode(TEXTS, precision="int8")).mean() < 0.01  # a value on an edge may fall either way


def test_returns_tensors_and_features(model: SentenceTransformer, pool: Pool) -> None:
    expected = model.encode(TEXTS, convert_to_tensor=True)
    torch.testing.assert_close(model.encode(TEXTS, convert_to_tensor=True, pool=pool), expected)
    tokens = model.encode(TEXTS, output_value="token_embeddings", pool=pool, chunk_size=9)
    for mine, yours in zip(tokens, model.encode(TEXTS, output_value="token_embeddings"), strict=True):
        torch.testing.assert_close(mine, yours)
    features = model.encode(TEXTS, output_value=None, pool=pool, chunk_size=9)
    torch.testing.assert_close(torch.stack([row["sentence_embedding"] for row in features]), expected)


def test_a_failure_is_told_with_its_place_and_leaves_the_pool_usable(model: SentenceTransformer, pool: Pool) -> None:
    with pytest.raises(
        RuntimeError, match=r"(?s)process of the pool failed:\non cpu, with inputs from row \d+ on: .*batch_tokens must"
    ):
        model.encode(TEXTS, pool=pool, chunk_size=1, max_batch_tokens=-1)
    np.testing.assert_allclose(model.encode(TEXTS, pool=pool), model.encode(TEXTS), atol=1e-6)


def test_shows_progress(model: SentenceTransformer, pool: Pool, capfd: pytest.CaptureFixture[str]) -> None:
    model.encode(TEXTS, pool=pool, show_progress_bar=True)
    assert "50/50" in capfd.readouterr().err


def test_a_chunk_has_texts(model: SentenceTransformer, pool: Pool) -> None:
    with pytest.raises(ValueError, match="chunk_size must be positive, got 0"):
        model.encode(TEXTS, pool=pool, chunk_size=0)


def test_several_devices_are_a_pool_for_one_call(model: SentenceTransformer) -> None:
    options: dict[str, Any] = {"device": ["cpu"]}
    np.testing.assert_allclose(model.encode_query(TEXTS, **options), model.encode_query(TEXTS), atol=1e-6)


def test_processes_that_die_are_noticed(model: SentenceTransformer) -> None:
    pool = model.start_multi_process_pool(["cpu"])
    os.kill(pool["processes"][0].pid, signal.SIGKILL)
    with pytest.raises(RuntimeError, match=r"1 process\(es\) of the pool died, with exit code\(s\) \[-9\]; start an"):
        model.encode(TEXTS, pool=pool)
    model.stop_multi_process_pool(pool)
