"""The name by which a class is imported."""

from typing import Any


def fullname(obj: Any) -> str:
    """Return the module and the name of a class, or of an object's class; of a built-in one the name alone."""
    kind = obj if isinstance(obj, type) else type(obj)
    return kind.__name__ if kind.__module__ == "builtins" else f"{kind.__module__}.{kind.__name__}"
