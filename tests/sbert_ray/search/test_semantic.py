"""Semantic search by hand and against the peer."""

import numpy as np
import pytest
import torch

from sbert_ray import similarity, util
from sbert_ray.embeddings import to_csr
from sbert_ray.search import information_retrieval, semantic_search

# torch says these once in a process, wherever that is; here it is the peer that makes it say them.
pytestmark = [
    pytest.mark.filterwarnings("ignore:Sparse invariant checks:UserWarning"),
    pytest.mark.filterwarnings("ignore:Sparse CSR tensor support is in beta:UserWarning"),
]

QUERIES = torch.randn(11, 24, generator=torch.Generator().manual_seed(0))
CORPUS = torch.randn(300, 24, generator=torch.Generator().manual_seed(1))
FUNCTIONS = ["cos_sim", "dot_score", "euclidean_sim", "manhattan_sim"]


@pytest.fixture(scope="module")
def peer():
    return pytest.importorskip("sentence_transformers.util")


def assert_same(ours, theirs):
    assert [[hit["corpus_id"] for hit in hits] for hits in ours] == [[h["corpus_id"] for h in hits] for hits in theirs]
    for our_hits, their_hits in zip(ours, theirs, strict=True):
        np.testing.assert_allclose([h["score"] for h in our_hits], [h["score"] for h in their_hits], atol=1e-5)


def test_results_by_hand():
    results = semantic_search([1.0, 0.0], [[0.0, 1.0], [2.0, 0.0], [1.0, 0.0], [-1.0, 0.0]], top_k=3)
    expected = [[{"corpus_id": 1, "score": 1.0}, {"corpus_id": 2, "score": 1.0}, {"corpus_id": 0, "score": 0.0}]]
    assert results == expected
    assert [type(value) for value in results[0][0].values()] == [int, float]


@pytest.mark.parametrize("function", FUNCTIONS)
@pytest.mark.parametrize("options", [{}, {"query_chunk_size": 3, "corpus_chunk_size": 70, "top_k": 25}], ids=str)
def test_agrees_with_the_peer(peer, function, options):
    theirs = peer.semantic_search(QUERIES, CORPUS, score_function=getattr(peer, function), **options)
    for kind in (torch.clone, torch.Tensor.numpy, torch.Tensor.tolist):
        ours = semantic_search(kind(QUERIES), kind(CORPUS), score_function=getattr(similarity, function), **options)
        assert_same(ours, theirs)
    assert_same(semantic_search(QUERIES, CORPUS, score_function=getattr(peer, function), **options), theirs)


@pytest.mark.parametrize("function", FUNCTIONS)
def test_sparse_agrees_with_the_peer(peer, function):
    options = {"query_chunk_size": 3, "corpus_chunk_size": 70}
    queries, corpus = QUERIES.relu(), CORPUS.relu()
    theirs = peer.semantic_search(
        queries.to_sparse(), corpus.to_sparse(), score_function=getattr(peer, function), **options
    )
    for layout in (torch.Tensor.to_sparse, to_csr):
        for pair in ((layout(queries), layout(corpus)), (queries, layout(corpus)), (layout(queries), corpus)):
            assert_same(semantic_search(*pair, score_function=getattr(similarity, function), **options), theirs)


def test_more_than_the_corpus_is_the_corpus(peer):
    assert_same(semantic_search(QUERIES, CORPUS[:4], top_k=9), peer.semantic_search(QUERIES, CORPUS[:4], top_k=9))


def test_nothing_is_found_in_nothing():
    assert semantic_search(QUERIES[:2], CORPUS[:0]) == [[], []]
    assert semantic_search(QUERIES[:0], CORPUS) == []


def test_the_older_name_is_the_same_function():
    assert information_retrieval is util.information_retrieval is semantic_search


def test_errors_say_what_is_needed():
    with pytest.raises(ValueError, match="top_k must be positive, got 0"):
        semantic_search(QUERIES, CORPUS, top_k=0)
    with pytest.raises(ValueError, match="same dimension, got 24 of the queries and 20 of the corpus"):
        semantic_search(QUERIES, CORPUS[:, :20])


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_a_corpus_on_a_device_is_searched_there():
    on_device = semantic_search(QUERIES, CORPUS.cuda(), corpus_chunk_size=70)
    assert_same(on_device, semantic_search(QUERIES, CORPUS))
