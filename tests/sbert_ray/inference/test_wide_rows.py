"""Rows that are wide however short their texts: how many of them a batch has."""

import itertools
from typing import Any

import numpy as np
import pytest
import torch

from sbert_ray import SentenceTransformer
from sbert_ray.inference import prepared
from sbert_ray.inference.engine import Encoder, run_batches
from sbert_ray.inference.mixed import Labeled, MixedInputs
from sbert_ray.inference.prepared import Features, Prepared
from sbert_ray.modules import BoW, Dense, InputModule, Router, SparseStaticEmbedding
from tests.sbert_ray.masked_models import VOCABULARY, word_tokenizer

TEXTS = [VOCABULARY[row % 16] for row in range(1000)]


def bag() -> InputModule:
    return BoW(VOCABULARY)


def static() -> InputModule:
    return SparseStaticEmbedding(word_tokenizer())


def routed() -> InputModule:
    return Router({"only": [bag()]})


KINDS = [bag, static, routed]


def rows_by_batch(inputs: Prepared, max_tokens: int = 4096, max_rows: int | None = None) -> list[int]:
    """Return how many rows each batch has; all rows must be there."""
    encoder = Encoder(lambda features: features, torch.device("cpu"))
    batches = [batch.rows for batch in run_batches(encoder, inputs, max_tokens, max_rows)]
    assert sorted(itertools.chain(*batches)) == list(range(len(inputs)))
    return [len(rows) for rows in batches]


@pytest.mark.parametrize("kind", KINDS)
def test_a_batch_of_short_texts_is_bounded_by_the_vocabulary(kind: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    assert max(rows_by_batch(kind().prepare(TEXTS))) > 900  # 16 words are few
    monkeypatch.setattr(prepared, "BATCH_VALUES", 160)
    assert rows_by_batch(kind().prepare(TEXTS)) == [10] * 100
    assert max(rows_by_batch(kind().prepare(TEXTS), max_rows=7)) == 7
    assert max(rows_by_batch(kind().prepare(TEXTS), max_tokens=4)) == 4
    monkeypatch.setattr(prepared, "BATCH_VALUES", 15)
    assert set(rows_by_batch(kind().prepare(TEXTS))) == {1}


def test_real_vocabularies_make_at_most_64_megabytes() -> None:
    seen: list[int] = []

    class Watched(BoW):
        def forward(self, features: Features) -> Features:
            features = super().forward(features)
            seen.append(features["sentence_embedding"].nbytes)
            return features

    words = [f"w{index}" for index in range(50_000)]
    model = SentenceTransformer(modules=[Watched(words), Dense(50_000, 2)], device="cpu")
    assert model.encode(words[:700]).shape == (700, 2)
    model.encode(words[:700], output_value=None)
    assert max(seen) <= 64 * 2**20
    assert len(seen) == 6


def test_results_and_tokens_are_the_same_in_small_batches(monkeypatch: pytest.MonkeyPatch) -> None:
    model = SentenceTransformer(modules=[bag()], device="cpu")
    expected = model.embed_prepared(model.prepare(TEXTS))
    monkeypatch.setattr(prepared, "BATCH_VALUES", 160)
    found = model.embed_prepared(model.prepare(TEXTS))
    np.testing.assert_array_equal(found.embeddings, expected.embeddings)
    assert found.num_tokens == expected.num_tokens


def test_each_group_of_inputs_has_its_own_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    wide, narrow = bag().prepare(TEXTS[:100]), Labeled(bag().prepare(TEXTS[:100]), {})
    monkeypatch.setattr(prepared, "BATCH_VALUES", 160)
    limited = bag().prepare(TEXTS[:100])
    mixed = MixedInputs([(np.arange(100), wide), (np.arange(100, 200), Labeled(limited, {"task": "a"}))])
    assert sorted(rows_by_batch(mixed)) == [10] * 10 + [100]
    assert (narrow.max_rows, mixed.max_rows) == (2**24 // 16, 10)


def test_an_empty_vocabulary_is_no_division_by_zero() -> None:
    assert len(BoW([]).prepare(["a"])) == 1
