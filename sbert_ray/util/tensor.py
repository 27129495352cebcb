"""Face: work on tensors at the import path that `sentence_transformers` has for it. No code lives here."""

from sbert_ray.embeddings import (
    batch_to_device,
    compute_count_vector,
    normalize_embeddings,
    select_max_active_dims,
    to_scipy_coo,
    truncate_embeddings,
)

__all__ = [
    "batch_to_device",
    "compute_count_vector",
    "normalize_embeddings",
    "select_max_active_dims",
    "to_scipy_coo",
    "truncate_embeddings",
]
