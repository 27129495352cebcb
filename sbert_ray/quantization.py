"""Embeddings in fewer bits: scalar quantization to 8 bits and binary quantization to 1. Knows no torch.

Also the public import path of the searches with FAISS and usearch, whose code is in `sbert_ray.search`.

Shapes: N embeddings of dimension D; codes of W values, W = D of 8 bits, or W = ceil(D / 8) of 8 times 1 bit.
"""

import logging
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from sbert_ray.search import semantic_search_faiss, semantic_search_usearch

__all__ = [
    "PRECISIONS",
    "calibration_ranges",
    "code_weights",
    "dequantize_embeddings",
    "quantize_embeddings",
    "ranges_for",
    "semantic_search_faiss",
    "semantic_search_usearch",
    "to_array",
]

logger = logging.getLogger(__name__)

PRECISIONS = ("float32", "int8", "uint8", "binary", "ubinary")
SCALAR_PRECISIONS = ("int8", "uint8")
BINARY_PRECISIONS = ("binary", "ubinary")
_STABLE_ROWS = 100  # fewer rows than this give ranges that the next rows fall out of


def __getattr__(name: str) -> Any:
    if name in ("semantic_search_faiss", "semantic_search_usearch"):
        import sbert_ray.search

        return getattr(sbert_ray.search, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def calibration_ranges(embeddings: Any) -> NDArray[np.float32]:
    """Return the least and the greatest value of each dimension of ``embeddings`` (N, D), as (2, D).

    Raises:
        ValueError: There are fewer than two embeddings.
    """
    array = to_array(embeddings)
    if array.ndim != 2 or len(array) < 2:
        raise ValueError(f"ranges need at least two embeddings (N, D), got an array of shape {array.shape}")
    return np.stack([array.min(0), array.max(0)]).astype(np.float32)


def quantize_embeddings(
    embeddings: Any,
    precision: str,
    ranges: NDArray[np.floating[Any]] | None = None,
    calibration_embeddings: Any = None,
) -> Any:
    """Return embeddings in another precision.

        step = (max - min) / 255 by dimension, 1 where that is 0
        uint8   = clip(floor((x - min) / step), 0, 255)        int8   = uint8 - 128
        ubinary = 8 bits (x > 0) to a byte                     binary = ubinary - 128

    Args:
        embeddings: Floats (N, D) or (D,) as an array or tensor, or a list of such rows; a list of matrices gives a
            list of matrices that share their ranges.
        precision: One of `PRECISIONS`.
        ranges: Least and greatest value by dimension (2, D), for int8 and uint8.
        calibration_embeddings: Embeddings (M, D) to take the ranges from; ``embeddings`` themselves if None.

    Raises:
        ValueError: The precision is unknown, the embeddings are integers, or ranges would come from one embedding or
            are not (2, D), the least and the greatest number.
    """
    if precision not in PRECISIONS:
        raise ValueError(f"unknown precision {precision!r}; known precisions are {list(PRECISIONS)}")
    if isinstance(embeddings, (list, tuple)):
        arrays = [to_array(item) for item in embeddings]
        if not arrays:
            return []
        if arrays[0].ndim == 2:
            if precision in SCALAR_PRECISIONS and ranges is None:
                ranges = ranges_for(np.concatenate(arrays), precision, calibration_embeddings)
            return [_quantize(array, precision, ranges, None) for array in arrays]
        embeddings = np.stack(arrays)
    return _quantize(to_array(embeddings), precision, ranges, calibration_embeddings)


def dequantize_embeddings(
    codes: Any, precision: str, ranges: NDArray[np.floating[Any]] | None = None, dim: int | None = None
) -> NDArray[np.float64]:
    """Return what codes stand for: the low end of a code's step for 8 bits, and 0.0 or 1.0 for a bit.

    Args:
        codes: Codes (..., W) as `quantize_embeddings` makes them.
        precision: One of `PRECISIONS`; float32 changes nothing but the dtype.
        ranges: Least and greatest value by dimension (2, D) that made the codes, for int8 and uint8.
        dim: The D of binary codes, whose last byte may be half empty; 8 times W if None.

    Returns:
        Values (..., D).

    Raises:
        ValueError: The precision is unknown, or it is int8 or uint8 and there are no ranges of shape (2, D).
    """
    if precision not in PRECISIONS:
        raise ValueError(f"unknown precision {precision!r}; known precisions are {list(PRECISIONS)}")
    array = to_array(codes)
    if precision == "float32":
        return array.astype(np.float64)
    if precision in BINARY_PRECISIONS:
        return np.unpackbits(unsigned_bits(array, precision), axis=-1)[..., :dim].astype(np.float64)
    if ranges is None:
        raise ValueError(f"{precision} codes need the ranges that made them, got None")
    low, step = _low_and_step(ranges, array.shape[-1])
    values: NDArray[np.float64] = (array.astype(np.float64) + _zero(precision)) * step + low
    return values


def code_weights(
    embeddings: Any, precision: str, ranges: NDArray[np.floating[Any]]
) -> tuple[NDArray[np.float32], NDArray[np.float64]]:
    """Return weights (N, D) and offsets (N,), by which floats are compared with codes and no code becomes floats.

    The dot product of an embedding q and of what a code c stands for is ``weights . c + offset``.

        q . (low + step (c + zero)) = (q step) . c + q . (low + step zero)        zero = 128 for int8, 0 for uint8

    Args:
        embeddings: Floats (N, D).
        precision: int8 or uint8.
        ranges: Least and greatest value by dimension (2, D) that made the codes.

    Raises:
        ValueError: The ranges are not (2, D), the least and the greatest number.
    """
    array = to_array(embeddings)
    low, step = _low_and_step(ranges, array.shape[1])
    offsets: NDArray[np.float64] = array.astype(np.float64) @ (low + step.astype(np.float64) * _zero(precision))
    return (array * step).astype(np.float32), offsets


def unsigned_bits(codes: NDArray[Any], precision: str) -> NDArray[np.uint8]:
    """Return the packed bits (N, W) of binary codes, which are 128 less, or of ubinary ones, which are the bits."""
    return np.ascontiguousarray(codes).view(np.uint8) ^ np.uint8(0x80 if precision == "binary" else 0)


def ranges_for(array: NDArray[Any], precision: str, calibration_embeddings: Any = None) -> NDArray[np.float32]:
    """Return the ranges of ``calibration_embeddings`` (M, D), or else of ``array`` (N, D) itself, as (2, D).

    Raises:
        ValueError: They would come from a single embedding.
    """
    if calibration_embeddings is not None:
        return calibration_ranges(calibration_embeddings)
    if array.ndim == 1 or len(array) == 1:
        raise ValueError(f"{precision} of a single embedding needs ranges or calibration_embeddings")
    if len(array) < _STABLE_ROWS:
        logger.warning("%s ranges come from %d embeddings only; pass ranges of a larger sample", precision, len(array))
    return calibration_ranges(array)


def _quantize(
    array: NDArray[Any], precision: str, ranges: NDArray[np.floating[Any]] | None, calibration_embeddings: Any
) -> NDArray[Any]:
    if array.dtype in (np.int8, np.uint8):
        raise ValueError(f"embeddings must be floats, got {array.dtype}")
    if precision == "float32":
        return array.astype(np.float32)
    if precision in BINARY_PRECISIONS:
        bits = np.packbits(array > 0, axis=-1)
        return bits if precision == "ubinary" else (bits.astype(np.int16) - 128).astype(np.int8)
    if array.ndim == 2 and not len(array):
        return array.astype(precision)
    if ranges is None:
        ranges = ranges_for(array, precision, calibration_embeddings)
    low, step = _low_and_step(ranges, array.shape[-1])
    codes = np.clip(np.floor((array - low) / step), 0, 255)
    quantized: NDArray[Any] = codes.astype(np.uint8) if precision == "uint8" else (codes - 128).astype(np.int8)
    return quantized


def _zero(precision: str) -> int:
    """Return what is to be added to a code of 8 bits to make the least one 0."""
    return 128 if precision == "int8" else 0


def _low_and_step(ranges: Any, dim: int) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    array = np.asarray(ranges, np.float32)
    wanted = f"ranges must be the least and the greatest value of each dimension, of shape (2, {dim}), all finite"
    if array.shape != (2, dim):
        raise ValueError(f"{wanted}; got shape {array.shape}")
    low, high = array
    if len(bad := np.flatnonzero(~(np.isfinite(array).all(0) & (low <= high)))):
        raise ValueError(f"{wanted}; got {low[bad[0]]} and {high[bad[0]]} for dimension {bad[0]}")
    step = (high - low) / 255
    return low, np.where(step == 0, np.float32(1), step)


def to_array(embeddings: Any) -> NDArray[Any]:
    """Return embeddings, or codes, as an array: what NumPy makes of them, and half precision tensors as float32."""
    if hasattr(embeddings, "detach"):  # a tensor, told without importing torch
        tensor = embeddings.detach().cpu()
        is_half = tensor.dtype.is_floating_point and tensor.dtype.itemsize < 4  # numpy has no bfloat16
        return np.asarray((tensor.float() if is_half else tensor).numpy())
    return np.asarray(embeddings)
