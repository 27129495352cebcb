"""Embeddings in fewer bits: scalar quantization to 8 bits and binary quantization to 1. Knows no torch.

Shapes: N embeddings of dimension D.
"""

import logging
from typing import Any

import numpy as np
from numpy.typing import NDArray

logger = logging.getLogger(__name__)

PRECISIONS = ("float32", "int8", "uint8", "binary", "ubinary")
_STABLE_ROWS = 100  # fewer rows than this give ranges that the next rows fall out of


def calibration_ranges(embeddings: Any) -> NDArray[np.float32]:
    """Return the least and the greatest value of each dimension of ``embeddings`` (N, D), as (2, D).

    Raises:
        ValueError: There are fewer than two embeddings.
    """
    array = _array(embeddings)
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
        ValueError: The precision is unknown, the embeddings are integers, or ranges would come from one embedding.
    """
    if precision not in PRECISIONS:
        raise ValueError(f"unknown precision {precision!r}; known precisions are {list(PRECISIONS)}")
    if isinstance(embeddings, (list, tuple)):
        arrays = [_array(item) for item in embeddings]
        if not arrays:
            return []
        if arrays[0].ndim == 2:
            if precision in ("int8", "uint8") and ranges is None:
                ranges = _ranges(np.concatenate(arrays), precision, calibration_embeddings)
            return [_quantize(array, precision, ranges, None) for array in arrays]
        embeddings = np.stack(arrays)
    return _quantize(_array(embeddings), precision, ranges, calibration_embeddings)


def _quantize(
    array: NDArray[Any], precision: str, ranges: NDArray[np.floating[Any]] | None, calibration_embeddings: Any
) -> NDArray[Any]:
    if array.dtype in (np.int8, np.uint8):
        raise ValueError(f"embeddings must be floats, got {array.dtype}")
    if precision == "float32":
        return array.astype(np.float32)
    if precision in ("binary", "ubinary"):
        bits = np.packbits(array > 0, axis=-1)
        return bits if precision == "ubinary" else (bits.astype(np.int16) - 128).astype(np.int8)
    if array.ndim == 2 and not len(array):
        return array.astype(precision)
    if ranges is None:
        ranges = _ranges(array, precision, calibration_embeddings)
    low, high = np.asarray(ranges, np.float32)
    step = (high - low) / 255
    codes = np.clip(np.floor((array - low) / np.where(step == 0, 1, step)), 0, 255)
    quantized: NDArray[Any] = codes.astype(np.uint8) if precision == "uint8" else (codes - 128).astype(np.int8)
    return quantized


def _ranges(array: NDArray[Any], precision: str, calibration_embeddings: Any) -> NDArray[np.float32]:
    if calibration_embeddings is not None:
        return calibration_ranges(calibration_embeddings)
    if array.ndim == 1 or len(array) == 1:
        raise ValueError(f"{precision} of a single embedding needs ranges or calibration_embeddings")
    if len(array) < _STABLE_ROWS:
        logger.warning("%s ranges come from %d embeddings only; pass ranges of a larger sample", precision, len(array))
    return calibration_ranges(array)


def _array(embeddings: Any) -> NDArray[Any]:
    if hasattr(embeddings, "detach"):  # a tensor, told without importing torch
        tensor = embeddings.detach().cpu()
        is_half = tensor.dtype.is_floating_point and tensor.dtype.itemsize < 4  # numpy has no bfloat16
        return np.asarray((tensor.float() if is_half else tensor).numpy())
    return np.asarray(embeddings)
