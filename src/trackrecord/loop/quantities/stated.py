"""The quantities that stand in a person's prose.

A range is its midpoint, with its ends kept. What is written with a decimal prefix may also be meant
binary, and `70B` a number of parameters: such readings are kept beside the first.

Invariant: `Stated.text` is the text from `start` to `end`, as the person wrote it.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import lru_cache
from math import isfinite

from trackrecord.loop.quantities.figures import CANDIDATE, Figure, figure_at, plain_text, upper_end
from trackrecord.loop.quantities.measure import Measure
from trackrecord.loop.quantities.unit_words import SCALES, Written, match_unit

WIDEST = 0.5
"""Of a range: the distance of its ends over their midpoint."""


@dataclass(frozen=True)
class Stated:
    """A quantity that stands in a text, at `start` to `end`.

    Args:
        has_unit: whether more than a number is written: a unit, a noun, a percent sign, an x.
        others: what it may mean besides: GB for GiB, 70B for parameters.
        low, high: the ends of a range, in base units.
    """

    text: str
    start: int
    end: int
    measure: Measure
    has_unit: bool
    others: tuple[Measure, ...] = ()
    low: float | None = None
    high: float | None = None

    def is_near(self, reading: Measure, expected: float, tolerance: float) -> bool:
        """Whether a reading of it (`measure` or one of `others`) is within `tolerance` of a value;
        a range holds it, and is no wider than `WIDEST`."""
        margin = tolerance * abs(expected)
        if self.low is None or self.high is None:
            return abs(reading.value - expected) <= margin
        if self.high - self.low > WIDEST * abs(self.measure.value):
            return False
        return self.low - margin <= expected <= self.high + margin


_NAME = re.compile(r"_?[^\W_]")
_TIMES = re.compile(r" ?[x×] ?")
_OPERAND = re.compile(r" {0,4}[\d(.$]")
_SPACE = re.compile(r" {0,8}")
_WORD = re.compile(r"[A-Za-z]{1,20}")
_LETTER = re.compile(r"(bn|mn|[kKMBGT])(?![A-Za-z])")
_RATE = re.compile(
    r" ?(?:[A-Za-z-]{2,20} ){0,2}?(?:[A-Za-z-]{0,20}/ ?s\b"
    r"|(?:per|an?|each|every) (?P<time>second|minute|hour|day)\b)"
)
_SCALE_WORD = re.compile(r" (thousand|million|billion|trillion|bn|mn)(?![A-Za-z])")
_MODEL_AFTER = re.compile(
    r"[ -](?:\w+[ -]){0,2}?(?:models?|params?|parameters?|weights?|dense|checkpoint)\b"
)
_ARTICLE = re.compile(r"\b(?:[Aa]n?|[Tt]he|each|every)\s$")
_BINARY = {"k": 1.024, "K": 1.024, "M": 1.048576}


def read_quantities(text: str) -> list[Stated]:
    """The quantities of a text, in order."""
    return list(read_plain(text)[1])


@lru_cache(8)
def read_plain(text: str) -> tuple[str, tuple[Stated, ...]]:
    """The text, letter for letter, with names hidden and signs made alike; and its quantities."""
    plain = plain_text(text)
    found: list[Stated] = []
    at = 0
    while candidate := CANDIDATE.search(plain, at):
        stated = _quantity(plain, text, candidate)
        at = max(candidate.end(), stated.end if stated else 0)
        if stated:
            found.append(stated)
    return plain, tuple(found)


def _quantity(plain: str, text: str, found: re.Match[str]) -> Stated | None:
    figure = figure_at(plain, found)
    if figure is None:
        return None
    upper = upper_end(plain, figure)
    last = upper or figure
    written = _money(plain, last) if found.group("money") else _with_unit(plain, last)
    if written is None:
        return None
    value, unit = (figure.value + last.value) / 2, written.unit
    has_unit = written.end > last.end or figure.is_times or bool(found.group("money"))
    if figure.value == 1 and not figure.is_plain and not unit.dims:
        return None  # "one", which counts nothing
    if not isfinite(value * unit.value):
        return None
    return Stated(
        text[figure.start : written.end],
        figure.start,
        written.end,
        Measure(value * unit.value, unit.dims),
        has_unit and not _is_scale_alone(plain[last.end : written.end]),
        tuple(Measure(value * other.value, other.dims) for other in written.others),
        figure.value * unit.value if upper else None,
        last.value * unit.value if upper else None,
    )


def _is_scale_alone(written: str) -> bool:
    """`10k`, `8 billion`: still a bare number."""
    return written.strip() in SCALES and written != "B"


def _with_unit(plain: str, figure: Figure) -> Written | None:
    """The unit behind a number; None where the number is part of a name such as `3D`."""
    if figure.is_times:
        return Written(Measure(1.0), figure.end)
    scale, letter, end = 1.0, "", figure.end
    word = _SCALE_WORD.match(plain, end)
    attached = _LETTER.match(plain, end) if figure.is_plain and not word else None
    is_billions = attached is not None and attached.group() == "B"
    if word:
        scale, end = SCALES[word.group(1)], word.end()
    elif attached and (not is_billions or _counts_parameters(plain, figure, attached.end())):
        letter, end = attached.group(), attached.end()
        scale = SCALES[letter]
    written = _unit_after(plain, end)
    if written is None:
        if end == figure.end and _NAME.match(plain, end):
            return None
        written = Written(Measure(1.0, (("parameter", 1),) if letter == "B" else ()), end)
    others = [*written.others]
    if letter in _BINARY:
        others.append(Measure(_BINARY[letter] * written.unit.value, written.unit.dims))
    if is_billions and not letter:
        others.append(Measure(1e9, (("parameter", 1),)))
    times = Measure(scale)
    return Written(times * written.unit, written.end, tuple(times * other for other in others))


def _counts_parameters(plain: str, figure: Figure, end: int) -> bool:
    """Whether an attached B is for billions: `70B params`, `the 70B`; else it is bytes."""
    if _MODEL_AFTER.match(plain, end):
        return True
    return bool(_ARTICLE.search(plain[max(0, figure.start - 6) : figure.start]))


def _unit_after(plain: str, end: int) -> Written | None:
    """The unit behind a number that ends at `end`."""
    if times := _TIMES.match(plain, end):
        if _OPERAND.match(plain, times.end()):
            return None  # a product
        devices = match_unit(plain, times.end())
        if devices and devices.unit.dims == (("device", 1),):
            return devices  # 8 x H100
    if plain.startswith("-", end):  # `16-token blocks` are 16 tokens
        word = _WORD.match(plain, end + 1)
        written = match_unit(word.group()) if word else None
        return Written(written.unit, end + 1 + written.end, written.others) if written else None
    space = _SPACE.match(plain, end)
    written = match_unit(plain, space.end() if space else end, prose=True, counts=True)
    if written is None and (rate := _RATE.match(plain, end)):  # of something that is no unit
        seconds = {None: 1, "minute": 60, "hour": 3600, "day": 86400}.get(rate["time"], 1)
        return Written(Measure(1.0 / seconds, (("s", -1),)), rate.end())
    return written


def _money(plain: str, figure: Figure) -> Written:
    """Dollars, and what they are paid for."""
    end, scale = figure.end, 1.0
    if word := _SCALE_WORD.match(plain, end) or _LETTER.match(plain, end):
        scale, end = SCALES[word.group(1)], word.end()
    written = match_unit("$" + plain[end : end + 80], 0, counts=True)
    unit = written.unit if written else Measure(1.0, (("USD", 1),))
    return Written(Measure(scale) * unit, end + (written.end - 1 if written else 0))
