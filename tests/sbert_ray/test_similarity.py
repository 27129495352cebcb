"""Similarities by their formulas, for everything that may hold embeddings."""

import numpy as np
import pytest
import torch

from sbert_ray import similarity
from sbert_ray.similarity import SimilarityFunction

A, B = [[3.0, 4.0], [1.0, 0.0]], [[4.0, 3.0], [0.0, 2.0]]
ALL_PAIRS = {
    "cosine": [[24 / 25, 4 / 5], [4 / 5, 0.0]],
    "dot": [[24.0, 8.0], [4.0, 0.0]],
    "euclidean": [[-(2**0.5), -(13**0.5)], [-(18**0.5), -(5**0.5)]],
    "manhattan": [[-2.0, -5.0], [-6.0, -3.0]],
}
KINDS = {
    "lists": lambda x: x,
    "arrays": np.array,
    "tensors": torch.tensor,
    "list of arrays": lambda x: [np.array(row) for row in x],
    "list of tensors": lambda x: [torch.tensor(row) for row in x],
    "half precision": lambda x: torch.tensor(x, dtype=torch.bfloat16),
    "read-only array": lambda x: np.broadcast_to(np.array(x), (2, 2)),
}


def test_every_function_is_tested() -> None:
    assert list(ALL_PAIRS) == SimilarityFunction.possible_values()


@pytest.mark.parametrize("name", ALL_PAIRS)
@pytest.mark.parametrize("kind", KINDS.values(), ids=KINDS)
def test_matches_its_formula(name: str, kind: object) -> None:
    scores = SimilarityFunction.to_similarity_fn(name)(kind(A), kind(B))
    np.testing.assert_allclose(scores, ALL_PAIRS[name], rtol=1e-6, atol=1e-6)
    pairwise = SimilarityFunction.to_similarity_pairwise_fn(name)(kind(A), kind(B))
    np.testing.assert_allclose(pairwise, np.diag(ALL_PAIRS[name]), rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("name", ALL_PAIRS)
def test_agrees_with_the_peer(name: str) -> None:
    peer = pytest.importorskip("sentence_transformers.util").SimilarityFunction
    torch.manual_seed(0)
    a, b = torch.randn(4, 7), torch.randn(4, 7)
    ours, theirs = SimilarityFunction.to_similarity_fn(name), peer.to_similarity_fn(name)
    torch.testing.assert_close(ours(a, b), theirs(a, b))
    torch.testing.assert_close(ours(a[0], b), theirs(a[0], b))
    ours, theirs = SimilarityFunction.to_similarity_pairwise_fn(name), peer.to_similarity_pairwise_fn(name)
    torch.testing.assert_close(ours(a, b), theirs(a, b))
    torch.testing.assert_close(ours(a.tolist(), b.tolist()), theirs(a.tolist(), b.tolist()))


@pytest.mark.parametrize("name", ALL_PAIRS)
@pytest.mark.parametrize("kind", KINDS.values(), ids=KINDS)
def test_takes_two_kinds_together(name: str, kind: object) -> None:
    function = SimilarityFunction.to_similarity_fn(name)
    scores = function(np.array(A, np.float32), kind(B))
    np.testing.assert_allclose(scores, ALL_PAIRS[name], rtol=1e-6, atol=1e-6)


def test_takes_the_enum_and_its_alias() -> None:
    assert SimilarityFunction.to_similarity_fn(SimilarityFunction.DOT) is similarity.dot_score


def test_rejects_an_unknown_name() -> None:
    with pytest.raises(ValueError, match=r"unknown similarity function 'angle'; known functions are \['cosine', "):
        SimilarityFunction.to_similarity_fn("angle")
