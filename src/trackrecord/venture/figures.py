"""Every number of a report by name: what it is, how it came about, and how far it may be off.

Invariant: a figure is never a point alone where an assumption behind it has a range: `low` and
`high` are the 5th and 95th percentile of the Monte Carlo draws.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from math import isclose

from mini_vllm.sim.quantity import Quantity
from trackrecord.venture import economics, options
from trackrecord.venture.keys import KEYS
from trackrecord.venture.sheet import Assumption
from trackrecord.venture.uncertainty import Distribution, finite
from trackrecord.venture.words import bare, shown

PROBABILITIES = {
    "probability_gross_margin": ("probability of a gross margin above 0", "gross_margin"),
    "probability_operating_margin": (
        "probability of a margin above 0 with engineers paid",
        "operating_margin",
    ),
}
NAMES = frozenset({*economics.FIGURES, *options.FIGURES, *PROBABILITIES, *KEYS})
"""What a thesis may refer to, as `{name}`."""


@dataclass(frozen=True)
class Figure:
    """A number with its derivation; None where there is none, such as a break-even never reached.

    Args:
        anchor: of its derivation on the page.
    """

    key: str
    name: str
    anchor: str
    value: float | None
    unit: str
    low: float | None
    high: float | None
    is_uncertain: bool
    lines: list[str]

    @property
    def shown(self) -> str:
        """Value and unit: `1.23 USD`."""
        return shown(self.value, self.unit)

    @property
    def range(self) -> str:
        """`1.01 to 1.5`, or empty where nothing behind it is uncertain."""
        if not self.is_uncertain:
            return ""
        low, high = (bare(end, self.unit) for end in (self.low, self.high))
        return f"{low} to {high}"

    @property
    def with_range(self) -> str:
        return f"{self.shown} ({self.range})" if self.range else self.shown


def from_quantity(key: str, quantity: Quantity, spread: Distribution) -> Figure:
    """A figure of the economics or the options."""
    certain = (
        spread.p5 is not None and spread.p95 is not None and isclose(spread.p5, spread.p95)
    ) or (spread.p5 is None and finite(quantity.value) is None)
    return Figure(
        key,
        quantity.name,
        slug(quantity.name),
        finite(quantity.value),
        quantity.unit,
        spread.p5,
        spread.p95,
        not certain,
        list(quantity.derivation),
    )


def from_assumption(assumption: Assumption) -> Figure:
    """What the sheet assumes, as a figure: its derivation is where it was seen."""
    key = assumption.key
    seen = ", ".join(part for part in (assumption.source, assumption.date) if part)
    return Figure(
        key.name,
        key.words,
        "assumption-" + slug(key.name.replace(".", " ").replace("_", " ")),
        assumption.value,
        key.unit,
        assumption.low,
        assumption.high,
        assumption.low != assumption.high,
        [f"assumed: {seen or 'no source given'}"],
    )


def probability(key: str, spread: Distribution, draws: int, seed: int) -> Figure:
    """The share of the draws in which a margin is above 0."""
    name, of = PROBABILITIES[key]
    line = (
        f"{round(spread.positive * draws):,} of {draws:,} draws (seed {seed}) have a "
        f"{of.replace('_', ' ')} above 0"
    )
    return Figure(key, name, slug(name), spread.positive, "share", None, None, False, [line])


def slug(text: str) -> str:
    """The anchor that GitHub gives a heading of plain words."""
    return re.sub(r"[^a-z0-9 -]", "", text.lower()).replace(" ", "-")
