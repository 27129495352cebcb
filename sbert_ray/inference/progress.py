"""A progress bar over rows, and logging that leaves it whole."""

import logging
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar

from tqdm.auto import tqdm

logger = logging.getLogger("sbert_ray")

_listener: ContextVar[Callable[[int], None] | None] = ContextVar("listener", default=None)


@contextmanager
def told_of_batches(listener: Callable[[int], None]) -> Iterator[None]:
    """Call ``listener`` with the rows of each batch that models compute within the block, whoever asks them to."""
    token = _listener.set(listener)
    try:
        yield
    finally:
        _listener.reset(token)


@contextmanager
def progress_bar(num_rows: int, show: bool | None) -> Iterator[Callable[[int], None]]:
    """Give a function that is called with the rows of each batch; None shows the bar where INFO is logged."""
    if show is None:
        show = logger.isEnabledFor(logging.INFO)
    listener = _listener.get()
    with tqdm(total=num_rows, desc="Texts", unit="text", disable=not show) as bar:

        def on_batch(rows: int) -> None:
            bar.update(rows)
            if listener is not None:
                listener(rows)

        yield on_batch


class LoggingHandler(logging.StreamHandler["_AboveBars"]):
    """Writes log records to the standard output, above the progress bars that are there.

    Args:
        level: The least level that is written.
    """

    def __init__(self, level: int | str = logging.NOTSET) -> None:
        super().__init__(_AboveBars())
        self.setLevel(level)


class _AboveBars:
    """A stream."""

    def write(self, text: str) -> None:
        tqdm.write(text, end="")

    def flush(self) -> None:
        sys.stdout.flush()
