"""Where the time of a run goes, by kind of operator."""

from collections import defaultdict
from collections.abc import Mapping
from typing import Any

KINDS = {
    "attention": ("attention", "softmax", "bmm", "baddbmm"),
    "GEMM": ("linear", "addmm", "::mm", "matmul", "_int_mm", "gemm", "mkldnn"),
    "activation": ("gelu", "relu", "tanh", "sigmoid", "log1p", "silu", "erf"),
    "norm": ("norm",),
    "pooling": ("max", "mean", "::sum", "::div", "clamp"),
    "lookup": ("embedding", "index", "gather", "scatter", "nonzero"),
    "elementwise": ("::add", "::mul", "::sub", "::rsub", "::neg"),
    "copies": ("copy", "cat", "clone", "contiguous", "fill", "zero", "empty", "stack", "resize"),
}
"""By what an operator's name holds, the first that fits."""
OTHER = "other operators"
OUTSIDE = "outside of operators"


def kind(operator: str) -> str:
    """Return what kind of work an operator does."""
    return next((name for name, parts in KINDS.items() if any(part in operator for part in parts)), OTHER)


def by_kind(profiled: Mapping[str, Any]) -> dict[str, float]:
    """Return seconds by kind, of what `benchmarks.child` replies to ``profile``."""
    seconds: dict[str, float] = defaultdict(float)
    for operator, spent in profiled["operators"].items():
        seconds[kind(operator)] += spent
    seconds[OUTSIDE] = max(profiled["seconds"] - sum(seconds.values()), 0.0)
    return dict(seconds)


def profile_table(profiled: Mapping[str, Mapping[str, Any]]) -> tuple[list[str], list[list[str]]]:
    """Return the columns and rows of a table of shares, a column for each side; the last one's largest comes first."""
    sides = {name: by_kind(found) for name, found in profiled.items()}
    totals = {name: sum(seconds.values()) for name, seconds in sides.items()}
    present = [name for name in (*KINDS, OTHER, OUTSIDE) if any(seconds.get(name) for seconds in sides.values())]
    present.sort(key=lambda name: -list(sides.values())[-1].get(name, 0.0))
    rows = [
        [name, *(f"{seconds.get(name, 0.0) / totals[side]:.1%}" for side, seconds in sides.items())] for name in present
    ]
    return ["work", *sides], [*rows, ["wall-clock s", *(f"{total:.2f}" for total in totals.values())]]
