"""The number format that a model is loaded in."""

import subprocess
import sys
from functools import cache
from typing import Any

import torch

_PROBE = "import torch; a = torch.ones(64, 128, dtype=torch.bfloat16); a @ a.T"


def load_dtype(requested: Any, stored: Any, device: str) -> torch.dtype:
    """Return the dtype to load weights in.

    Without a request it is float32 on a CPU, where half precision is slower or worse, and the checkpoint's own on a
    GPU. A request is honoured, ``"auto"`` being the checkpoint's own.

    Args:
        requested: A dtype, its name, ``"auto"`` or None.
        stored: The checkpoint's dtype or its name, or None where it says none.
        device: The torch device that the model will run on.

    Raises:
        ValueError: No dtype has the requested name.
        RuntimeError: bfloat16 is asked for on a CPU that dies of it.
    """
    on_cpu = torch.device(device).type == "cpu"
    if requested is None and on_cpu:
        return torch.float32
    dtype = _as_dtype(stored or torch.float32) if requested in (None, "auto") else _as_dtype(requested)
    if dtype == torch.bfloat16 and on_cpu:
        check_bfloat16_on_cpu()
    return dtype


def _as_dtype(name: Any) -> torch.dtype:
    dtype = name if isinstance(name, torch.dtype) else getattr(torch, str(name), None)
    if not isinstance(dtype, torch.dtype) or not dtype.is_floating_point:
        raise ValueError(f"dtype must be 'auto', 'float32', 'float16' or 'bfloat16', got {name!r}")
    return dtype


@cache
def check_bfloat16_on_cpu() -> None:
    """Multiply two bfloat16 matrices in a process of its own.

    Some virtual machines advertise AMX without a usable palette; oneDNN then dies of SIGILL, which no exception
    handler sees.

    Raises:
        RuntimeError: The process died.
    """
    probe = subprocess.run([sys.executable, "-c", _PROBE], capture_output=True, check=False)
    if probe.returncode != 0:
        raise RuntimeError(
            f"bfloat16 must work on this CPU, but a trial matrix product ended with exit code {probe.returncode}; "
            "set ONEDNN_MAX_CPU_ISA=AVX512_CORE_BF16 before Python starts, or load with dtype='float32'"
        )
