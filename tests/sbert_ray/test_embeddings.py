"""Helpers on embeddings by hand and against the peer."""

import sys

import numpy as np
import pytest
import torch

from sbert_ray import util
from sbert_ray.embeddings import (
    batch_to_device,
    compute_count_vector,
    csr_rows,
    normalize_embeddings,
    select_max_active_dims,
    to_csr,
    to_scipy_coo,
    truncate_embeddings,
)

# torch says once in a process, wherever that is, that it does not look into sparse tensors that are made by hand.
pytestmark = pytest.mark.filterwarnings("ignore:Sparse invariant checks:UserWarning")

DENSE = torch.tensor([[3.0, 0.0, -4.0], [0.0, 0.0, 0.0], [0.0, 2.0, 0.0]])
UNIT = [[0.6, 0.0, -0.8], [0.0, 0.0, 0.0], [0.0, 1.0, 0.0]]
LAYOUTS = {"dense": torch.clone, "coo": torch.Tensor.to_sparse, "csr": to_csr}


@pytest.fixture(scope="module")
def peer():
    return pytest.importorskip("sentence_transformers.util")


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.float16, torch.bfloat16])
def test_rows_get_length_one_in_their_layout_and_dtype(layout, dtype):
    embeddings = LAYOUTS[layout](DENSE.to(dtype))
    unit = normalize_embeddings(embeddings)
    assert (unit.layout, unit.dtype) == (embeddings.layout, dtype)
    np.testing.assert_allclose(unit.to_dense().float(), UNIT, atol=2**-7 if dtype.itemsize == 2 else 1e-7)


def test_squares_of_sparse_halves_may_pass_their_greatest_value():
    embeddings = torch.tensor([[60_000.0, 0.0]], dtype=torch.float16).to_sparse()
    assert normalize_embeddings(embeddings).to_dense().tolist() == [[1.0, 0.0]]


@pytest.mark.parametrize("layout", ["dense", "coo"])
def test_a_single_embedding_gets_length_one(layout):
    unit = normalize_embeddings(LAYOUTS[layout](DENSE[0]))
    np.testing.assert_allclose(unit.to_dense(), UNIT[0], atol=1e-7)


@pytest.mark.parametrize("layout", ["dense", "coo"])
def test_length_one_agrees_with_the_peer_with_gradients(peer, layout):
    gradients = []
    for function in (normalize_embeddings, peer.normalize_embeddings):
        leaf = torch.randn(4, 6, generator=torch.Generator().manual_seed(0)).requires_grad_()
        unit = function(LAYOUTS[layout](leaf))
        (unit.to_dense() * torch.arange(6)).sum().backward()
        gradients.append((unit.to_dense().detach(), leaf.grad))
    torch.testing.assert_close(*gradients)


@pytest.mark.parametrize("kind", [torch.clone, torch.Tensor.numpy], ids=["tensor", "array"])
def test_the_first_dimensions_are_kept(kind):
    assert truncate_embeddings(kind(DENSE), 2).tolist() == DENSE[:, :2].tolist()
    assert truncate_embeddings(kind(DENSE[0]), 2).tolist() == [3.0, 0.0]
    assert truncate_embeddings(kind(DENSE), None).shape == (3, 3)
    with pytest.raises(ValueError, match="truncate_dim must be positive, got 0"):
        truncate_embeddings(kind(DENSE), 0)


def test_the_values_of_largest_magnitude_are_kept(peer):
    embeddings = torch.randn(5, 9, generator=torch.Generator().manual_seed(0))
    for kind in (torch.clone, torch.Tensor.numpy):
        for count in (1, 4, 9, 20):
            kept = select_max_active_dims(kind(embeddings), count)
            torch.testing.assert_close(kept, peer.select_max_active_dims(kind(embeddings), count))
            assert (kept != 0).sum(1).tolist() == [min(count, 9)] * 5
    assert select_max_active_dims(torch.tensor([1.0, -3.0, 2.0]), 2).tolist() == [0.0, -3.0, 2.0]
    assert select_max_active_dims(embeddings, None) is embeddings
    with pytest.raises(ValueError, match="max_active_dims must be positive, got 0"):
        select_max_active_dims(embeddings, 0)


def test_a_batch_is_moved_in_place():
    batch = {"input_ids": torch.zeros(2), "text": "a"}
    assert batch_to_device(batch, torch.device("meta")) is batch
    assert batch["input_ids"].device.type == "meta"
    assert batch["text"] == "a"


@pytest.mark.parametrize("layout", LAYOUTS)
def test_counts_are_of_non_zero_values(peer, layout):
    counts = compute_count_vector(LAYOUTS[layout](DENSE))
    assert counts.tolist() == [1, 1, 1]
    assert counts.dtype == peer.compute_count_vector(DENSE).dtype
    if layout != "csr":
        assert compute_count_vector(LAYOUTS[layout](DENSE[0])).tolist() == [1, 0, 1]
    stored_zero = torch.sparse_coo_tensor([[0, 1], [0, 1]], [0.0, 5.0], (2, 3))
    assert compute_count_vector(stored_zero).tolist() == [0, 1, 0]
    with pytest.raises(ValueError, match=r"embeddings must be \(N, D\) or \(D,\), got 3 dimensions"):
        compute_count_vector(torch.zeros(1, 2, 3))


@pytest.mark.parametrize("layout", ["coo", "csr"])
def test_scipy_gets_the_same_values(layout):
    pytest.importorskip("scipy")
    matrix = to_scipy_coo(LAYOUTS[layout](DENSE))
    assert matrix.toarray().tolist() == DENSE.tolist()
    assert to_scipy_coo(DENSE.bfloat16().to_sparse()).dtype == np.float32


def test_without_scipy_the_error_says_how_to_get_it(monkeypatch):
    monkeypatch.setitem(sys.modules, "scipy.sparse", None)
    with pytest.raises(ImportError, match="to_scipy_coo needs SciPy: pip install scipy"):
        to_scipy_coo(DENSE.to_sparse())


@pytest.mark.parametrize(("start", "stop"), [(0, 2), (1, 3), (2, 9), (3, 5), (0, 0)])
def test_rows_of_csr_are_those_of_the_matrix(start, stop):
    assert csr_rows(to_csr(DENSE), start, stop).to_dense().tolist() == DENSE[start:stop].tolist()


def test_the_face_has_what_the_peer_has_by_these_names(peer):
    for name in util.__all__:
        assert hasattr(peer, name)
