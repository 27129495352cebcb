"""Linear layers that multiply 8-bit integers on a CPU.

Shapes: L rows (tokens), P rows with padding, K inputs, N outputs.
"""

import threading
from collections.abc import Sequence
from functools import cache
from typing import Any, Literal, NamedTuple, Self

import torch
from torch import Tensor

from sbert_ray.inference.cpu_trial import trial

_ROWS = 1024
"""Rows that are multiplied at once: enough that calls cost little, few enough that buffers stay small."""
_STAGED = 64 * 1536
"""Values that are rounded at once: what stays in the cache of a core between two passes."""
_MAX_INPUTS = 2**31 // (255 * 127)
"""Above it, sums of products of codes overflow."""
_ZERO_CODE = 128
_TINY = 1e-20

# A float32 from 2 ** 23 to 2 ** 24 holds an integer in its low bits. So this addition rounds, half to even, and leaves
# the code in the lowest byte, which is several times faster than round, clamp and a cast from float to byte.
_ROUNDING = 1.5 * 2**23 + _ZERO_CODE

_scratch = threading.local()


class QuantizedLinear:
    """A linear layer whose weights and inputs are rounded to 8 bits, and whose sums are exact.

        w[n, k] ~ s[n] * q[n, k]        s[n] = max_k |w[n, k]| / 127
        x[l, k] ~ t[l] * p[l, k]        t[l] = max_k |x[l, k]| / 127
        y[l, n] = activation(t[l] * s[n] * sum_k(p[l, k] * q[n, k]) + b[n])

    Each row of the input has its own step t, found when it comes. So nothing has to be calibrated, and what a row gives
    depends neither on the rows beside it nor on their number: a row that is not finite spoils itself alone. The error
    is about 1 % of the length of the output for inputs without outliers.

    Several threads may call one object. It can be pickled and copied; on a CPU with coarser codes its weights are
    rounded again. There are no gradients.

    Args:
        weight: The weights (N, K).
        bias: What is added (N,), if anything.
        code_limit: The greatest code of a weight. Without it a trial tells what this CPU can multiply: 127, or 63 where
            sums of two products saturate at 16 bits.

    Raises:
        ValueError: The shapes do not fit, or K is so large that sums would overflow.
        RuntimeError: This CPU, or this build of torch, cannot multiply 8-bit integers.
    """

    def __init__(self, weight: Tensor, bias: Tensor | None = None, code_limit: int | None = None) -> None:
        if weight.dim() != 2 or not 0 < weight.shape[1] <= _MAX_INPUTS:
            raise ValueError(f"weight must be (N, K) with K up to {_MAX_INPUTS}, got {tuple(weight.shape)}")
        if bias is not None and bias.shape != weight.shape[:1]:
            raise ValueError(f"bias must be ({len(weight)},), got {tuple(bias.shape)}")
        self._bias = torch.zeros(len(weight)) if bias is None else bias.detach().float().clone()
        self._pack(*_rounded_weight(weight.detach().float(), code_limit or greatest_code()))

    @torch.no_grad()
    def __call__(self, x: Tensor, out: Tensor | None = None, activation: Literal["gelu"] | None = None) -> Tensor:
        """Return the outputs (L, N) in float32.

        Args:
            x: The inputs (L, K) in float32, on the CPU. A row that holds an infinity or a NaN gives no finite output.
            out: Where to put the outputs. It must not overlap ``x``.
            activation: What to apply to the outputs; ``"gelu"`` is the exact one.
        """
        if out is None:
            out = x.new_empty(len(x), len(self._scale))
        elif not out.is_contiguous():  # oneDNN would write to its memory as if it were
            return out.copy_(self(x, activation=activation))
        for start in range(0, len(x), _ROWS):
            part = out[start : start + _ROWS]
            self._multiply(_Rounded.of(x[start : start + _ROWS]), part)
            if activation == "gelu":
                torch.ops.aten.gelu_(part)
        return out

    @torch.no_grad()
    def add_to(self, total: Tensor, x: Tensor, least: float | None = None) -> Tensor:
        """Add the outputs (L, N) to ``total``, in place, and return it.

        Args:
            total: In float32, apart from ``x``.
            x: The inputs (L, K) in float32, on the CPU.
            least: What no input is less than, where that is known, which spares looking for the least one.
        """
        for start in range(0, len(x), _ROWS):
            rounded = _Rounded.of(x[start : start + _ROWS], least)
            part = total[start : start + _ROWS]
            part.addcmul_(self._sums(rounded, None, len(part)), rounded.step)
        return total

    def __getstate__(self) -> dict[str, Any]:
        """Return the weights as codes: oneDNN's own layout of them is of this CPU and cannot be pickled."""
        return {"codes": self._codes, "scale": self._scale, "bias": self._bias}

    def __setstate__(self, state: dict[str, Any]) -> None:
        codes, scale, limit = state["codes"], state["scale"], greatest_code()
        self._bias = state["bias"]
        if codes.abs().max() > limit:
            codes, scale = _rounded_weight(codes.float() * scale.unsqueeze(1), limit)
        self._pack(codes, scale)

    def _pack(self, codes: Tensor, scale: Tensor) -> None:
        self._codes, self._scale = codes, scale  # (N, K), (N,)
        self._zeros = torch.zeros(len(scale), dtype=torch.int64)
        self._packed = torch.ops.onednn.qlinear_prepack(codes, None)

    def _multiply(self, x: "_Rounded", out: Tensor) -> None:
        torch.mul(self._sums(x, out, len(out)), x.step, out=out)

    def _sums(self, x: "_Rounded", out: Tensor | None, num_rows: int) -> Tensor:
        """Return the outputs (L, N) in steps of each row, in ``out`` where it has room for the padding."""
        num_padded = len(x.codes)
        # Adding to memory that is there spares new pages for the sums, which would cost more than the products.
        if out is None or num_padded != num_rows:
            out = _buffer("sums", num_padded * len(self._bias)).view(num_padded, -1)
        torch.mul(x.per_step, self._bias, out=out[:num_rows])
        weights = (x.codes, 1.0, _ZERO_CODE, self._packed, self._scale, self._zeros)
        sums: Tensor = torch.ops.onednn.qlinear_pointwise.binary(
            *weights, out, None, 1.0, 0, torch.float32, 1.0, 0, "sum", 1.0, "none", [], ""
        )
        return sums[:num_rows]


