"""How fast this CPU multiplies matrices in formats smaller than float32, tried in a process of its own.

Some virtual machines announce AMX without a usable palette; oneDNN then dies of SIGILL, which no exception handler
sees. And formats without instructions of their own are emulated, up to thousands of times slower than float32.
"""

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from functools import cache

import torch
import torch.nn.functional as F

NUM_ROWS, NUM_INPUTS, NUM_OUTPUTS = 512, 384, 1536
"""A batch of short texts in a small encoder's widest layer."""
_SECONDS = 0.5
_ROUNDS = 30
_TIMEOUT_SECONDS = 120


@dataclass(frozen=True)
class Trial:
    """What a trial found.

    Attributes:
        ratio: How many times as fast as float32 a linear layer is; None if it does not work.
        reason: Why it does not work.
        code_limit: The greatest code of an int8 weight with which sums do not saturate.
    """

    ratio: float | None
    reason: str = ""
    code_limit: int = 127


@cache
def trial(format_name: str, num_threads: int) -> Trial:
    """Try a linear layer in another process, once in the life of this one. It takes some seconds.

    Args:
        format_name: ``"bfloat16"``, ``"float16"`` or ``"int8"``.
        num_threads: How many threads compute.
    """
    command = [sys.executable, "-P", "-m", "sbert_ray.inference.cpu_trial", format_name, str(num_threads)]
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    try:
        process = subprocess.run(
            command, capture_output=True, check=False, text=True, env=environment, timeout=_TIMEOUT_SECONDS
        )
    except subprocess.TimeoutExpired:
        return Trial(None, f"a trial matrix product took more than {_TIMEOUT_SECONDS} seconds")
    if process.returncode != 0:
        last = "".join(process.stderr.strip().splitlines()[-1:])
        detail = f" ({last})" if last else ""
        return Trial(None, f"a trial matrix product ended with exit code {process.returncode}{detail}")
    return Trial(**json.loads(process.stdout.splitlines()[-1]))


def main() -> None:
    """Try the format that the command line names, and write what was found as JSON."""
    torch.set_num_threads(int(sys.argv[2]))
    with torch.inference_mode():
        sys.stdout.write(json.dumps(asdict(_measured(sys.argv[1]))) + "\n")


def _measured(format_name: str) -> Trial:
    x, weight = torch.randn(NUM_ROWS, NUM_INPUTS), torch.randn(NUM_OUTPUTS, NUM_INPUTS)
    bias = torch.randn(NUM_OUTPUTS)
    if format_name == "int8":
        from sbert_ray.inference.int8 import QuantizedLinear

        limit = 127 if _is_exact(127) else 63
        if limit == 63 and not _is_exact(63):
            return Trial(None, "a trial product of 8-bit matrices was wrong")
        layer = QuantizedLinear(weight, bias, limit)
        return Trial(_ratio(lambda: F.linear(x, weight, bias), lambda: layer(x)), code_limit=limit)
    small = [tensor.to(getattr(torch, format_name)) for tensor in (x, weight, bias)]
    return Trial(_ratio(lambda: F.linear(x, weight, bias), lambda: F.linear(*small)))


def _is_exact(code_limit: int) -> bool:
    """Return whether the greatest codes multiply as they should: without VNNI, pairs of products saturate."""
    from sbert_ray.inference.int8 import QuantizedLinear

    ones = torch.ones(NUM_ROWS, NUM_INPUTS)
    layer = QuantizedLinear(torch.ones(NUM_OUTPUTS, NUM_INPUTS), torch.zeros(NUM_OUTPUTS), code_limit)
    return bool((layer(ones) - NUM_INPUTS).abs().max() < 0.01)


def _ratio(baseline: Callable[[], object], candidate: Callable[[], object]) -> float:
    """Return how many times as fast as the baseline the candidate is, going by the best of alternating rounds."""
    best = [float("inf"), float("inf")]
    end = time.perf_counter() + _SECONDS
    for round_ in range(_ROUNDS):
        for side, work in enumerate((baseline, candidate)):
            start = time.perf_counter()
            work()
            if round_:  # the first compiles kernels
                best[side] = min(best[side], time.perf_counter() - start)
        if round_ and time.perf_counter() > end:
            break
    return round(best[0] / best[1], 2)


if __name__ == "__main__":
    main()
