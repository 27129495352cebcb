"""A progress bar over rows, and logging that leaves it whole."""

import logging
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from tqdm.auto import tqdm

logger = logging.getLogger("sbert_ray")


@contextmanager
def progress_bar(num_rows: int, show: bool | None) -> Iterator[Callable[[int], None]]:
    """Give a function that is called with the rows of each batch; None shows the bar where INFO is logged."""
    if show is None:
        show = logger.isEnabledFor(logging.INFO)
    with tqdm(total=num_rows, desc="Texts", unit="text", disable=not show) as bar:
        yield lambda rows: bar.update(rows) and None


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
