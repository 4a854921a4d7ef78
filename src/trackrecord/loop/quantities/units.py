"""Units by name, and measures as a person reads them: what `show` writes, reading gives back."""

from __future__ import annotations

from functools import lru_cache
from math import floor, isfinite, log10

from mini_vllm.console import printable
from trackrecord.loop.quantities.measure import (
    PHYSICAL,
    Dimensions,
    Measure,
    UnitError,
    base_unit,
    dimensions,
    in_words,
)
from trackrecord.loop.quantities.unit_words import BINARY, match_unit, nouns, plural

__all__ = [
    "Dimensions",
    "Measure",
    "UnitError",
    "in_unit",
    "natural_unit",
    "number",
    "parse_unit",
    "show",
    "shown",
]

LONGEST = 200
"""Characters of a unit."""


@lru_cache(1024)
def parse_unit(text: str) -> Measure:
    """`KiB/token`, `TFLOPS`, `USD per million tokens`, `%`, `B params` or nothing: the scale, with
    its dimensions.

    Raises:
        UnitError: not all of it is a unit.
    """
    plain = " ".join(text[: LONGEST + 1].split())
    if not plain:
        return Measure(1.0)
    if plain.startswith("1/") and plain[2:]:
        return Measure(1.0) / parse_unit(plain[2:])
    written = match_unit(plain, counts=True) if len(text) <= LONGEST else None
    if written is None or written.end != len(plain):
        raise UnitError(
            f"no unit {printable(plain)[:60]!r}: write it like KiB/token, GB/s, TFLOP/s, ms, "
            f"USD/Mtoken, req/s, % or tokens"
        )
    return written.unit


def in_unit(measure: Measure, unit: str) -> Measure:
    """`measure` with the counted nouns of `unit`: labels that arithmetic may leave out or carry
    along. What is per device stays so.

    Raises:
        UnitError: the unit is not known, or measures something else.
    """
    scale = parse_unit(unit)
    if scale.physical != measure.physical:
        raise UnitError(f"{base_unit(measure)} is not measured in {printable(unit)[:60]!r}")
    powers = dict(scale.dims)
    if ("device", -1) in measure.dims and "device" not in powers:
        powers["device"] = -1
    return Measure(measure.value, dimensions(powers))


def show(measure: Measure, unit: str, digits: int = 3) -> str:
    """`320 KiB/token`, `8,192 tokens`, `50 %`: what reading gives back within 0.5 %.

    Raises:
        UnitError: as `in_unit`.
    """
    value = in_unit(measure, unit).value / parse_unit(unit).value
    figure = number(value, digits)
    name = " ".join(unit.split())
    noun = nouns()[0].get(name, "")
    if noun and name in (noun, plural(noun)):
        name = noun if figure in ("1", "-1") else plural(noun)
    if name in ("x", "×", ""):
        return figure + name
    return f"{figure} {name}"


def number(value: float, digits: int = 3) -> str:
    """Whole numbers exactly with separators, others to `digits` significant digits (one more where
    the first is a 1)."""
    if not isfinite(value):
        return str(value)
    if value == 0:
        return "0"
    size = floor(log10(abs(value)))
    if not -5 <= size < 15:
        return f"{value:.{digits}e}"
    if abs(value - round(value)) <= 1e-9 * abs(value):
        return f"{round(value):,}"
    keep = digits + (f"{abs(value):e}"[0] == "1")
    places = keep - 1 - size
    if places <= 0:
        return f"{round(value):,}"
    text = f"{value:,.{places}f}"
    return text.rstrip("0").rstrip(".")


_STEPS = (("T", 1e12), ("G", 1e9), ("M", 1e6), ("k", 1e3), ("", 0.0))
_TIMES = (("s", 1.0), ("ms", 1e-3), ("us", 1e-6), ("ns", 0.0))


def natural_unit(measure: Measure) -> str:
    """A unit in which `measure` reads well."""
    above = [(name, power) for name, power in measure.dims if power > 0]
    below = {name: -power for name, power in measure.dims if power < 0}
    heads = [item for item in above if item[0] in PHYSICAL] or above
    head = "·".join(in_words(*item) for item in heads)
    size = abs(measure.value)
    if head in ("B", "FLOP", "W"):
        letter, scale = next(step for step in _STEPS if size >= step[1])
        binary = BINARY.get(f"{letter.upper()}i", 0.0)
        if head == "B" and binary and (size / binary).is_integer() > (size / scale).is_integer():
            letter = f"{letter.upper()}i"
        head = letter + head
    elif head == "s":
        head = next(name for name, least in _TIMES if size >= least) if size else "s"
    elif head == "USD" and below.get("token") == 1:
        head = "USD/Mtoken"
        del below["token"]
    elif head == "USD" and below.get("s") == 1:
        head = "USD/hour"
        del below["s"]
    elif len(heads) == 1 and heads == above and not below and head not in PHYSICAL:
        head = plural(head)
    tail = [
        in_words(name, power) for name, power in sorted(below.items(), key=lambda i: i[0] != "s")
    ]
    return "/".join([head or "1", *tail]) if tail else head


def shown(measure: Measure) -> str:
    """`show` in the natural unit."""
    unit = natural_unit(measure)
    try:
        return show(measure, unit)
    except UnitError:  # B^2, 1/s: not a unit that anyone writes
        return f"{number(measure.value)} {base_unit(measure)}"
