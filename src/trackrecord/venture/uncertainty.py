"""How far the answer moves: each assumption alone, and all of them at once.

Draws are independent of each other, which real assumptions are not; a report says so. Each
assumption has draws of its own, so that one more assumption leaves the others as they were.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from random import Random

from trackrecord.venture.sheet import Assumption

DRAWS = 4000
BINS = 30
_Z95 = 1.6448536269514722
_SHARES = (0.05, 0.25, 0.5, 0.75, 0.95)

Values = Mapping[str, float]


@dataclass(frozen=True)
class Bar:
    """One assumption of a tornado: the figure when it alone is at its low and at its high."""

    key: str
    low: float
    high: float
    at_low: float | None
    at_high: float | None

    @property
    def swing(self) -> float:
        """How far the figure moves; infinite where it stops to be a number."""
        if self.at_low is None or self.at_high is None:
            return math.inf
        return abs(self.at_high - self.at_low)


@dataclass(frozen=True)
class Distribution:
    """What a figure was over all draws. None stands for no number (such as no break-even).

    Args:
        positive: share of the draws above 0.
        edges, counts: a histogram from the 1st to the 99th percentile; edges are one more.
    """

    p5: float | None
    p25: float | None
    p50: float | None
    p75: float | None
    p95: float | None
    positive: float
    edges: list[float]
    counts: list[int]


def finite(value: float) -> float | None:
    """The value, or None where it is no number."""
    return value if math.isfinite(value) else None


def tornado(
    assumptions: Mapping[str, Assumption], evaluate: Callable[[Values], float]
) -> list[Bar]:
    """A bar for each assumption that has a range, the widest first; none that moves nothing."""
    base = {name: assumption.value for name, assumption in assumptions.items()}
    bars = []
    for name, assumption in assumptions.items():
        if assumption.low == assumption.high:
            continue
        ends = [evaluate({**base, name: end}) for end in (assumption.low, assumption.high)]
        bar = Bar(name, assumption.low, assumption.high, finite(ends[0]), finite(ends[1]))
        if bar.swing > 1e-12:
            bars.append(bar)
    return sorted(bars, key=lambda bar: (-bar.swing, bar.key))


def draw(assumption: Assumption, rng: Random) -> float:
    """One value, by the assumption's distribution and within its key's bounds."""
    low, high = assumption.low, assumption.high
    if assumption.distribution == "fixed":
        return assumption.value
    if assumption.distribution == "uniform":
        value = rng.uniform(low, high)
    elif assumption.distribution == "triangular":
        value = rng.triangular(low, high, assumption.value)
    else:
        sigma = math.log(high / low) / (2 * _Z95)
        value = assumption.value * math.exp(sigma * rng.gauss(0.0, 1.0))
    return min(max(value, assumption.key.least), assumption.key.most)


def samples(assumptions: Mapping[str, Assumption], draws: int, seed: int) -> list[dict[str, float]]:
    """`draws` sets of values."""
    columns = {}
    for name, assumption in assumptions.items():
        rng = Random(f"{seed}:{name}")
        columns[name] = [draw(assumption, rng) for _ in range(draws)]
    return [{name: column[n] for name, column in columns.items()} for n in range(draws)]


def monte_carlo(
    sets: Sequence[Values], evaluate: Callable[[Values], Mapping[str, float]]
) -> dict[str, Distribution]:
    """The distribution of each figure that `evaluate` gives."""
    found: dict[str, list[float]] = {}
    for values in sets:
        for name, figure in evaluate(values).items():
            found.setdefault(name, []).append(figure)
    return {name: distribution(figures) for name, figures in found.items()}


def distribution(figures: Sequence[float]) -> Distribution:
    """Percentiles (each a value that occurred), the share above 0, and a histogram."""
    ordered = sorted(figures)
    p5, p25, p50, p75, p95 = (finite(_at(ordered, share)) for share in _SHARES)
    numbers = [figure for figure in ordered if math.isfinite(figure)]
    low, high = (_at(numbers, 0.01), _at(numbers, 0.99)) if numbers else (0.0, 0.0)
    counts = [0] * BINS
    width = (high - low) / BINS
    for figure in numbers:
        if low <= figure <= high:
            counts[min(BINS - 1, int((figure - low) / width)) if width else 0] += 1
    return Distribution(
        p5,
        p25,
        p50,
        p75,
        p95,
        positive=sum(figure > 0 for figure in ordered) / len(ordered),
        edges=[low + n * width for n in range(BINS + 1)],
        counts=counts,
    )


def _at(ordered: Sequence[float], share: float) -> float:
    return ordered[min(len(ordered) - 1, max(0, math.ceil(share * len(ordered)) - 1))]
