"""What users pass to `encode`, as a list of texts."""

from typing import Any


def as_texts(inputs: Any) -> tuple[list[str], bool]:
    """Return ``inputs`` as a list, and whether they were a single text.

    Args:
        inputs: A text, or texts in a list, tuple, array, pandas Series, Arrow array or the like.

    Raises:
        TypeError: They are something else, or a row is no text; the message names the row and its type.
    """
    if isinstance(inputs, str):
        return [inputs], True
    if isinstance(inputs, (bytes, dict)) or not hasattr(inputs, "__len__"):
        raise TypeError(f"inputs must be a text or a list of texts, got {type(inputs).__name__}")
    if hasattr(inputs, "to_pylist"):  # Arrow, whose items are scalars of its own
        inputs = inputs.to_pylist()
    elif hasattr(inputs, "tolist"):
        inputs = inputs.tolist()
    texts = list(inputs)
    for row, text in enumerate(texts):
        if not isinstance(text, str):
            raise TypeError(f"inputs must be texts; row {row} is of type {type(text).__name__}")
    return texts, False
