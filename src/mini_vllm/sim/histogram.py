"""Percentiles of many values in constant memory.

Values are counted in bins that grow by 1 %, so a percentile is off by half of that at most, however
many values there were. Counts are floats: a value may stand for many.
"""

from __future__ import annotations

from math import exp, log

_GROWTH = log(1.01)
_LEAST = 1e-6
_BINS = 2800
"""From a microsecond to two weeks."""


class Histogram:
    """Counts of non-negative values (seconds, usually)."""

    def __init__(self) -> None:
        self._counts = [0.0] * _BINS
        self.total = 0.0
        self.sum = 0.0
        self.largest = 0.0

    def add(self, value: float, weight: float = 1.0) -> None:
        """Counts `value`, `weight` times."""
        index = int(log(value / _LEAST) / _GROWTH) + 1 if value > _LEAST else 0
        self._counts[min(index, _BINS - 1)] += weight
        self.total += weight
        self.sum += value * weight
        self.largest = max(self.largest, value)

    @property
    def mean(self) -> float:
        return self.sum / self.total if self.total else 0.0

    def quantile(self, share: float) -> float | None:
        """The value that `share` of the values do not exceed; None if there are none."""
        if not self.total:
            return None
        wanted, seen = share * self.total, 0.0
        for index, count in enumerate(self._counts):
            seen += count
            if count and seen >= wanted:
                middle = _LEAST * exp(_GROWTH * (index - 0.5)) if index else 0.0
                return min(middle, self.largest)
        return self.largest

    def merge(self, other: Histogram) -> None:
        """Takes the counts of `other` in."""
        for index, count in enumerate(other._counts):
            if count:
                self._counts[index] += count
        self.total += other.total
        self.sum += other.sum
        self.largest = max(self.largest, other.largest)
