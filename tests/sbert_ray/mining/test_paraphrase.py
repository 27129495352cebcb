"""The most similar pairs, against brute force and the peer."""

from typing import Any

import numpy as np
import pytest
import torch

from sbert_ray.mining import paraphrase as module
from sbert_ray.mining import paraphrase_mining, paraphrase_mining_embeddings
from sbert_ray.similarity import dot_score, euclidean_sim

peer = pytest.importorskip("sentence_transformers.util")


def integers(count: int, seed: int = 0, levels: int = 2) -> torch.Tensor:
    """Return embeddings with many equal dot products, all exact."""
    return torch.from_numpy(np.random.default_rng(seed).integers(-levels, levels + 1, (count, 5)).astype(np.float32))


def brute_force(embeddings: torch.Tensor, top_k: int, max_pairs: int) -> list[list[float]]:
    scores = (embeddings @ embeddings.T).tolist()
    pairs = set()
    for i, row in enumerate(scores):
        others = sorted((-score, j) for j, score in enumerate(row) if j != i)
        pairs |= {(score, min(i, j), max(i, j)) for score, j in others[:top_k]}
    return [[-score, i, j] for score, i, j in sorted(pairs)[:max_pairs]]


@pytest.mark.parametrize("chunks", [(5000, 100_000), (7, 11), (20, 25), (60, 59)])
@pytest.mark.parametrize(("top_k", "max_pairs"), [(100, 500_000), (3, 500_000), (1, 500_000), (5, 40), (100, 7)])
@pytest.mark.parametrize("sparse", [False, True])
def test_is_brute_force_whatever_the_chunks(chunks: Any, top_k: int, max_pairs: int, sparse: bool) -> None:
    matrix = integers(60)
    got = paraphrase_mining_embeddings(matrix.to_sparse() if sparse else matrix, *chunks, max_pairs, top_k, dot_score)
    assert got == brute_force(matrix, top_k, max_pairs)


@pytest.mark.parametrize("top_k", [1, 4, 100])
@pytest.mark.parametrize("function", [dot_score, euclidean_sim])
def test_equals_the_peer_without_ties(top_k: int, function: Any) -> None:
    matrix = torch.from_numpy(np.random.default_rng(0).normal(size=(50, 8)).astype(np.float32))
    got = paraphrase_mining_embeddings(matrix, 7, 11, 400, top_k, function)
    expected = peer.paraphrase_mining_embeddings(matrix, 7, 11, 400, top_k, function)
    assert [pair[1:] for pair in got] == [pair[1:] for pair in expected]
    assert [pair[0] for pair in got] == pytest.approx([pair[0] for pair in expected], rel=1e-4, abs=1e-5)


def test_memory_is_bounded_by_the_pairs(monkeypatch: pytest.MonkeyPatch) -> None:
    sizes = []
    best = module._best

    def watched(found: Any, more: Any, max_pairs: int) -> Any:
        sizes.append((len(found.keys), len(more.keys)))
        return best(found, more, max_pairs)

    monkeypatch.setattr(module, "_best", watched)
    paraphrase_mining_embeddings(integers(200), 10, 50, 30, 4, dot_score)
    assert len(sizes) == 20
    assert max(kept for kept, _ in sizes) == 30
    assert max(new for _, new in sizes) == 10 * 4


def test_few_rows_have_few_pairs() -> None:
    assert paraphrase_mining_embeddings(torch.zeros(0, 3)) == []
    assert paraphrase_mining_embeddings(torch.ones(1, 3)) == []
    assert paraphrase_mining_embeddings(torch.ones(2, 4)) == [[1.0, 0, 1]]


def test_a_model_embeds_the_texts() -> None:
    class Model:
        def encode(self, texts: Any, **options: Any) -> Any:
            self.options = options
            return torch.tensor([[float(len(text)), 1.0] for text in texts])

    model = Model()
    assert paraphrase_mining(model, ["a", "bbbb", "ccccc"], prompt="x", top_k=1)[0][1:] == [1, 2]
    assert model.options == {"show_progress_bar": False, "batch_size": 32, "convert_to_tensor": True, "prompt": "x"}


@pytest.mark.parametrize("name", ["query_chunk_size", "corpus_chunk_size", "max_pairs", "top_k"])
def test_numbers_must_be_positive(name: str) -> None:
    with pytest.raises(ValueError, match="must be positive, got 0"):
        paraphrase_mining_embeddings(integers(4), **{name: 0})


def test_a_model_that_takes_nothing_but_texts_is_enough() -> None:
    matrix = integers(6)

    class Plain:
        def encode(self, texts: Any) -> Any:
            return matrix

    class Numbered:
        def encode(self, texts: Any, batch_size: int = 32, /) -> Any:
            return matrix

    expected = paraphrase_mining_embeddings(matrix)
    for model in (Plain(), Numbered()):
        assert paraphrase_mining(model, list("abcdef")) == expected
