"""What users pass to `encode`, as a list of texts."""

from typing import Any


def as_texts(inputs: Any) -> tuple[list[str], bool]:
    """Return ``inputs`` as a list, and whether they were a single text.

    Args:
        inputs: A text, or texts in a list, tuple, array, pandas Series, Arrow array or the like.

    Raises:
        TypeError: They are something else, a table among it, or a row is no text; the message names its row and type.
    """
    if isinstance(inputs, str):
        return [inputs], True
    is_table = hasattr(inputs, "columns") or getattr(inputs, "ndim", 1) != 1  # iterating one gives column names
    if is_table or isinstance(inputs, (bytes, dict)) or not hasattr(inputs, "__len__"):
        shape = f" of shape {inputs.shape}" if hasattr(inputs, "shape") else ""
        raise TypeError(f"inputs must be a text or a list of texts, got {type(inputs).__name__}{shape}")
    if hasattr(inputs, "to_pylist"):  # Arrow, whose items are scalars of its own
        inputs = inputs.to_pylist()
    elif hasattr(inputs, "tolist"):
        inputs = inputs.tolist()
    texts = list(inputs)
    for row, text in enumerate(texts):
        if not isinstance(text, str):
            raise TypeError(f"inputs must be texts; row {row} is of type {type(text).__name__}")
    return texts, False
