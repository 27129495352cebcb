"""What users pass to `predict`, as a list of pairs of texts."""

from typing import Any

from sbert_ray.inference.inputs import as_list, to_list

_PAIRS = "a pair of texts or a list of pairs"


def as_pairs(inputs: Any) -> tuple[list[tuple[str, str]], bool]:
    """Return ``inputs`` as a list of pairs of texts, and whether they were a single pair.

    Args:
        inputs: A pair, or pairs in a list, tuple, array (N, 2), pandas Series, Arrow array or the like. A list of two
            texts is a pair.

    Raises:
        TypeError: They are something else, a table among it, or a row is no pair of texts; the message names the row.
        ValueError: A row has more or fewer than two texts.
    """
    rows = as_list(inputs, _PAIRS, (1, 2))
    if rows and all(isinstance(row, str) for row in rows):
        if len(rows) != 2:
            raise ValueError(f"inputs must be {_PAIRS}, got {len(rows)} text(s)")
        return [(rows[0], rows[1])], True
    return [_pair(row, pair) for row, pair in enumerate(rows)], False


def _pair(row: int, pair: Any) -> tuple[str, str]:
    if isinstance(pair, (str, bytes, dict, set, frozenset)) or not hasattr(pair, "__len__"):
        raise TypeError(f"inputs must be pairs of texts; row {row} is of type {type(pair).__name__}")
    texts = to_list(pair)
    if len(texts) != 2:
        raise ValueError(f"inputs must be pairs of texts; row {row} has {len(texts)} item(s)")
    for name, text in zip(("first", "second"), texts, strict=True):
        if not isinstance(text, str):
            kind = type(text).__name__
            raise TypeError(f"inputs must be pairs of texts; the {name} one of row {row} is of type {kind}")
    return texts[0], texts[1]
