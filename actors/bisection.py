"""The search for the rows of a unit that take their process down."""

from collections.abc import Sequence
from dataclasses import dataclass, field

MAX_CULPRITS = 16


@dataclass
class Bisection:
    """Halves ranges of positions that kill a process until single rows are left.

    Args:
        positions: rows of a unit that is known to kill.
    """

    positions: Sequence[int]
    culprits: list[int] = field(default_factory=list)
    _pending: list[range] = field(default_factory=list)

    def __post_init__(self) -> None:
        self._split(range(len(self.positions)))

    def next(self) -> list[int] | None:
        """Return the positions to try now, or None when the search is over."""
        if not self._pending or len(self.culprits) > MAX_CULPRITS:
            return None
        return [self.positions[index] for index in self._pending[-1]]

    def settle(self, survived: bool) -> None:
        """Tell how the last trial went."""
        tried = self._pending.pop()
        if not survived:
            self._split(tried)

    def _split(self, rows: range) -> None:
        if len(rows) == 1:
            self.culprits.append(self.positions[rows[0]])
            return
        middle = len(rows) // 2
        self._pending += [half for half in (rows[middle:], rows[:middle]) if half]
