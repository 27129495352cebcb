"""A progress bar over rows."""

import logging
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
