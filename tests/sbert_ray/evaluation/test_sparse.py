"""Evaluators of sparse embeddings against the peer."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from sbert_ray import evaluation
from tests.sbert_ray.evaluation.oracle import SparseTexts, assert_same, words

peer = pytest.importorskip("sentence_transformers.sparse_encoder.evaluation")

pytestmark = pytest.mark.filterwarnings("ignore:Sparse invariant checks are implicitly disabled")  # the peer's

RNG = np.random.default_rng(0)
A, B, C = words("a", 30), words("b", 30), words("c", 30)
SAMPLES = [
    {"query": query, "positive": words(f"p{query}", 1 + number % 2), "negative": words(f"n{query}", number % 5)}
    for number, query in enumerate(A)
]
RELEVANT = {f"q{i}": {f"d{i}", f"d{29 - i}"} for i in range(20)}
CASES: dict[str, tuple[Any, ...]] = {
    "SparseBinaryClassificationEvaluator": (A, B, RNG.integers(0, 2, 30).tolist()),
    "SparseEmbeddingSimilarityEvaluator": (A, B, RNG.integers(0, 4, 30).astype(float).tolist()),
    "SparseTripletEvaluator": (A, B, C),
    "SparseTranslationEvaluator": (A, B),
    "SparseMSEEvaluator": (A, B, SparseTexts(levels=2, dim=16)),
    "SparseRerankingEvaluator": (SAMPLES,),
    "SparseInformationRetrievalEvaluator": (
        {f"q{i}": text for i, text in enumerate(A)},
        {f"d{i}": text for i, text in enumerate(B)},
        RELEVANT,
    ),
}


@pytest.mark.parametrize("options", [{}, {"name": "dev", "max_active_dims": 3}, {"write_csv": False}])
@pytest.mark.parametrize("name", CASES)
def test_equals_the_peer(name: str, options: dict[str, Any], tmp_path: Path) -> None:
    model = SparseTexts(dim=16, similarity_fn_name="dot")
    theirs = getattr(peer, name)(*CASES[name], **options)
    assert_same(getattr(evaluation, name)(*CASES[name], **options), theirs, model, tmp_path)


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("SparseRerankingEvaluator", {"use_batched_encoding": False}),
        ("SparseInformationRetrievalEvaluator", {"corpus_chunk_size": 7, "query_prompt": "q "}),
        ("SparseTripletEvaluator", {"similarity_fn_names": ["dot", "cosine", "euclidean", "manhattan"], "margin": 1}),
        ("SparseEmbeddingSimilarityEvaluator", {"similarity_fn_names": ["euclidean", "manhattan"]}),
        ("SparseBinaryClassificationEvaluator", {"similarity_fn_names": ["dot", "cosine"]}),
    ],
)
def test_options_are_as_with_the_peer(name: str, options: dict[str, Any], tmp_path: Path) -> None:
    model = SparseTexts(dim=16, similarity_fn_name="dot")
    theirs = getattr(peer, name)(*CASES[name], **options)
    assert_same(getattr(evaluation, name)(*CASES[name], **options), theirs, model, tmp_path)


def test_a_real_model_scores_as_with_the_peer(tiny_splade: Path) -> None:
    from sentence_transformers import SparseEncoder as Theirs

    from sbert_ray import SparseEncoder

    texts = [f"{first} {second}" for first in ("cat", "dog", "mat") for second in ("ran", "sat", "fast")]
    columns = (texts, texts[4:] + texts[:4], [number % 2 for number in range(9)])
    got = evaluation.SparseBinaryClassificationEvaluator(*columns)(SparseEncoder(str(tiny_splade), device="cpu"))
    expected = peer.SparseBinaryClassificationEvaluator(*columns)(Theirs(str(tiny_splade), device="cpu"))
    assert got == pytest.approx(expected, rel=1e-4)


def test_what_a_model_cannot_do_is_refused() -> None:
    class Plain:
        def encode(self, texts: Any, batch_size: int = 32) -> torch.Tensor:
            return SparseTexts(dim=16).encode(texts)

    assert evaluation.SparseTranslationEvaluator(A, B)(Plain())["active_dims"] > 0
    with pytest.raises(ValueError, match=r"max_active_dims must be an argument of .*encode to be used, got max"):
        evaluation.SparseTranslationEvaluator(A, B, max_active_dims=3)(Plain())
