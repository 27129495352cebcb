"""Work that a thread does ahead of who needs it."""

from collections import deque
from collections.abc import Callable, Generator, Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import islice
from threading import get_ident
from typing import TypeVar

T = TypeVar("T")
R = TypeVar("R")


def prefetched(items: Iterable[T], work: Callable[[T], R], depth: int) -> Generator[R, None, None]:
    """Yield what ``work`` makes of each item, in their order, while one thread works ahead.

    The thread starts with the first result that is asked for. It ends when the results do, or fail, or when the
    iterator is closed or forgotten: close it where what reads it may stop early, with `contextlib.closing`. Closing
    waits for the item in work, and drops those that wait.

    Args:
        items: Read by the thread that reads the results, a few ahead.
        work: Called in a thread of its own, on one item at a time. What it raises is raised here, in the place of its
            result, and ends the iterator.
        depth: How many results may be there, or in work, before they are asked for.

    Raises:
        ValueError: ``depth`` is not positive.
    """
    if depth < 1:
        raise ValueError(f"depth must be positive, got {depth}")
    return _prefetched(items, work, depth)


def _prefetched(items: Iterable[T], work: Callable[[T], R], depth: int) -> Generator[R, None, None]:
    pending: deque[Future[R]] = deque()
    waiting = iter(items)
    # Items are handed over by the reader, so that the thread never waits for room: a reader that is gone, or a
    # program that ends, leaves nothing that waits for ever.
    workers: list[int] = []
    thread = ThreadPoolExecutor(1, "prefetch", initializer=lambda: workers.append(get_ident()))
    try:
        pending.extend(thread.submit(work, item) for item in islice(waiting, depth))
        while pending:
            result = pending.popleft().result()
            pending.extend(thread.submit(work, item) for item in islice(waiting, 1))
            yield result
            del result  # lest it outlive its use while the next one is waited for
    finally:
        # A forgotten iterator may be collected by whichever thread, and one that waits for itself would do so for ever.
        thread.shutdown(wait=get_ident() not in workers, cancel_futures=True)
