"""A time budget: how much may still be started.

A budget never stops what is running; it says whether another piece of known cost still fits.
"""

from __future__ import annotations

import time
from collections.abc import Callable

Clock = Callable[[], float]


class Budget:
    """Seconds from now on, on `clock` (any monotonic clock, in seconds)."""

    def __init__(self, seconds: float, clock: Clock = time.monotonic) -> None:
        self.seconds = seconds
        self._clock = clock
        self._end = clock() + seconds

    def left(self) -> float:
        """Seconds left; 0 once it is spent."""
        return max(0.0, self._end - self._clock())

    def fits(self, seconds: float) -> bool:
        """Whether something of this cost would end within the budget."""
        return seconds <= self.left()

    def part(self, seconds: float) -> Budget:
        """A budget for one part of the work: `seconds` from now, and never past this one's end."""
        return Budget(min(seconds, self.left()), self._clock)
