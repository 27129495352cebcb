"""The nearest rows against a stable sort of all scores."""

import numpy as np
import pytest
import torch

from sbert_ray.embeddings import to_csr
from sbert_ray.search.neighbors import Neighbors, best, merge, nearest
from sbert_ray.similarity import cos_sim, dot_score, euclidean_sim, manhattan_sim

GENERATOR = np.random.default_rng(0)
# Small integers give many equal dot products, and the same ones however they are computed.
QUERIES = GENERATOR.integers(-1, 2, (13, 6)).astype(np.float32)
CORPUS = GENERATOR.integers(-1, 2, (57, 6)).astype(np.float32)
KINDS = {
    "array": np.asarray,
    "tensor": torch.tensor,
    "list": np.ndarray.tolist,
    "half precision": lambda x: torch.tensor(x).half(),
    "coo": lambda x: torch.tensor(x).to_sparse(),
    "csr": lambda x: to_csr(torch.tensor(x)),
}


def by_sorting(scores: np.ndarray, k: int) -> tuple[np.ndarray, np.ndarray]:
    """Return the scores and ids of the best, ties by id."""
    ids = np.argsort(-scores, axis=1, kind="stable")[:, :k]
    return np.take_along_axis(scores, ids, 1), ids


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("k", [1, 5, 56, 57, 100])
@pytest.mark.parametrize("chunks", [(100, 500_000), (4, 10), (1, 1), (13, 57)], ids=str)
def test_best_are_those_of_a_stable_sort_whatever_the_chunks(kind, k, chunks):
    scores, ids = nearest(KINDS[kind](QUERIES), KINDS[kind](CORPUS), k, dot_score, *chunks)
    expected_scores, expected_ids = by_sorting(QUERIES @ CORPUS.T, k)
    np.testing.assert_array_equal(ids, expected_ids)
    np.testing.assert_array_equal(scores, expected_scores)


@pytest.mark.parametrize("function", [cos_sim, euclidean_sim, manhattan_sim], ids=lambda f: f.__name__)
@pytest.mark.parametrize("kind", KINDS)
def test_scores_are_those_of_the_function(function, kind):
    scores, ids = nearest(KINDS[kind](QUERIES), KINDS[kind](CORPUS), 9, function, 5, 20)
    everything = function(QUERIES, CORPUS)
    torch.testing.assert_close(scores, everything.sort(descending=True).values[:, :9], atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(scores, everything.gather(1, ids), atol=1e-5, rtol=1e-5)


def test_double_precision_is_kept():
    assert nearest(QUERIES.astype(np.float64), CORPUS, 3).scores.dtype == torch.float64


def test_no_scores_have_gradients():
    assert not nearest(torch.tensor(QUERIES, requires_grad=True), CORPUS, 3).scores.requires_grad


@pytest.mark.parametrize("kind", ["array", "tensor", "coo"])
def test_of_a_single_query_and_row(kind):
    assert nearest(KINDS[kind](QUERIES[0]), KINDS[kind](QUERIES[0]), 3).ids.tolist() == [[0]]


def test_a_users_function_gets_float_tensors_and_sparse_ones_as_coo():
    seen = []

    def function(a, b):
        seen.append((a.layout, b.layout, a.dtype))
        return dot_score(a, b)

    nearest(QUERIES.astype(np.float16), CORPUS, 3, function)
    nearest(torch.tensor(QUERIES).to_sparse(), to_csr(torch.tensor(CORPUS)), 3, function)
    assert seen == [(torch.strided,) * 2 + (torch.float32,), (torch.sparse_coo,) * 2 + (torch.float32,)]


def test_no_more_scores_than_chunks_have_are_computed_at_once():
    shapes = set()

    def function(a, b):
        shapes.add((len(a), len(b)))
        return dot_score(a, b)

    nearest(QUERIES, CORPUS, 3, function, 5, 20)
    assert shapes == {(5, 20), (3, 20), (5, 17), (3, 17)}


def test_a_chunk_of_the_corpus_is_normalized_once(monkeypatch):
    from sbert_ray.search import neighbors

    lengths = []
    real = neighbors.normalize_embeddings
    monkeypatch.setattr(neighbors, "normalize_embeddings", lambda x: lengths.append(len(x)) or real(x))
    nearest(QUERIES, CORPUS, 3, cos_sim, 5, 20)
    assert [n for n in lengths if n > 5] == [20, 20, 17]


def test_not_a_number_is_seen_first():
    scores = torch.tensor([[1.0, float("nan"), 1.0, 1.0, 2.0], [float("nan")] * 5])
    found = best(scores, 3)
    assert found.ids.tolist()[0] == [1, 4, 0]
    assert found.scores[1].isnan().all()


def test_merging_may_be_grouped_in_any_way():
    scores = torch.tensor(QUERIES @ CORPUS.T)
    parts = [best(part, 7) for part in scores.split(10, dim=1)]
    parts = [Neighbors(part.scores, part.ids + 10 * place) for place, part in enumerate(parts)]
    left = merge(parts, 7)
    right = merge([*parts[:1], merge(parts[1:3], 7), merge(parts[3:], 7)], 7)
    assert left.ids.tolist() == right.ids.tolist() == best(scores, 7).ids.tolist()


@pytest.mark.parametrize("kind", ["array", "tensor", "coo"])
def test_nothing_is_found_in_nothing(kind):
    assert nearest(KINDS[kind](QUERIES), KINDS[kind](CORPUS[:0]), 3).ids.shape == (13, 0)
    assert nearest(KINDS[kind](QUERIES[:0]), KINDS[kind](CORPUS), 3).ids.shape == (0, 0)
    assert nearest([], KINDS[kind](CORPUS), 3).scores.shape == (0, 0)


def test_errors_say_what_is_needed():
    with pytest.raises(ValueError, match="k must be positive, got 0"):
        nearest(QUERIES, CORPUS, 0)
    with pytest.raises(ValueError, match="query_chunk_size must be positive, got -1"):
        nearest(QUERIES, CORPUS, 1, dot_score, -1)
    with pytest.raises(ValueError, match="same dimension, got 5 of the queries and 6 of the corpus"):
        nearest(QUERIES[:, :5], CORPUS, 1)
    with pytest.raises(ValueError, match=r"embeddings must be \(N, D\) or \(D,\), got shape \(1, 13, 6\)"):
        nearest(QUERIES[None], CORPUS, 1)
    with pytest.raises(ValueError, match=r"score_function must return scores of shape \(13, 57\), got \(57, 13\)"):
        nearest(QUERIES, CORPUS, 1, lambda a, b: dot_score(b, a))
