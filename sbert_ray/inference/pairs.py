"""What users pass to `predict`, as a list of pairs of texts."""

from typing import Any

from sbert_ray.inference.inputs import refuse_set


def as_pairs(inputs: Any) -> tuple[list[tuple[str, str]], bool]:
    """Return ``inputs`` as a list of pairs of texts, and whether they were a single pair.

    Args:
        inputs: A pair, or pairs in a list, tuple, array (N, 2), pandas Series, Arrow array or the like. A list of two
            texts is a pair.

    Raises:
        TypeError: They are something else, a table among it, or a row is no pair of texts; the message names the row.
        ValueError: A row has more or fewer than two texts.
    """
    refuse_set(inputs, "a pair of texts or a list of pairs")
    is_table = hasattr(inputs, "columns") or getattr(inputs, "ndim", 1) not in (1, 2)
    if is_table or isinstance(inputs, (str, bytes, dict)) or not hasattr(inputs, "__len__"):
        shape = f" of shape {inputs.shape}" if hasattr(inputs, "shape") else ""
        raise TypeError(f"inputs must be a pair of texts or a list of pairs, got {type(inputs).__name__}{shape}")
    rows = _as_list(inputs)
    if rows and all(isinstance(row, str) for row in rows):
        if len(rows) != 2:
            raise ValueError(f"inputs must be a pair of texts or a list of pairs, got {len(rows)} text(s)")
        return [(rows[0], rows[1])], True
    return [_pair(row, pair) for row, pair in enumerate(rows)], False


def _as_list(values: Any) -> list[Any]:
    if hasattr(values, "to_pylist"):  # Arrow, whose items are scalars of its own
        values = values.to_pylist()
    elif hasattr(values, "tolist"):
        values = values.tolist()
    return list(values)


def _pair(row: int, pair: Any) -> tuple[str, str]:
    if isinstance(pair, (str, bytes, dict, set, frozenset)) or not hasattr(pair, "__len__"):
        raise TypeError(f"inputs must be pairs of texts; row {row} is of type {type(pair).__name__}")
    texts = _as_list(pair)
    if len(texts) != 2:
        raise ValueError(f"inputs must be pairs of texts; row {row} has {len(texts)} item(s)")
    for name, text in zip(("first", "second"), texts, strict=True):
        if not isinstance(text, str):
            kind = type(text).__name__
            raise TypeError(f"inputs must be pairs of texts; the {name} one of row {row} is of type {kind}")
    return texts[0], texts[1]
