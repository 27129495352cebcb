"""The engine: memory that runs out, runs in parts, interruption, and nothing left behind."""

import gc
import threading
import tracemalloc
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest
import torch

from sbert_ray import SentenceTransformer
from sbert_ray.inference.engine import DEVICE_PROFILES, Encoder, embed, max_tokens_for, run_batches
from sbert_ray.inference.prepared import Features
from sbert_ray.inference.tokenized import TokenizedTexts
from sbert_ray.models import model as model_module
from sbert_ray.modules.work import activation_bytes, attention_length

CPU = torch.device("cpu")


def texts_of(lengths: list[int]) -> TokenizedTexts:
    offsets = np.concatenate([[0], np.cumsum(lengths)])
    return TokenizedTexts(np.arange(offsets[-1], dtype=np.int32), offsets)


class Device:
    """Computes the sum of ids, and has room for so many positions."""

    def __init__(self, room: int) -> None:
        self.room = room
        self.sizes: list[int] = []

    def __call__(self, features: Features) -> Features:
        ids = features["input_ids"]
        self.sizes.append(ids.numel())
        if ids.numel() > self.room:
            raise torch.OutOfMemoryError("no room")
        if (packing := features.get("packing")) is not None:
            sums = [view.sum(1) for (view,) in packing.by_length(ids)]
            return {"sentence_embedding": torch.cat(sums).float()[:, None]}
        return {"sentence_embedding": (ids * features["attention_mask"]).sum(1).float()[:, None]}


@pytest.mark.parametrize("packed", [None, {}])
def test_a_batch_that_does_not_fit_is_halved_and_remembered(packed: Features | None) -> None:
    device = Device(room=20)
    encoder = Encoder(device, CPU, lambda _: packed)
    inputs = texts_of([4] * 16)
    run = embed(encoder, inputs, 64, lambda features: features["sentence_embedding"])
    assert run.num_halvings == 2
    assert run.embeddings[:, 0].tolist() == [sum(range(4 * row, 4 * row + 4)) for row in range(16)]
    assert encoder.budget.max_positions == 16
    assert device.sizes == [64, 32, 16, 16, 16, 16], "the other half of what did not fit is not tried whole"
    device.sizes.clear()
    again = embed(encoder, inputs, 64, lambda features: features["sentence_embedding"])
    assert again.num_halvings == 0
    assert device.sizes == [16, 16, 16, 16], "a later call knows"
    np.testing.assert_array_equal(again.embeddings, run.embeddings)


def test_a_single_row_that_does_not_fit_fails() -> None:
    with pytest.raises(torch.OutOfMemoryError, match="no room"):
        list(run_batches(Encoder(Device(room=3), CPU), texts_of([2, 4]), 64))


def test_what_fails_in_a_reader_of_batches_is_not_taken_for_a_full_device() -> None:
    device = Device(room=100)
    batches = run_batches(Encoder(device, CPU), texts_of([4] * 4), 8)
    next(batches)
    with pytest.raises(torch.OutOfMemoryError):
        batches.throw(torch.OutOfMemoryError("elsewhere"))
    assert len(device.sizes) == 1


def test_rows_without_tokens_are_padded_among_packed_ones() -> None:
    device = Device(room=100)
    encoder = Encoder(device, CPU, lambda _: {})
    run = embed(encoder, texts_of([3, 0, 2, 0]), 64, lambda features: features["sentence_embedding"])
    assert run.embeddings[:, 0].tolist() == [3, 0, 7, 0]
    assert (run.num_tokens, run.num_padded_tokens) == (5, 7)


def test_batches_do_not_depend_on_the_order_of_equal_work() -> None:
    lengths = np.random.default_rng(0).integers(1, 50, 300)
    first = [batch.num_positions for batch in run_batches(Encoder(Device(10**9), CPU), texts_of(lengths.tolist()), 256)]
    again = [batch.num_positions for batch in run_batches(Encoder(Device(10**9), CPU), texts_of(lengths.tolist()), 256)]
    assert first == again


class Properties:
    """Of a small GPU."""

    total_memory = 2**30


def test_small_gpus_get_small_batches(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda _: Properties)
    gpu = torch.device("cuda")
    assert max_tokens_for(gpu, 0) == max_tokens_for(gpu, 16) == DEVICE_PROFILES["cuda"].max_tokens
    assert max_tokens_for(gpu, 2**14) == 2**14
    assert max_tokens_for(gpu, 2**40) == 1
    assert max_tokens_for(CPU, 2**40) == DEVICE_PROFILES["cpu"].max_tokens


def test_work_and_memory_come_from_the_config(tiny_checkpoint: Path) -> None:
    config = SentenceTransformer(str(tiny_checkpoint), device="cpu").config
    assert attention_length(config) == 2 * config.hidden_size + config.intermediate_size
    assert activation_bytes(config, torch.float32) == 2 * activation_bytes(config, torch.bfloat16) > 0
    assert attention_length(None) is None
    assert activation_bytes(None, torch.float32) == 0


@pytest.fixture
def in_parts(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr(model_module, "PART_ROWS", 7)
    yield
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("prefetch")]


@pytest.mark.usefixtures("in_parts")
def test_parts_come_together_in_order(tiny_checkpoint: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model = SentenceTransformer(str(tiny_checkpoint), device="cpu")
    texts = [f"word {'more ' * (row % 5)}{row}" for row in range(30)]
    found = model.encode(texts)
    tokens = model.encode(texts, output_value="token_embeddings")
    assert len(tokens) == 30
    monkeypatch.setattr(model_module, "PART_ROWS", 1000)
    np.testing.assert_allclose(found, model.encode(texts), atol=1e-6)


@pytest.mark.usefixtures("in_parts")
def test_errors_of_the_thread_that_prepares_reach_the_caller(tiny_checkpoint: Path) -> None:
    model = SentenceTransformer(str(tiny_checkpoint), device="cpu")
    with pytest.raises(ValueError, match="row 25 has a lone surrogate"):
        model.encode(["a"] * 25 + ["\ud800"] + ["a"] * 25)


class Interrupted(BaseException):
    """Like a KeyboardInterrupt."""


@pytest.mark.usefixtures("in_parts")
def test_an_interruption_stops_the_thread(tiny_checkpoint: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model = SentenceTransformer(str(tiny_checkpoint), device="cpu")
    calls: list[int] = []

    def interrupted(*_: Any, **__: Any) -> Any:
        calls.append(1)
        raise Interrupted

    monkeypatch.setattr(model, "embed_prepared", interrupted)
    with pytest.raises(Interrupted):
        model.encode(["a text"] * 1000)
    assert len(calls) == 1


@pytest.mark.slow
@pytest.mark.usefixtures("in_parts")
def test_a_thousand_calls_leave_nothing_behind(tiny_checkpoint: Path) -> None:
    model = SentenceTransformer(str(tiny_checkpoint), device="cpu")
    texts = ["a", "a few words", "", "b"] * 2

    def run(times: int) -> None:
        for _ in range(times):
            model.encode(texts)

    run(20)  # caches fill
    gc.collect()
    threads, memory = threading.active_count(), psutil.Process().memory_info().rss
    tracemalloc.start()
    try:
        run(10)
        gc.collect()
        before = tracemalloc.get_traced_memory()[0]
        run(50)
        gc.collect()
        after = tracemalloc.get_traced_memory()[0]
    finally:
        tracemalloc.stop()
    run(1000)
    gc.collect()
    assert after - before < 50_000
    assert psutil.Process().memory_info().rss - memory < 64 * 2**20
    assert threading.active_count() == threads
