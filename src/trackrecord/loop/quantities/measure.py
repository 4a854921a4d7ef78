"""Numbers with dimensions, and their arithmetic.

Invariant: a `Measure` holds its value in base units: bytes, seconds, FLOP, USD and watts, which are
physical, and counted nouns (`token`, `block`, `layer`), which are labels.
"""

from __future__ import annotations

from dataclasses import dataclass

from trackrecord.errors import TrackRecordError

Dimensions = tuple[tuple[str, int], ...]
"""Base names with their powers, sorted, none of them zero."""

PHYSICAL = frozenset({"B", "s", "FLOP", "USD", "W"})
_MOST_POWER = 12


class UnitError(TrackRecordError):
    """A unit that is not known, or two that do not go together."""


def dimensions(powers: dict[str, int]) -> Dimensions:
    """`powers` in the order and form that a `Measure` keeps them."""
    if any(abs(power) > _MOST_POWER for power in powers.values()):
        raise UnitError(f"a unit to a power above {_MOST_POWER}: check the arithmetic")
    return tuple(sorted((name, power) for name, power in powers.items() if power))


@dataclass(frozen=True)
class Measure:
    """A number with its dimensions; `value` is in base units."""

    value: float
    dims: Dimensions = ()

    @property
    def physical(self) -> Dimensions:
        """Of bytes, seconds, FLOP, USD and watts alone."""
        return tuple(item for item in self.dims if item[0] in PHYSICAL)

    @property
    def labels(self) -> Dimensions:
        """Of counted nouns alone."""
        return tuple(item for item in self.dims if item[0] not in PHYSICAL)

    def __mul__(self, other: Measure) -> Measure:
        return Measure(self.value * other.value, _joined(self.dims, other.dims, 1))

    def __truediv__(self, other: Measure) -> Measure:
        if other.value == 0:
            raise UnitError("division by zero")
        return Measure(self.value / other.value, _joined(self.dims, other.dims, -1))

    def __pow__(self, power: int) -> Measure:
        try:
            value = float(self.value**power)
        except (OverflowError, ZeroDivisionError):
            raise UnitError(f"{self.value:g} to the power {power} is no finite number") from None
        return Measure(value, dimensions({name: n * power for name, n in self.dims}))

    def __add__(self, other: Measure) -> Measure:
        self._same(other)
        return Measure(self.value + other.value, self.dims)

    def __sub__(self, other: Measure) -> Measure:
        self._same(other)
        return Measure(self.value - other.value, self.dims)

    def _same(self, other: Measure) -> None:
        if self.dims != other.dims:
            raise UnitError(f"cannot add {base_unit(other)} to {base_unit(self)}")


def _joined(left: Dimensions, right: Dimensions, sign: int) -> Dimensions:
    if not right:
        return left
    powers = dict(left)
    for name, power in right:
        powers[name] = powers.get(name, 0) + sign * power
    return dimensions(powers)


def base_unit(measure: Measure) -> str:
    """The dimensions in words: `B/token`, `token·layer`; `a bare number` for none."""
    above = [in_words(name, power) for name, power in measure.dims if power > 0]
    below = [in_words(name, -power) for name, power in measure.dims if power < 0]
    if not above and not below:
        return "a bare number"
    return "/".join(["·".join(above) or "1", *below])


def in_words(name: str, power: int) -> str:
    """`B`, `s^2`."""
    return name if power == 1 else f"{name}^{power}"


_THOUSANDS = tuple(1000.0**power for power in range(-6, 7))
_BINARY = (*_THOUSANDS, *(1024.0**power for power in range(-6, 7)))


def differ_by_prefix(
    one: float,
    other: float,
    tolerance: float,
    factors: tuple[float, ...] = (1.0,),
    is_bytes: bool = True,
) -> bool:
    """Whether two values are the same up to a power of 1000, of bytes of 1024 too, and one of
    `factors`."""
    if not one or not other or (one > 0) != (other > 0):
        return one == other
    ratio = abs(one / other)
    prefixes = _BINARY if is_bytes else _THOUSANDS
    return any(abs(ratio / (n * factor) - 1) <= tolerance for n in prefixes for factor in factors)
