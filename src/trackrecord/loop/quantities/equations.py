"""Calculations in a person's prose: `2 (K and V) x 80 layers x 8 KV heads x 128 x 2 B = 320 KiB`.

Words between a number and its operator are labels. A name before `=` is no calculation, and
neither is a single number, unless it is the same thing in another unit (`327,680 B = 320 KiB`).

Invariant: linear in the text; whatever cannot be worked out is left out.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from math import ceil, floor, isfinite

from trackrecord.loop.quantities.figures import digits_of, left_open
from trackrecord.loop.quantities.measure import Measure, UnitError, differ_by_prefix
from trackrecord.loop.quantities.stated import Stated, read_plain
from trackrecord.loop.quantities.unit_words import match_unit

MOST_TERMS = 60
"""Numbers of one calculation."""


@dataclass(frozen=True)
class Equation:
    """A calculation that a person wrote out, and one result of it.

    Args:
        text: both, as they were written, at `start` to `end`.
        computed: the value of the left side; a bare one where no unit is written there.
        holds: whether the two agree. Where one side is bare, up to a power of 1000 or 1024.
    """

    text: str
    start: int
    end: int
    computed: Measure
    stated: Measure
    holds: bool


_LABEL = (
    r"(?:\s*(?!(?:and|so|then|but|because|with|which|while|if|per|of)\b)"
    r"[A-Za-z_\ue000][\w\ue000'’-]*,?){0,5}?"
)
_OPERATOR = r"\*|×|·|/|\+|-|–|—|(?:times|divided by|plus|minus|over)\b"
_EQUALS = r"=>|->|→|~=|=~|[=≈≅≃]=?"
_VERB = r"(?:equals|is|gives|makes|comes to|or)\b"
_NEAR_WORDS = r"about|roughly|approximately|approx\.?|around|some|nearly|almost"
_NEARLY = rf"(?:\s*(?:{_NEAR_WORDS}|only|just|ca\.|[~≈]))*"
_GAP = re.compile(
    rf",?(?P<closing>\s*\)[\s)]*)?(?P<label>{_LABEL})\s*(?P<also>\)[\s)]*)?"
    rf"(?:(?P<op>{_OPERATOR})|(?P<equals>{_EQUALS})|(?P<verb>{_VERB}))"
    rf"{_NEARLY}(?P<opening>[\s(\[]*)$"
)
_OF = re.compile(r"(?:\s+[a-z]+s)?\s+of(?:\s+(?:the|an?|its|that|those))?\s+$")
_CUT = re.compile(r"[A-Za-z_]\w*\([\s(]*$|[\w)]\s*(?:[*/×·+^]|\bx)\s*$")
_ASIDE = re.compile(r"\([^()\d=≈]{1,60}\)")
_OPENING = re.compile(r"[(\s]{1,10}$")
_SIGNS = {
    "×": "*", "·": "*", "times": "*", "divided by": "/", "over": "/", "plus": "+", "minus": "-",
    "–": "-", "—": "-",
}  # fmt: skip
_RESULTS = {"=", "is", "->"}
_RANK = {"(": 0, ")": 0, "+": 1, "-": 1, "*": 2, "/": 2}
_LONGEST_GAP = 120
_NEAR = re.compile(rf"[~≈≅≃][^\w]*$|\b(?:{_NEAR_WORDS})\W*$")
_WHOLE_OFF = 0.05
"""Share by which a count may be off that was rounded to a whole one."""

_Term = str | int | Measure
"""An operator or bracket, a number by its place in the list, or a unit behind a bracket."""


@dataclass(frozen=True)
class _Link:
    """What stands between two numbers: an operator, or a sign (`=`, `->`, or `is` for a verb)
    before a result, with the brackets around it."""

    before: tuple[_Term, ...]
    sign: str
    after: tuple[_Term, ...]


@dataclass
class _Side:
    """What stands between two signs: numbers `first` to `last`."""

    terms: list[_Term]
    first: int
    last: int
    after: str = ""
    """The sign before it."""

    @property
    def is_single(self) -> bool:
        return self.first == self.last


def read_equations(text: str) -> list[Equation]:
    """The calculations of a text whose result is stated, one for each result, in order.

    A result may be off by what its own digits and those of its operands leave open, and by more
    where it says that it is no more than near (`about`, `≈`).
    """
    plain, numbers = read_plain(text)
    links = [_link(plain, left, right) for left, right in pairwise(numbers)]
    found: list[Equation] = []
    held: set[int] = set()
    for first, last in _runs(links):
        if _CUT.search(plain[max(0, numbers[first].start - 40) : numbers[first].start]):
            continue  # its beginning is no number: a function, a name
        sides = _sides(plain, numbers, links, first, last)
        for left, stated, is_arrow in _pairs(sides, numbers):
            is_near = _NEAR.search(plain[max(0, stated.start - 20) : stated.start]) is not None
            tolerance = left_open(stated.text, is_near)
            outcome = _outcome(left.terms, numbers, stated, tolerance)
            if outcome is None or (not outcome[1] and (is_arrow or left.first in held)):
                continue  # an arrow may mean anything, and a further result another conversion
            if outcome[1]:
                held.add(left.first)
            start, end = numbers[left.first].start, stated.end
            found.append(
                Equation(text[start:end], start, end, outcome[0], stated.measure, outcome[1])
            )
    return found


def _link(plain: str, left: Stated, right: Stated) -> _Link | None:
    gap = plain[left.end : right.start]
    if not gap or len(gap) > _LONGEST_GAP:
        return None
    if _OF.match(gap):
        is_share = not left.measure.dims and (left.has_unit or left.measure.value < 1)
        is_count = not left.measure.physical and float(left.measure.value).is_integer()
        counts = is_count and bool(right.measure.physical)
        return _Link((), "*" if is_share or counts else "of", ())
    found = _GAP.match(_ASIDE.sub(" ", gap))
    if found is None:
        return None
    closing = f"{found.group('closing') or ''}{found.group('also') or ''}".count(")")
    before: list[_Term] = [")"] * closing
    label = found.group("label").strip()
    if found.group("closing") and label and (unit := match_unit(label)):
        before.append(unit.unit)
    equals = found.group("equals") or ""
    is_arrow = ">" in equals or equals == "→"
    sign = found.group("op") or ("->" if is_arrow else "=" if equals else "is")
    return _Link(tuple(before), _SIGNS.get(sign, sign), ("(",) * found.group("opening").count("("))


def _runs(links: Sequence[_Link | None]) -> Iterator[tuple[int, int]]:
    """First and last number of what hangs together and has a result."""
    first = 0
    for at in range(len(links) + 1):
        link = links[at] if at < len(links) else None
        if link is None or link.sign == "of":
            signs = (
                {one.sign for one in links[first:at] if one} if at - first < MOST_TERMS else set()
            )
            if signs & _RESULTS:
                yield first, at
            first = at + 1


def _sides(
    plain: str, numbers: Sequence[Stated], links: Sequence[_Link | None], first: int, last: int
) -> list[_Side]:
    opening = _OPENING.search(plain, max(0, numbers[first].start - 10), numbers[first].start)
    brackets = opening.group().count("(") if opening else 0
    sides = [_Side([*"(" * brackets, first], first, first)]
    for at in range(first, last):
        link = links[at]
        if link is None:
            continue
        sides[-1].terms += link.before
        if link.sign in _RESULTS:
            sides.append(_Side([*link.after, at + 1], at + 1, at + 1, link.sign))
        else:
            sides[-1].terms += [link.sign, *link.after, at + 1]
            sides[-1].last = at + 1
    return sides


def _pairs(
    sides: Sequence[_Side], numbers: Sequence[Stated]
) -> Iterator[tuple[_Side, Stated, bool]]:
    """Each calculation with each of its results. A single number is a calculation where it is the
    same thing in another unit; a later side that is not single is the calculation from there on.
    The last value says whether an arrow stands between them, which may mean anything."""
    left = sides[0]
    for side in sides[1:]:
        stated = numbers[side.first]
        if left.is_single:
            here = numbers[left.first].measure.physical
            same = here and here == stated.measure.physical
            if side.after != "=" or not side.is_single or not same:
                left = side
                continue
        if side.is_single:
            yield left, stated, side.after == "->"
        else:
            left = side


def _outcome(
    side: Sequence[_Term], numbers: Sequence[Stated], stated: Stated, tolerance: float
) -> tuple[Measure, bool] | None:
    """The value of a side, and whether it is the stated one; 70B may be bytes or billions."""
    lacks_units = any(isinstance(term, int) and not numbers[term].has_unit for term in side)
    first = _value(side, lambda place: numbers[place].measure)
    for computed in (first, _value(side, lambda place: _in_billions(numbers[place]))):
        if computed is None:
            continue
        if _is_right(computed, stated, tolerance):
            return computed, True
        mine, theirs = dict(computed.physical), dict(stated.measure.physical)
        same_but_time = {**mine, "s": 0} == {**theirs, "s": 0}
        if mine and theirs and not lacks_units and not same_but_time:
            continue
        bare = _value(side, lambda place: _bare(numbers[place]))
        if _by_digits(computed, bare, stated, tolerance):
            return computed, True
    return None if first is None else (first, False)


def _is_right(computed: Measure, stated: Stated, tolerance: float) -> bool:
    return any(
        one.physical == computed.physical and stated.is_near(one, computed.value, tolerance)
        for one in (stated.measure, *stated.others)
    )


def _by_digits(computed: Measure, bare: Measure | None, stated: Stated, tolerance: float) -> bool:
    """Whether the digits agree where units cannot decide: a number has none, or time is left out or
    added (`730 h x 8 USD/h = 5,840 USD a month`). A count may be rounded up or down.

    Args:
        bare: the calculation with digits alone.
    """
    mine, theirs = dict(computed.physical), dict(stated.measure.physical)
    has_units, is_bytes = bool(mine or theirs), "B" in mine or "B" in theirs
    digits = digits_of(stated.text)
    if digits == stated.measure.value and digits.is_integer() and not has_units:
        is_whole = floor(computed.value) <= digits <= ceil(computed.value)
        if is_whole and abs(digits - computed.value) <= _WHOLE_OFF * digits:
            return True
    if differ_by_prefix(stated.measure.value, computed.value, tolerance, is_bytes=is_bytes):
        return True
    percent = (1.0,) if has_units else (1.0, 100.0)
    if digits is None or bare is None:
        return False
    return differ_by_prefix(digits, bare.value, tolerance, percent, is_bytes)


def _bare(number: Stated) -> Measure:
    """A number by its digits alone."""
    digits = digits_of(number.text)
    return number.measure if digits is None else Measure(digits)


def _in_billions(number: Stated) -> Measure:
    billions = (one for one in number.others if one.dims == (("parameter", 1),))
    return next(billions, number.measure)


def _value(side: Sequence[_Term], read: Callable[[int], Measure]) -> Measure | None:
    """What a side comes to, by two stacks; None where its units do not go together.

    Args:
        read: what the number at a place is taken for.
    """
    values: list[Measure] = []
    signs: list[str] = []
    try:
        for term in _balanced(side):
            if isinstance(term, int):
                values.append(read(term))
            elif isinstance(term, Measure):
                values.append(values.pop() * term)
            elif term == "(":
                signs.append(term)
            else:
                while signs and signs[-1] != "(" and _RANK[signs[-1]] >= _RANK[term]:
                    _apply(values, signs.pop())
                if term == ")":
                    signs.pop()
                else:
                    signs.append(term)
        while signs:
            _apply(values, signs.pop())
    except (UnitError, IndexError, OverflowError):
        return None
    usable = len(values) == 1 and isfinite(values[0].value)
    return values[0] if usable else None


def _balanced(side: Sequence[_Term]) -> list[_Term]:
    """Without the brackets of the sentence around it."""
    terms = list(side)
    excess = terms.count("(") - terms.count(")")
    while excess > 0 and terms[0] == "(":
        del terms[0]
        excess -= 1
    while excess < 0 and terms[-1] == ")":
        del terms[-1]
        excess += 1
    return terms


def _apply(values: list[Measure], sign: str) -> None:
    right, left = values.pop(), values.pop()
    if sign == "*":
        values.append(left * right)
    elif sign == "/":
        values.append(left / right)
    elif sign not in ("+", "-") or left.physical != right.physical:
        raise UnitError("a sum of different things")
    else:
        value = left.value + (right.value if sign == "+" else -right.value)
        values.append(Measure(value, tuple(item for item in left.dims if item in right.dims)))
