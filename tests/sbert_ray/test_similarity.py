"""Similarities by their formulas, for everything that may hold embeddings."""

import subprocess
import sys

import numpy as np
import pytest
import torch

from sbert_ray import similarity
from sbert_ray.embeddings import to_csr
from sbert_ray.similarity import SimilarityFunction

# torch says once in a process, wherever that is, that it does not look into sparse tensors that are made by hand.
# The peer makes it say another.
pytestmark = [
    pytest.mark.filterwarnings("ignore:Sparse invariant checks:UserWarning"),
    pytest.mark.filterwarnings("ignore:Sparse CSR tensor support is in beta:UserWarning"),
]

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
    "coo": lambda x: torch.tensor(x).to_sparse(),
    "csr": lambda x: to_csr(torch.tensor(x)),
    "list of coo": lambda x: [torch.tensor(row).to_sparse() for row in x],
    "uncoalesced coo": lambda x: torch.sparse_coo_tensor(
        [[0, 0, 1, 1] * 2, [0, 1, 0, 1] * 2], torch.tensor(x * 2).flatten() / 2, (2, 2)
    ),
    "half precision coo": lambda x: torch.tensor(x, dtype=torch.bfloat16).to_sparse(),
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


def sparse_pair(rows: int, others: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Return matrices (rows, 50) and (others, 50), a tenth of whose values are not 0, and with a row of zeros."""
    generator = torch.Generator().manual_seed(0)
    a, b = (torch.randn(count, 50, generator=generator) for count in (rows, others))
    a, b = (x * (torch.rand(x.shape, generator=generator) < 0.1) for x in (a, b))
    a[0] = 0
    return a, b


@pytest.mark.parametrize("name", ALL_PAIRS)
@pytest.mark.parametrize("sizes", [(40, 7), (7, 40), (7, 7)], ids=str)
def test_sparse_agrees_with_the_peer_and_with_dense(name: str, sizes: tuple[int, int], monkeypatch) -> None:
    peer = pytest.importorskip("sentence_transformers.util").SimilarityFunction
    monkeypatch.setattr(similarity, "_DENSE_VALUES", 3 * 50)  # blocks of three rows
    monkeypatch.setattr(similarity, "_MANHATTAN_ROWS", (3, 4))
    a, b = sparse_pair(*sizes)
    ours, theirs = SimilarityFunction.to_similarity_fn(name), peer.to_similarity_fn(name)
    dense = ours(a, b)
    for layout in (torch.Tensor.to_sparse, to_csr):
        for first, second in ((layout(a), layout(b)), (layout(a), b), (a, layout(b))):
            scores = ours(first, second)
            assert scores.layout == torch.strided
            torch.testing.assert_close(scores, dense, rtol=1e-5, atol=2e-6)
    torch.testing.assert_close(dense, theirs(a.to_sparse(), b.to_sparse()), rtol=1e-5, atol=2e-6)
    a, b = a[:7], b[:7]
    ours, theirs = SimilarityFunction.to_similarity_pairwise_fn(name), peer.to_similarity_pairwise_fn(name)
    for first, second in ((a.to_sparse(), b.to_sparse()), (a.to_sparse(), b), (a, to_csr(b))):
        torch.testing.assert_close(ours(first, second), ours(a, b), rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(ours(a, b), theirs(a.to_sparse(), b.to_sparse()), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("name", ALL_PAIRS)
def test_single_sparse_embeddings_are_matrices_of_one_row(name: str) -> None:
    a, b = sparse_pair(2, 3)
    function, pairwise = SimilarityFunction.to_similarity_fn(name), SimilarityFunction.to_similarity_pairwise_fn(name)
    torch.testing.assert_close(function(a[1].to_sparse(), b.to_sparse()), function(a[1], b), rtol=1e-5, atol=2e-6)
    torch.testing.assert_close(pairwise(a[1].to_sparse(), b[1].to_sparse()), pairwise(a[1], b[1]))


@pytest.mark.parametrize("name", ALL_PAIRS)
def test_no_sparse_rows_have_no_scores(name: str) -> None:
    a, b = sparse_pair(2, 3)
    function = SimilarityFunction.to_similarity_fn(name)
    assert function(a[:0].to_sparse(), b.to_sparse()).shape == (0, 3)
    assert function(a.to_sparse(), b[:0].to_sparse()).shape == (2, 0)


@pytest.mark.parametrize("kinds", ["both", "first", "second"])
@pytest.mark.parametrize("name", ["cosine", "dot"])
def test_gradients_of_sparse_embeddings_are_those_of_dense_ones(name: str, kinds: str) -> None:
    function = SimilarityFunction.to_similarity_fn(name)
    weights = torch.arange(12.0).reshape(4, 3)
    gradients = []
    for is_sparse in (False, True):
        a, b = (
            x.requires_grad_() for x in (torch.randn(n, 5, generator=torch.Generator().manual_seed(n)) for n in (4, 3))
        )
        first = a.to_sparse() if is_sparse and kinds != "second" else a
        second = b.to_sparse() if is_sparse and kinds != "first" else b
        (function(first, second) * weights).sum().backward()
        gradients.append((a.grad, b.grad))
    torch.testing.assert_close(*gradients)


@pytest.mark.parametrize("dim", [1, 6, 7])
def test_angle_is_the_formula_and_the_peers(dim: int) -> None:
    peer = pytest.importorskip("sentence_transformers.util")
    a, b = (torch.randn(5, dim, generator=torch.Generator().manual_seed(seed)) for seed in (0, 1))
    angles = similarity.pairwise_angle_sim(a, b)
    torch.testing.assert_close(angles, peer.pairwise_angle_sim(a, b))
    torch.testing.assert_close(angles, similarity.pairwise_angle_sim(a.to_sparse(), to_csr(b)))
    rows = [np.pad(x / x.norm(dim=1, keepdim=True), ((0, 0), (0, dim % 2))) for x in (a, b)]
    x, y = (row[:, : row.shape[1] // 2] + 1j * row[:, row.shape[1] // 2 :] for row in rows)
    product = (x * y.conj()).sum(1)  # its real part is the cosine, and its imaginary part the sine
    np.testing.assert_allclose(angles, abs(product.real + product.imag), rtol=1e-5, atol=1e-6)


def test_the_older_name_is_the_same_function() -> None:
    assert similarity.pytorch_cos_sim is similarity.cos_sim


@pytest.mark.parametrize("needs_gradients", [False, True])
def test_torch_warns_of_no_sparse_layout_of_ours(needs_gradients: bool) -> None:
    code = f"""
import torch, sbert_ray.similarity as similarity
a = torch.rand(3, 6).to_sparse().requires_grad_({needs_gradients})
for function in (similarity.cos_sim, similarity.dot_score, similarity.euclidean_sim, similarity.pairwise_cos_sim):
    function(a, a)
"""
    subprocess.run([sys.executable, "-W", "error::UserWarning", "-c", code], check=True)