@torch.no_grad()
def outputs_of(layers: Sequence[QuantizedLinear], x: Tensor, outs: Sequence[Tensor]) -> None:
    """Write what several layers make of the same inputs, which are rounded once.

    Args:
        layers: Several.
        x: The inputs (L, K) in float32, on the CPU.
        outs: Where to put the outputs (L, N) of each, contiguous and apart from ``x``.
    """
    for start in range(0, len(x), _ROWS):
        rounded = _Rounded.of(x[start : start + _ROWS])
        for layer, out in zip(layers, outs, strict=True):
            layer._multiply(rounded, out[start : start + _ROWS])  # noqa: SLF001 (of the same module)


class _Rounded(NamedTuple):
    """Inputs in 8 bits, in buffers of this thread until the next ones come."""

    codes: Tensor
    """(P, K), with whatever there was in the rows of padding"""
    step: Tensor
    """(L, 1)"""
    per_step: Tensor
    """(L, 1), its reciprocal"""

    @classmethod
    def of(cls, x: Tensor, least: float | None = None) -> Self:
        (num_rows, num_inputs), num_padded = x.shape, _padded(len(x))
        step = x.amax(1, keepdim=True)
        step = torch.maximum(step, x.amin(1, keepdim=True).neg_()) if least is None else step.clamp_min_(abs(least))
        step = step.mul_(1 / 127).add_(_TINY)  # never 0
        per_step = step.reciprocal()
        # oneDNN is fast with unsigned inputs only, hence codes around 128.
        codes = _buffer("codes", num_padded * num_inputs, torch.uint8).view(num_padded, num_inputs)
        rounding = _roundings(num_inputs)
        rows = max(1, _STAGED // num_inputs)
        stage = _buffer("stage", min(rows, num_rows) * num_inputs).view(-1, num_inputs)
        for start in range(0, num_rows, rows):
            part = slice(start, min(start + rows, num_rows))
            values = torch.addcmul(rounding, x[part], per_step[part], out=stage[: part.stop - start])
            codes[part].copy_(values.view(torch.int32))
        return cls(codes, step, per_step)


@cache
def _roundings(num_inputs: int) -> Tensor:
    with torch.inference_mode(mode=False):
        return torch.full((num_inputs,), _ROUNDING)  # one per column: a scalar would not be vectorised


def _padded(num_rows: int) -> int:
    """Return one of few numbers of rows: oneDNN compiles a kernel for each, which takes as long as the product."""
    multiple = 64 if num_rows > 64 else 8
    return -(-num_rows // multiple) * multiple


def _rounded_weight(weight: Tensor, limit: int) -> tuple[Tensor, Tensor]:
    scale = weight.abs().amax(1).clamp_min(_TINY) / limit  # (N,)
    return (weight / scale.unsqueeze(1)).round().to(torch.int8).contiguous(), scale


def greatest_code() -> int:
    """Return the greatest code of a weight on this CPU.

    Raises:
        RuntimeError: It, or this build of torch, cannot multiply 8-bit integers.
    """
    result = trial("int8", torch.get_num_threads())
    if result.ratio is None:
        raise RuntimeError(f"int8 must work on this CPU, but {result.reason}; load with dtype='float32'")
    return result.code_limit


def _buffer(name: str, size: int, dtype: torch.dtype = torch.float32) -> Tensor:
    """Return a part of a buffer that only this thread uses."""
    buffer: Tensor | None = getattr(_scratch, name, None)
    if buffer is None or len(buffer) < size:
        with torch.inference_mode(mode=False):  # what is made in inference mode could not be written outside it
            buffer = torch.empty(size, dtype=dtype)
        setattr(_scratch, name, buffer)
    return buffer[:size]
