"""The number format that a model is loaded in and computes in."""

import logging
from dataclasses import dataclass
from typing import Any

import torch

from sbert_ray.inference.cpu_trial import trial

logger = logging.getLogger(__name__)

_WORTH_IT = 1.2
"""What bfloat16 must gain over float32 to be chosen: less is within the noise of a trial, and costs digits."""


@dataclass(frozen=True)
class Precision:
    """A number format.

    Attributes:
        dtype: What the weights are loaded in.
        is_int8: Whether linear layers compute in 8-bit integers, with weights rounded from ``dtype``.
    """

    dtype: torch.dtype
    is_int8: bool = False


def load_precision(requested: Any, stored: Any, device: str) -> Precision:
    """Return the format to load weights in.

    Without a request it is float32 on a CPU, where other formats give other results and many are slower, and the
    checkpoint's own on a GPU. A request is honoured, with a warning where a trial on this CPU finds it slower than
    float32. Three names stand for more than a dtype:

    - ``"auto"`` is the checkpoint's own.
    - ``"fastest"`` is bfloat16 where the hardware multiplies it faster than float32, on a CPU by a trial that takes
      some seconds; else float16 on a CUDA device, else float32. The choice is logged.
    - ``"int8"`` loads float32, of which linear layers compute in 8-bit integers; on a CPU only.

    Args:
        requested: A dtype, its name, one of the three names above, or None.
        stored: The checkpoint's dtype or its name, or None where it says none.
        device: The torch device that the model will run on.

    Raises:
        ValueError: No format has the requested name, or int8 is asked for on a GPU.
        RuntimeError: A format is asked for that does not work on this CPU.
    """
    kind = torch.device(device).type
    if requested == "fastest":
        return Precision(_fastest_on_cpu() if kind == "cpu" else _fastest_on(torch.device(device)))
    if requested == "int8":
        if kind != "cpu":
            raise ValueError(f"dtype='int8' must run on a CPU, got device {str(device)!r}")
        _try_on_cpu("int8")
        return Precision(torch.float32, is_int8=True)
    if requested is None and kind == "cpu":
        return Precision(torch.float32)
    dtype = _as_dtype(stored or torch.float32) if requested in (None, "auto") else _as_dtype(requested)
    if kind == "cpu" and dtype in (torch.bfloat16, torch.float16):
        _try_on_cpu(str(dtype).removeprefix("torch."))
    return Precision(dtype)


def _as_dtype(name: Any) -> torch.dtype:
    dtype = name if isinstance(name, torch.dtype) else getattr(torch, str(name), None)
    if not isinstance(dtype, torch.dtype) or not dtype.is_floating_point:
        known = "'auto', 'fastest', 'float32', 'float16', 'bfloat16' or 'int8'"
        raise ValueError(f"dtype must be {known}, got {name!r}")
    return dtype


def _try_on_cpu(format_name: str) -> None:
    num_threads = torch.get_num_threads()
    result = trial(format_name, num_threads)
    if result.ratio is None:
        cure = "set ONEDNN_MAX_CPU_ISA=AVX512_CORE_BF16 before Python starts, or load with dtype='float32'"
        raise RuntimeError(f"{format_name} must work on this CPU, but {result.reason}; {cure}")
    said = f"{result.ratio:.2f} times as fast as float32 on this CPU with {num_threads} thread(s)"
    if result.ratio < 1:
        logger.warning("dtype=%r is only %s, in a trial linear layer; dtype='fastest' avoids that", format_name, said)
    else:
        logger.info("%s is %s, in a trial linear layer", format_name, said)


def _fastest_on_cpu() -> torch.dtype:
    result = trial("bfloat16", torch.get_num_threads())
    dtype = torch.bfloat16 if (result.ratio or 0) >= _WORTH_IT else torch.float32
    found = (
        f"{result.ratio:.2f} times as fast as float32" if result.ratio is not None else f"of no use: {result.reason}"
    )
    logger.info("dtype='fastest' chose %s, as bfloat16 is %s on this CPU", dtype, found)
    return dtype


def _fastest_on(device: torch.device) -> torch.dtype:
    if device.type != "cuda":
        dtype, reason = torch.float32, f"nothing is known of {device.type} devices"
    else:
        with torch.cuda.device(device):
            has_bfloat16 = torch.cuda.is_bf16_supported(including_emulation=False)
        dtype = torch.bfloat16 if has_bfloat16 else torch.float16
        reason = f"{device} {'has' if has_bfloat16 else 'lacks'} bfloat16 in hardware"
    logger.info("dtype='fastest' chose %s, as %s", dtype, reason)
    return dtype
