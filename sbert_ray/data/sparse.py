"""What the columns of sparse embeddings must hold."""

import numpy as np
import pyarrow as pa


def sparse_fault(indices: pa.ChunkedArray, values: pa.ChunkedArray) -> str | None:
    """Return what is wrong with embeddings as lists of dimensions and of their values, if anything.

    Args:
        indices: N lists of dimensions, ascending in each.
        values: N lists of as many values.
    """
    if indices.null_count or values.null_count:
        return "some row has no indices or values"
    places, numbers = indices.combine_chunks(), values.combine_chunks()
    lengths = places.value_lengths().to_numpy(zero_copy_only=False)
    if not np.array_equal(lengths, numbers.value_lengths().to_numpy(zero_copy_only=False)):
        return "some row has not as many values as indices"
    flat, owners = places.flatten(), np.repeat(np.arange(len(lengths)), lengths)
    if flat.null_count or numbers.flatten().null_count:
        return "some index or value is null"
    flat = flat.to_numpy(zero_copy_only=False)
    if (flat < 0).any() or ((np.diff(flat) <= 0) & (np.diff(owners) == 0)).any():
        return "the indices of some row are negative, or do not ascend"
    if not np.isfinite(numbers.flatten().to_numpy(zero_copy_only=False)).all():
        return "some value is no finite number"
    return None
