"""Classes under the names that they had in earlier versions of sentence-transformers."""

import warnings
from typing import Any, Self


class Renamed:
    """Makes a subclass, which has its present class as the next base, warn that it is called otherwise now."""

    def __new__(cls, *args: Any, **kwargs: Any) -> Self:  # noqa: ARG004 (they are for __init__)
        """Warn, and make an instance."""
        present = cls.__mro__[cls.__mro__.index(Renamed) + 1].__name__
        warnings.warn(f"{cls.__name__} is called {present} now", DeprecationWarning, stacklevel=2)
        return super().__new__(cls)
