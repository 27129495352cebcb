"""What users pass to `encode`, as a list of texts or images."""

import os
import sys
from collections.abc import Collection
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

KINDS = ("text", "image")
"""Kinds of input that a model may take."""

IMAGE_SUFFIXES = (".jpg", ".jpeg", ".png", ".gif", ".bmp", ".tiff", ".webp")
"""Of texts that are the path or URL of an image, for models that take both."""


class BadInputError(ValueError):
    """An input that cannot be read."""

    def __init__(self, row: int, reason: str) -> None:
        super().__init__(f"row {row} of the inputs cannot be read: {reason}")
        self.row = row
        """Its place among the inputs."""
        self.reason = reason
        """What is wrong with it."""

    def __reduce__(self) -> tuple[type["BadInputError"], tuple[int, str]]:
        return BadInputError, (self.row, self.reason)


_TEXTS = "a text or a list of texts"


def as_texts(inputs: Any) -> tuple[list[str], bool]:
    """Return ``inputs`` as a list, and whether they were a single text.

    Args:
        inputs: A text, or texts in a list, tuple, array, pandas Series, Arrow array or the like.

    Raises:
        TypeError: They are something else, a table among it, or a row is no text; the message names its row and type.
    """
    if isinstance(inputs, str):
        return [inputs], True
    texts = as_list(inputs, _TEXTS, (1,))
    for row, text in enumerate(texts):
        if not isinstance(text, str):
            raise TypeError(f"inputs must be texts; row {row} is of type {type(text).__name__}")
    return texts, False


def as_inputs(inputs: Any, kinds: Collection[str], is_routed: bool = False) -> tuple[list[Any], bool]:
    """Return ``inputs`` as a list, and whether they were a single one.

    Args:
        inputs: A text, a pair of texts or an image, also as ``{kind: input}``; or several in a list, tuple, array,
            pandas Series, Arrow array or the like. Two texts are two texts, and a list of two texts in a list a pair.
        kinds: Kinds that the model takes.
        is_routed: Whether an input may be ``{route: input}``.

    Raises:
        TypeError: They are something else, a table among it, or a row is of no such kind; the message names it.
    """
    if "image" not in kinds and not is_routed:
        return _as_texts_and_pairs(inputs)
    is_single = isinstance(inputs, (str, dict)) or _is_image(inputs)
    wanted = " or ".join(kind for kind in KINDS if kind in kinds)
    rows = [inputs] if is_single else as_list(inputs, f"a {wanted} or a list of them", (1, 4))
    for row, value in enumerate(rows):
        is_route = is_routed and isinstance(value, dict) and not value.keys() & set(KINDS)
        for inner in value.values() if is_route else [value]:
            kind_and_value(inner, kinds, row)
    return rows, is_single


def _as_texts_and_pairs(inputs: Any) -> tuple[list[Any], bool]:
    is_single = isinstance(inputs, str) or (isinstance(inputs, dict) and inputs.keys() == {"text"})
    rows = [inputs] if is_single else as_list(inputs, _TEXTS, (1,))
    values = [
        value if isinstance(value, str) else kind_and_value(value, ("text",), row)[1] for row, value in enumerate(rows)
    ]
    return values, is_single


def as_list(inputs: Any, wanted: str, dimensions: Collection[int]) -> list[Any]:
    """Return ``inputs``, several in anything that holds them in an order, as a list.

    Args:
        inputs: A list, tuple, array, pandas Series, Arrow array or the like.
        wanted: What they should be, for the message.
        dimensions: How many an array of them may have.

    Raises:
        TypeError: They are something else, a table among it.
    """
    # Iterating a table would give the names of its columns.
    is_table = hasattr(inputs, "columns") or getattr(inputs, "ndim", 1) not in dimensions
    refuse_set(inputs, wanted)
    if is_table or isinstance(inputs, (bytes, dict, str)) or not hasattr(inputs, "__len__"):
        shape = f" of shape {tuple(inputs.shape)}" if hasattr(inputs, "shape") else ""
        raise TypeError(f"inputs must be {wanted}, got {type(inputs).__name__}{shape}")
    return to_list(inputs)


def to_list(values: Any) -> list[Any]:
    """Return a list of values of Python, those of an array of images excepted, which stay arrays."""
    if hasattr(values, "to_pylist"):  # Arrow, whose items are scalars of its own
        values = values.to_pylist()
    elif hasattr(values, "tolist") and getattr(values, "ndim", 1) <= 2:
        values = values.tolist()
    return list(values)


def refuse_set(inputs: Any, wanted: str) -> None:
    """Refuse a set, since results come in the order of the inputs.

    Raises:
        TypeError: It is one.
    """
    if isinstance(inputs, (set, frozenset)):
        raise TypeError(f"inputs must be {wanted}, got a {type(inputs).__name__}, which has no order")


def kind_and_value(value: Any, kinds: Collection[str], row: int) -> tuple[str, Any]:
    """Return the kind of an input, and the input itself, taken out of ``{kind: input}``.

    A text is an image where it is a ``data:`` URI of one, or ends like an image's name and is a URL or the path of a
    file that is there.

    Args:
        value: The input.
        kinds: Kinds that the model takes.
        row: Its place among the inputs.

    Raises:
        TypeError: It is of no such kind.
    """
    came = type(value).__name__
    if isinstance(value, dict) and len(value) == 1 and (kind := next(iter(value))) in KINDS:
        [value] = value.values()
        came = type(value).__name__ if kind in kinds else f"dict with the key {kind!r}"
    elif isinstance(value, str):
        kind = "image" if "image" in kinds and _names_image(value) else "text"
    elif _is_pair(value):
        kind = "text"
    else:
        kind = "image" if _is_image(value) else ""
    if kind not in kinds or (kind == "text" and not (isinstance(value, str) or _is_pair(value))):
        wanted = " or ".join(f"{name}s" for name in KINDS if name in kinds)
        raise TypeError(f"inputs must be {wanted}; row {row} is of type {came}")
    return kind, tuple(value) if kind == "text" and not isinstance(value, str) else value


def _is_pair(value: Any) -> bool:
    return isinstance(value, (tuple, list)) and len(value) == 2 and all(isinstance(text, str) for text in value)


def is_url(text: str) -> bool:
    """Return whether a text is the URL of something on the web."""
    return text.startswith(("http://", "https://")) and " " not in text


def _names_image(text: str) -> bool:
    if text.startswith("data:image/"):
        return True
    if not is_url(text):
        return text.lower().endswith(IMAGE_SUFFIXES) and os.path.isfile(text)
    try:
        return urlsplit(text).path.lower().endswith(IMAGE_SUFFIXES)
    except ValueError:  # brackets around what is no address
        return False


def _is_image(value: Any) -> bool:
    if isinstance(value, (bytes, bytearray, memoryview, Path)):
        return True
    pillow = sys.modules.get("PIL.Image")  # without which nobody can have one
    if pillow is not None and isinstance(value, pillow.Image):
        return True
    return hasattr(value, "shape") and getattr(value, "ndim", 0) == 3
