"""Numbers in a person's prose: which stand there, what is calculated, and whether it is right."""

from __future__ import annotations

import re
from typing import Literal

from trackrecord.loop.quantities.equations import Equation, read_equations
from trackrecord.loop.quantities.measure import Measure, differ_by_prefix
from trackrecord.loop.quantities.stated import Stated, read_quantities
from trackrecord.loop.quantities.unit_words import match_unit

__all__ = ["Equation", "Stated", "Verdict", "compare", "read_equations", "read_quantities"]

Verdict = Literal["right", "wrong value", "wrong unit", "unrelated"]

_EVENTS = frozenset("step kernel launch call collective lookup hop copy preemption".split())
"""What a time may be said to be per, where only a time is expected."""
_OTHERWISE = 0.02
"""Most that a number may be off which is not read as it is written: GB for GiB, another unit."""
_EVERY = re.compile(
    r"(?:each|every|per) ([A-Za-z-]+) (?:[a-z]+ ){0,2}(?:~|≈|about )?$", re.IGNORECASE
)


def compare(
    stated: Stated, expected: Measure, tolerance: float = 0.05, context: str = ""
) -> Verdict:
    """What a stated quantity is to the expected one.

    `right`: the value is within `tolerance` and the dimensions agree. Physical ones must be the
    same. Counted nouns may be left out, unless the sentence (`context`) gives the number to another
    noun; where the expected measure has none, a count may have any. `wrong unit`: the digits
    would fit in another unit. `wrong value`: the unit fits. Else `unrelated`.
    """
    readings = (stated.measure, *stated.others)
    fitting = [one for one in readings if _fits(one, expected)]
    for one in fitting:
        margin = tolerance if one is stated.measure else min(tolerance, _OTHERWISE)
        if stated.is_near(one, expected.value, margin):
            return "wrong unit" if _of_another(stated, expected, context) else "right"
    for one in readings:
        alike = one.physical == expected.physical
        margin, slips = (tolerance, _SLIPS) if alike else (min(tolerance, _OTHERWISE), (1.0,))
        if differ_by_prefix(one.value, expected.value, margin, slips):
            return "wrong unit"
    return "wrong value" if fitting else "unrelated"


def _fits(stated: Measure, expected: Measure) -> bool:
    """Whether the dimensions agree; see `compare`."""
    if stated.physical != expected.physical:
        return False
    mine, theirs = dict(stated.labels), dict(expected.labels)
    is_count = all(power < 0 for _, power in expected.physical)
    if is_count and not theirs:
        return True
    if not is_count:
        if max(mine.get("device", 0), 0) != max(theirs.get("device", 0), 0):
            return False  # GPU-hours are not hours
        mine, theirs = _without_multipliers(mine), _without_multipliers(theirs)
    if theirs:
        return all(theirs.get(name) == power for name, power in mine.items())
    events = _EVENTS if expected.physical == (("s", 1),) else {"step"}
    return all(power == -1 and name in events for name, power in mine.items())


def _without_multipliers(labels: dict[str, int]) -> dict[str, int]:
    """Bytes x layers are bytes."""
    return {name: power for name, power in labels.items() if power < 0}


_SLIPS = (1.0, 8.0, 1 / 8, 60.0, 1 / 60, 3600.0, 1 / 3600, 100.0, 0.01)
"""Bits for bytes, minutes or hours for seconds, percent for shares."""


def _of_another(stated: Stated, expected: Measure, context: str) -> bool:
    """Whether the sentence gives the number to another noun: `each block takes 128 KiB`."""
    below = {name for name, power in expected.labels if power < 0}
    at = context.find(stated.text)
    if not below or at < 0 or any(name in below for name, _ in stated.measure.labels):
        return False
    owner = _EVERY.search(context[max(0, at - 60) : at])
    noun = match_unit(owner.group(1)) if owner else None
    labels = noun.unit.labels if noun else ()
    return bool(labels) and labels[0][0] not in below
