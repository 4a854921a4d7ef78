"""A number that knows its unit and how it came about.

Invariant: `derivation` recomputes `value`: each line is one step of arithmetic with its numbers in
it, and the last line ends in the value shown.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import isfinite

_BYTES = (("TB", 1e12), ("GB", 1e9), ("MB", 1e6), ("kB", 1e3))
_LARGE = (("T", 1e12), ("G", 1e9), ("M", 1e6))
_SMALL = ((1.0, 1.0, ""), (1e-3, 1e3, "m"), (1e-6, 1e6, "u"))


@dataclass(frozen=True)
class Quantity:
    """A result of sizing or simulation.

    Args:
        name: what it is, in words.
        unit: `B`, `B/token`, `FLOP`, `s`, `tokens`, `requests`, `FLOP/B`, `params`, `share`, ...
        derivation: the arithmetic, a line a step.
    """

    name: str
    value: float
    unit: str
    derivation: tuple[str, ...] = ()

    def __str__(self) -> str:
        return f"{self.name}: {self.shown}"

    @property
    def shown(self) -> str:
        """The value for a person: `141 GB`, `327,680 B/token`, `5.31 ms`."""
        return show(self.value, self.unit)

    def to_json(self) -> dict[str, object]:
        return {
            "name": self.name,
            "value": self.value if isfinite(self.value) else None,
            "unit": self.unit,
            "derivation": list(self.derivation),
        }


def show(value: float, unit: str) -> str:
    """`value` in a unit that reads well."""
    if not isfinite(value):
        return f"no number of {unit}"
    if unit in ("B", "B/s"):
        for prefix, scale in _BYTES:
            if abs(value) >= scale:
                return f"{value / scale:,.3g} {prefix}{unit[1:]}"
        return f"{value:,.0f} {unit}"
    if unit in ("FLOP", "FLOP/s", "params"):
        for prefix, scale in _LARGE:
            if abs(value) >= scale:
                return f"{value / scale:,.4g} {prefix}{'' if unit == 'params' else unit}".strip()
        return f"{value:,.0f} {unit}"
    if unit == "s":
        return seconds(value)
    if unit == "share":
        return f"{100 * value:.3g} %"
    if float(value).is_integer() or abs(value) >= 1e4:
        return f"{value:,.0f} {unit}"
    return f"{value:,.4g} {unit}"


def seconds(value: float) -> str:
    """A duration: `12.3 s`, `5.31 ms`, `48.0 us`."""
    for least, scale, prefix in _SMALL:
        if abs(value) >= least:
            return f"{value * scale:,.3g} {prefix}s"
    return "0 s" if value == 0 else f"{value * 1e6:.3g} us"


def number(value: float) -> str:
    """A number inside a derivation: whole numbers exactly, others to four digits."""
    if float(value).is_integer() or abs(value) >= 1e4:
        return f"{value:,.0f}"
    return f"{value:,.4g}"
