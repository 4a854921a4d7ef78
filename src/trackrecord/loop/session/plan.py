"""What a run asks: the items of each session, drawn by a seed, and the minutes they have.

Invariant: the same seed and the same catalogue give the same items in the same order, and a
session's items do not depend on which other sessions are sat.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from trackrecord.loop.areas import loop_areas
from trackrecord.loop.items import Item
from trackrecord.loop.session import SessionError

SESSIONS = (1, 2, 3, 4)
RAPID_AREAS = range(4)
DEEP_AREAS = range(4, 9)
_SEEDS = 2**32
_RAPID_EACH = 2
_INCIDENTS = 2
_PRACTICE_MOST = 8
_RAPID_MINUTES = 30 / 8
"""For one question of session 1, and of practice in its areas."""
_DEEP_MINUTES = 45 / 5
"""For one question with follow-ups."""
_DESIGN_MINUTES = 60.0
_INCIDENT_MINUTES = 30 / _INCIDENTS


@dataclass(frozen=True)
class Catalogue:
    """The names of all that can be asked, and what makes an item of a name.

    Args:
        questions: names by the number of their area.
        make: may raise a TrackRecordError for a name that is not there.
        fingerprint: changes with the content of what can be asked; kept with a run.
    """

    questions: Mapping[int, Sequence[str]]
    designs: Sequence[str]
    incidents: Sequence[str]
    make: Callable[[str], Item]
    fingerprint: str = ""


@dataclass(frozen=True)
class PlannedSession:
    """One session. `number` is 0 for practice."""

    number: int
    title: str
    minutes: float
    items: tuple[str, ...]
    followups: bool

    @property
    def name(self) -> str:
        """What to call it: `Session 2`, or `The practice`."""
        return f"Session {self.number}" if self.number else "The practice"

    @property
    def heading(self) -> str:
        """Name and title."""
        return f"{self.name}: {self.title}" if self.number else f"Practice: {self.title}"


@dataclass(frozen=True)
class Plan:
    """A run before it is sat."""

    seed: int
    practice: bool
    sessions: tuple[PlannedSession, ...]


def new_seed() -> int:
    """A seed that nobody chose."""
    return random.SystemRandom().randrange(_SEEDS)


def make_plan(
    catalogue: Catalogue,
    seed: int,
    numbers: Sequence[int] = SESSIONS,
    only: int | None = None,
    items: Sequence[str] = (),
) -> Plan:
    """The run that `seed` gives: the sessions with `numbers`, or practice in the area `only`, or of
    the first eight of `items`.

    Args:
        seed: from 0 to 2**32 - 1.

    Raises:
        SessionError: there is no such seed, session, area or item, or too little to ask in one.
    """
    if not 0 <= seed < _SEEDS:
        raise SessionError(f"not a seed: {seed} (they are 0 to {_SEEDS - 1})")
    if items:
        return Plan(seed, True, (_chosen(catalogue, items),))
    if only is not None:
        return Plan(seed, True, (_practice(catalogue, seed, only),))
    makers = {1: _rapid, 2: _deep, 3: _design, 4: _debugging}
    for number in numbers:
        if number not in makers:
            raise SessionError(f"there is no session {number}: they are 1 to {len(makers)}")
    return Plan(
        seed, False, tuple(makers[number](catalogue, seed) for number in sorted(set(numbers)))
    )


def _rapid(catalogue: Catalogue, seed: int) -> PlannedSession:
    dice = random.Random(f"{seed}:1")
    names = [
        name
        for area in RAPID_AREAS
        for name in _drawn(
            dice, catalogue.questions.get(area, ()), _RAPID_EACH, _questions_of(area)
        )
    ]
    dice.shuffle(names)
    return PlannedSession(
        1, "fundamentals, rapid-fire", len(names) * _RAPID_MINUTES, tuple(names), False
    )


def _deep(catalogue: Catalogue, seed: int) -> PlannedSession:
    dice = random.Random(f"{seed}:2")
    names = [
        name
        for area in DEEP_AREAS
        for name in _drawn(dice, catalogue.questions.get(area, ()), 1, _questions_of(area))
    ]
    dice.shuffle(names)
    return PlannedSession(2, "systems deep-dive", len(names) * _DEEP_MINUTES, tuple(names), True)


def _design(catalogue: Catalogue, seed: int) -> PlannedSession:
    names = _drawn(random.Random(f"{seed}:3"), catalogue.designs, 1, "design scenarios")
    return PlannedSession(3, "design", _DESIGN_MINUTES, tuple(names), True)


def _debugging(catalogue: Catalogue, seed: int) -> PlannedSession:
    names = _drawn(random.Random(f"{seed}:4"), catalogue.incidents, _INCIDENTS, "incidents")
    minutes = len(names) * _INCIDENT_MINUTES
    return PlannedSession(4, "debugging", minutes, tuple(names), True)


def _practice(catalogue: Catalogue, seed: int, area: int) -> PlannedSession:
    areas = loop_areas()
    if not 0 <= area < len(areas):
        raise SessionError(f"there is no area {area}: they are 0 to {len(areas) - 1}")
    there = catalogue.questions.get(area, ())
    most = min(_PRACTICE_MOST, max(len(there), 1))
    names = _drawn(random.Random(f"{seed}:0:{area}"), there, most, _questions_of(area))
    deep = area not in RAPID_AREAS
    minutes = len(names) * (_DEEP_MINUTES if deep else _RAPID_MINUTES)
    return PlannedSession(0, areas[area].title, minutes, tuple(names), deep)


def _chosen(catalogue: Catalogue, items: Sequence[str]) -> PlannedSession:
    names = tuple(dict.fromkeys(items))[:_PRACTICE_MOST]
    rapid = {name for area in RAPID_AREAS for name in catalogue.questions.get(area, ())}
    followups = not rapid.issuperset(names)
    question = _DEEP_MINUTES if followups else _RAPID_MINUTES
    minutes = {name: question for there in catalogue.questions.values() for name in there}
    minutes |= dict.fromkeys(catalogue.designs, _DESIGN_MINUTES)
    minutes |= dict.fromkeys(catalogue.incidents, _INCIDENT_MINUTES)
    for name in names:
        if name not in minutes:
            raise SessionError(f"there is no item {name!r}")
    title = "chosen items"
    return PlannedSession(0, title, sum(minutes[name] for name in names), names, followups)


def _questions_of(area: int) -> str:
    return f"questions of area {area}"


def _drawn(dice: random.Random, names: Sequence[str], count: int, what: str) -> list[str]:
    if len(names) < count:
        raise SessionError(f"too few {what}: {count} wanted, {len(names)} there")
    return dice.sample(sorted(names), count)
