"""Progress of a run, in rows: a bar where a person watches, a line now and then where a log is written."""

import logging
import sys
import time
from types import TracebackType
from typing import Self

from tqdm import tqdm

logger = logging.getLogger(__name__)

LOG_SECONDS = 10.0


class Progress:
    """Shows how far a run is.

    Args:
        label: name of the job.
        total: rows in all, or the best estimate.
        resumed: rows that earlier runs have done.
        exact: whether ``total`` is known for certain.
    """

    def __init__(self, label: str, total: int, resumed: int, exact: bool) -> None:
        self.label = label
        self.total = total
        self.resumed = resumed
        self.exact = exact
        self.rows = resumed
        self._begun = self._logged = time.monotonic()
        self._first: tuple[float, int] | None = None
        """When the first rows came, and how many, since starting workers says nothing about speed."""
        self._bar = (
            tqdm(total=total, initial=resumed, desc=label, unit=" rows", unit_scale=False, smoothing=0.1)
            if sys.stderr.isatty()
            else None
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._bar is not None:
            self._bar.close()

    def show(self, rows: int, tokens: int | None, note: str = "") -> None:
        """Show the state.

        Args:
            rows: rows that are done, those of earlier runs included.
            tokens: tokens that this run has done; None where they are not counted.
            note: anything else.
        """
        now = time.monotonic()
        if self._first is None and rows > self.resumed:
            self._first = now, rows
        seconds = now - self._first[0] if self._first is not None else 0.0
        rate = None if tokens is None else tokens / seconds if seconds > 0 else 0.0
        self.rows = rows
        if self._bar is not None:
            self._bar.total = max(self.total, rows)
            self._bar.set_postfix_str(" ".join(filter(None, [_speed(rate), note])), refresh=False)
            self._bar.n = rows
            self._bar.refresh()
        elif now - self._logged >= LOG_SECONDS:
            self._logged = now
            logger.info("%s", self.line(now, rate, note))

    def line(self, now: float, tokens_per_second: float | None, note: str) -> str:
        """Return the state as one line."""
        begun, first_rows = self._first or (now, 0)
        speed = (self.rows - first_rows) / (now - begun) if now > begun else 0.0
        left = (self.total - self.rows) / speed if speed > 0 else None
        parts = [
            f"{self.label} {self.rows:,} of {'' if self.exact else 'about '}{self.total:,} rows",
            f"{speed:,.0f} rows/s",
            _speed(tokens_per_second),
            f"{max(left, 0.0):,.0f} s left" if left is not None else "starting",
            f"{self.resumed:,} from earlier runs" if self.resumed else "",
            note,
        ]
        return ", ".join(filter(None, parts))


def _speed(tokens_per_second: float | None) -> str:
    return "" if tokens_per_second is None else f"{tokens_per_second:,.0f} tokens/s"
