"""What is done to embeddings once they are there: unit length, fewer dimensions, another layout or device.

Shapes: N embeddings of dimension D, (N, D), or a single one (D,). Sparse ones are COO or CSR tensors.
"""

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, TypeVar

import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

if TYPE_CHECKING:
    from scipy.sparse import coo_matrix

Rows = TypeVar("Rows", Tensor, NDArray[Any])


def normalize_embeddings(embeddings: Tensor) -> Tensor:
    """Return embeddings divided by their Euclidean lengths, in the layout and dtype they came in; zeros stay zeros."""
    if not is_sparse(embeddings):
        # The square of a half may pass its greatest value, and the least divisor is 0 as a half.
        return F.normalize(_widened(embeddings), dim=-1).to(embeddings.dtype)
    if embeddings.ndim == 1:
        embeddings = embeddings.coalesce()
        return _coo(embeddings.indices(), normalize_embeddings(embeddings.values()), embeddings.shape)
    if embeddings.layout != torch.sparse_csr:
        embeddings = to_coo(embeddings)
        rows = embeddings.indices()[0]
        return _coo(embeddings.indices(), _unit_values(embeddings.values(), rows, len(embeddings)), embeddings.shape)
    counts = embeddings.crow_indices().diff()
    rows = torch.repeat_interleave(torch.arange(len(counts), device=counts.device), counts)
    values = _unit_values(embeddings.values(), rows, len(counts))
    return _csr(embeddings.crow_indices(), embeddings.col_indices(), values, embeddings.shape)


def truncate_embeddings(embeddings: Rows, truncate_dim: int | None) -> Rows:
    """Return the first ``truncate_dim`` dimensions of dense embeddings, or all of them if None.

    Raises:
        ValueError: ``truncate_dim`` is not positive.
    """
    if truncate_dim is not None and truncate_dim < 1:
        raise ValueError(f"truncate_dim must be positive, got {truncate_dim}")
    return embeddings[..., :truncate_dim]


def select_max_active_dims(embeddings: Rows, max_active_dims: int | None) -> Rows | Tensor:
    """Return dense embeddings with all but the values of largest magnitude of each set to 0, as a new tensor.

    Args:
        embeddings: Dense (N, D) or (D,).
        max_active_dims: How many values of each to keep; None returns ``embeddings`` as they are.

    Raises:
        ValueError: ``max_active_dims`` is not positive.
    """
    if max_active_dims is None:
        return embeddings
    if max_active_dims < 1:
        raise ValueError(f"max_active_dims must be positive, got {max_active_dims}")
    tensor = embeddings if isinstance(embeddings, Tensor) else torch.as_tensor(embeddings)
    kept = tensor.abs().topk(min(max_active_dims, tensor.shape[-1]), dim=-1).indices
    return torch.zeros_like(tensor).scatter(-1, kept, tensor.gather(-1, kept))


def batch_to_device(batch: dict[str, Any], target_device: torch.device | str) -> dict[str, Any]:
    """Move the tensors among a batch's values to a device, in place, and return the batch."""
    batch.update({key: value.to(target_device) for key, value in batch.items() if isinstance(value, Tensor)})
    return batch


def compute_count_vector(embeddings: Tensor) -> Tensor:
    """Return how many of the embeddings, dense or sparse, have a non-zero value in each dimension, as int32 (D,).

    Raises:
        ValueError: ``embeddings`` has more than two dimensions.
    """
    if embeddings.ndim not in (1, 2):
        raise ValueError(f"embeddings must be (N, D) or (D,), got {embeddings.ndim} dimensions")
    if not is_sparse(embeddings):
        return (embeddings != 0).reshape(-1, embeddings.shape[-1]).sum(0, dtype=torch.int32)
    embeddings = to_coo(embeddings)
    columns: Tensor = embeddings.indices()[-1][embeddings.values() != 0]
    return torch.bincount(columns, minlength=embeddings.shape[-1]).int()


def to_scipy_coo(x: Tensor) -> "coo_matrix":
    """Return a sparse tensor (N, D) as a SciPy COO matrix of the same values; bfloat16 becomes float32.

    Raises:
        ImportError: SciPy is not installed.
    """
    try:
        from scipy.sparse import coo_matrix
    except ImportError as error:
        raise ImportError("to_scipy_coo needs SciPy: pip install scipy") from error
    x = to_coo(x)
    values = x.values().detach()
    values = values.float() if values.dtype == torch.bfloat16 else values  # NumPy has no bfloat16
    return coo_matrix((values.cpu().numpy(), tuple(x.indices().cpu().numpy())), shape=tuple(x.shape))


def is_sparse(embeddings: Tensor) -> bool:
    """Whether a tensor is sparse in any layout; `Tensor.is_sparse` is about COO alone."""
    return embeddings.layout != torch.strided


def to_coo(embeddings: Tensor) -> Tensor:
    """Return a tensor of any layout as a coalesced COO tensor."""
    coo: Tensor = embeddings.to_sparse_coo().coalesce()
    return coo


def to_csr(embeddings: Tensor) -> Tensor:
    """Return a tensor (N, D) of any layout as a CSR tensor."""
    with without_csr_warning():
        return embeddings.to_sparse_csr()


def csr_rows(embeddings: Tensor, start: int, stop: int) -> Tensor:
    """Return rows ``start`` to ``stop`` of a CSR tensor (N, D), without a copy of their values."""
    offsets = embeddings.crow_indices()[start : stop + 1]
    first, last = int(offsets[0]), int(offsets[-1])
    columns, values = embeddings.col_indices()[first:last], embeddings.values()[first:last]
    return _csr(offsets - first, columns, values, (len(offsets) - 1, embeddings.shape[1]))


@contextmanager
def without_csr_warning() -> Iterator[None]:
    """Keep back torch's warning that CSR is a beta, given once a process; users of COO need not hear it."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Sparse CSR tensor support is in beta")
        yield


def _unit_values(values: Tensor, rows: Tensor, num_rows: int) -> Tensor:
    wide = _widened(values)
    lengths = wide.new_zeros(num_rows).index_add(0, rows, wide * wide).sqrt()
    lengths = torch.where(lengths > 0, lengths, 1).index_select(0, rows)
    return (wide / lengths).to(values.dtype)


def _widened(values: Tensor) -> Tensor:
    return values.float() if values.dtype.itemsize < 4 else values


def _coo(indices: Tensor, values: Tensor, shape: tuple[int, ...]) -> Tensor:
    return torch.sparse_coo_tensor(indices, values, shape, is_coalesced=True, check_invariants=False)


def _csr(offsets: Tensor, columns: Tensor, values: Tensor, shape: tuple[int, ...]) -> Tensor:
    with without_csr_warning():
        return torch.sparse_csr_tensor(offsets, columns, values, shape, check_invariants=False)
