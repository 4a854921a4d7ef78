"""The staff map: what each level looks like, and where a person stands on it.

An answer counts towards a level if it was no practice and its item had not been met before; it
*reaches* its item's level with mechanism at 3 or better and the other layers at 2 or better, in
time and without the model answer. A level *holds* in a group of competencies when at least three
answers reach it, at least two thirds of the answers that were asked at it do, and the level below
holds too; an answer that reaches a higher level counts at the lower ones. A person *stands* at the
highest level that holds in at least three of the four groups. With fewer than eight answers, or
fewer than six areas, nobody stands anywhere: that is too little to say.
"""

from __future__ import annotations

import tomllib
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache
from importlib import resources
from typing import Any, Literal

from trackrecord.loop.areas import loop_areas
from trackrecord.loop.graded import GradedAnswer, GradedRun
from trackrecord.loop.marks import LAYERS, Layer
from trackrecord.loop.outcome.evidence import (
    Evidence,
    counted,
    evidence_of,
    first_sights,
    reaches,
)

FEWEST_REACHED = 3
SHARE_REACHED = (2, 3)
"""At least this part of what was asked, as numerator and denominator."""
GROUPS_NEEDED = 3
FEWEST_ANSWERS = 8
FEWEST_AREAS = 6
Verdict = Literal["holds", "not yet", "too little"]


@dataclass(frozen=True)
class Group:
    """Competencies that go together."""

    name: str
    title: str
    competencies: tuple[str, ...]


@dataclass(frozen=True)
class Level:
    """A level, and what an answer at it shows: by group and layer."""

    name: str
    summary: str
    looks_like: Mapping[str, Mapping[Layer, str]]


@dataclass(frozen=True)
class Standing:
    """One group at one level: `reached` of `asked` answers. `by` are those that reach it."""

    group: str
    level: str
    asked: int
    reached: int
    verdict: Verdict
    by: tuple[Evidence, ...]

    @property
    def words(self) -> str:
        return f"{self.verdict}: {self.reached} of {self.asked}" if self.asked else "not asked"


@dataclass(frozen=True)
class StaffMap:
    """Where a person stands. `level` is empty where none holds or there is too little to say."""

    level: str
    words: str
    answers: int
    areas: int
    standings: tuple[Standing, ...]

    @property
    def is_enough(self) -> bool:
        """Whether there are answers enough to say anything."""
        return self.answers >= FEWEST_ANSWERS and self.areas >= FEWEST_AREAS

    def at(self, group: str, level: str) -> Standing:
        return next(s for s in self.standings if (s.group, s.level) == (group, level))

    def highest(self, group: str) -> str:
        """The highest level that holds in a group; empty for none."""
        held = [s.level for s in self.standings if s.group == group and s.verdict == "holds"]
        return held[-1] if held else ""


def staff_map(runs: Sequence[GradedRun], known: Sequence[GradedRun] | None = None) -> StaffMap:
    """Where the answers of `runs` put a person. `known` are all runs there are, if `runs` is a
    choice of them: an item that was met in one that is left out has been met all the same."""
    firsts = first_sights(runs if known is None else known)
    answers = [graded for graded in counted(runs) if (graded.run, graded.item.name) in firsts]
    standings = tuple(found for group in groups() for found in _standings(group, answers))
    areas = len({area.number for graded in answers for area in graded.areas})
    holding = {
        level.name: sum(s.level == level.name and s.verdict == "holds" for s in standings)
        for level in levels()
    }
    held = [name for name, n in holding.items() if n >= GROUPS_NEEDED]
    found = StaffMap(held[-1] if held else "", "", len(answers), areas, standings)
    if not found.is_enough:
        return replace(found, level="", words=_little(len(answers), areas))
    return replace(found, words=_words(found.level, holding, len(answers), areas))


def _standings(group: Group, answers: Iterable[GradedAnswer]) -> list[Standing]:
    """A group's, from the lowest level up."""
    mine = [graded for graded in answers if set(graded.competencies) & set(group.competencies)]
    names = [level.name for level in levels()]
    found: list[Standing] = []
    for rank, name in enumerate(names):
        asked = [g for g in mine if g.level == name or (g.level in names[rank:] and reaches(g))]
        reached = [graded for graded in asked if reaches(graded)]
        below = not found or found[-1].verdict == "holds"
        verdict = _verdict(len(reached), len(asked), below)
        by = tuple(evidence_of(graded) for graded in reached)
        found.append(Standing(group.name, name, len(asked), len(reached), verdict, by))
    return found


def _verdict(reached: int, asked: int, below: bool) -> Verdict:
    if asked < FEWEST_REACHED:
        return "too little"
    part, whole = SHARE_REACHED
    holds = below and reached >= FEWEST_REACHED and whole * reached >= part * asked
    return "holds" if holds else "not yet"


def _words(stands: str, holding: Mapping[str, int], answers: int, areas: int) -> str:
    of = len(groups())
    counts = ", ".join(f"{name} in {n}" for name, n in holding.items())
    evidence = f"{answers} answers in {areas} of {len(loop_areas())} areas"
    begins = f"Stands at {stands}" if stands else "No level holds yet"
    return f"{begins}, by {evidence}: of {of} groups, a level holds for {counts}."


def _little(answers: int, areas: int) -> str:
    of = len(loop_areas())
    return (
        f"Too little to say: {answers} {plural(answers, 'answer')} in {areas} of {of} areas "
        f"{'says' if answers == 1 else 'say'} little; a level takes {FEWEST_ANSWERS} answers to "
        f"items not met before, in {FEWEST_AREAS} areas."
    )


def plural(n: int, word: str) -> str:
    """`word`, in the plural unless there is one of it."""
    return word if n == 1 else f"{word}s"


def rank_of(level: str) -> int:
    """0 for the lowest level."""
    return [entry.name for entry in levels()].index(level)


@cache
def groups() -> tuple[Group, ...]:
    """The groups of competencies; each competency is in one."""
    return tuple(
        Group(entry["name"], entry["title"], tuple(entry["competencies"]))
        for entry in _document()["groups"]
    )


@cache
def levels() -> tuple[Level, ...]:
    """The levels, lowest first."""
    return tuple(
        Level(entry["name"], entry["summary"], _looks_like(entry, [g.name for g in groups()]))
        for entry in _document()["levels"]
    )


def _looks_like(entry: dict[str, Any], names: Collection[str]) -> dict[str, dict[Layer, str]]:
    return {name: {layer: entry[name][layer] for layer in LAYERS} for name in names}


@cache
def _document() -> dict[str, Any]:
    file = resources.files(__package__).joinpath("levels.toml")
    return tomllib.loads(file.read_text(encoding="utf-8"))
