"""An incident as data: what is shown, what may be looked at, what was wrong, and how it is graded.

One TOML file an incident, in `cases/`. What the run produces (`faults/`) and what the data says are
separate: a file holds no measured text, only the names of the views and figures of the run.

Invariant: a `Case` that was loaded has every part that showing and grading need, and its names
refer to each other; anything else is an error that names the file and the key.
"""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from importlib import resources
from typing import Any, Literal, get_args

from trackrecord.errors import TrackRecordError
from trackrecord.loop.areas import competencies, loop_areas
from trackrecord.loop.grading.points import PatternError, Point
from trackrecord.loop.items import Action, Observation
from trackrecord.upstream.areas import Anchor

EXPENSIVE_MINUTES = 5.0
"""From this price on, a hypothesis should have been named before one looks."""
SECTIONS = ("Cause", "Evidence", "Fix", "How to verify")
"""The headings of an answer, in order."""


class IncidentError(TrackRecordError):
    """An incident that does not exist, or whose data cannot be used."""


FixKind = Literal["root", "workaround", "wrong"]


@dataclass(frozen=True)
class Look:
    """An observation that is offered. `informative`: it tells the cause from its neighbours."""

    name: str
    minutes: float
    informative: bool
    summary: str

    @property
    def observation(self) -> Observation:
        return Observation(self.name, self.minutes, self.summary)


@dataclass(frozen=True)
class Figure:
    """A number of the run that an answer should quote.

    Args:
        name: of the run's figure.
        near: patterns, one of which must stand in the sentence that states the number.
        views: the observations that show it.
    """

    name: str
    says: str
    near: str
    views: tuple[str, ...]


@dataclass(frozen=True)
class Fix:
    """Something that could be changed, and can be switched on.

    Args:
        points: ways to say it; any one will do.
        kind: a root fix takes the fault away, a workaround only the symptom, and what is wrong
            leaves even that.
    """

    name: str
    says: str
    points: tuple[Point, ...]
    kind: FixKind

    @property
    def root(self) -> bool:
        return self.kind == "root"


@dataclass(frozen=True)
class Case:
    """One incident.

    Args:
        page: what a user sent.
        facts: of the environment.
        truth: what was wrong.
        path: (observation, what it shows), in the order of the true path.
        stands_for: the class of upstream issues.
        model: the model answer, under the headings of `SECTIONS`.
        cause, invariant, verify, users: what an answer should say.
    """

    name: str
    title: str
    areas: tuple[int, ...]
    competencies: tuple[str, ...]
    page: str
    facts: tuple[str, ...]
    looks: tuple[Look, ...]
    truth: str
    path: tuple[tuple[str, str], ...]
    stands_for: str
    anchor: Anchor
    model: str
    cause: tuple[Point, ...]
    invariant: tuple[Point, ...]
    verify: tuple[Point, ...]
    users: tuple[Point, ...]
    figures: tuple[Figure, ...]
    fixes: tuple[Fix, ...]

    @property
    def minutes(self) -> dict[str, float]:
        """Prices by observation."""
        return {look.name: look.minutes for look in self.looks}

    @property
    def root_fix(self) -> Fix:
        return next(fix for fix in self.fixes if fix.root)

    def ideal_actions(self) -> tuple[Action, ...]:
        """The true path as a candidate would have walked it: cheap looks, hypothesis, the rest."""
        cheap = [name for name, _ in self.path if self.minutes[name] < EXPENSIVE_MINUTES]
        dear = [name for name, _ in self.path if self.minutes[name] >= EXPENSIVE_MINUTES]
        clock, actions = 0.0, []
        for kind, names in (("observe", cheap), ("suspect", [self.truth]), ("observe", dear)):
            for what in names:
                clock += 60 * self.minutes.get(what, 0.5)
                actions.append(Action(kind, what, clock))  # type: ignore[arg-type]
        return tuple(actions)


@cache
def names() -> tuple[str, ...]:
    """The incidents by name, in order; nothing of them is read."""
    folder = resources.files(__package__).joinpath("cases")
    files = (entry.name for entry in folder.iterdir())
    return tuple(sorted(file.removesuffix(".toml") for file in files if file.endswith(".toml")))


@cache
def load_case(name: str) -> Case:
    """The incident called `name`.

    Raises:
        IncidentError: there is none, or its file is bad.
    """
    if name not in names():
        raise IncidentError(f"no incident {name[:80]!r}: known are {', '.join(names())}")
    text = resources.files(__package__).joinpath("cases", f"{name}.toml").read_text("utf-8")
    return read_case(name, text)


def read_case(name: str, text: str) -> Case:
    """The incident in the TOML document `text`.

    Raises:
        IncidentError: naming the incident, the key and what is wrong with it.
    """
    try:
        return _case(name, tomllib.loads(text))
    except tomllib.TOMLDecodeError as error:
        raise IncidentError(f"incident {name}: not TOML: {error}") from None
    except (PatternError, _BadKeyError) as error:
        raise IncidentError(f"incident {name}: {error}") from None


class _BadKeyError(TrackRecordError):
    pass


_TOP = "title areas competencies page facts observations truth model grading figures fixes".split()
_TRUTH = "cause path stands_for anchor".split()
_MODEL = {"Cause": "cause", "Evidence": "evidence", "Fix": "fix", "How to verify": "verify"}


def _case(name: str, document: Mapping[str, Any]) -> Case:
    _exactly(document, "", _TOP)
    truth, model, grading = (document[key] for key in ("truth", "model", "grading"))
    _exactly(truth, "truth.", _TRUTH)
    _exactly(model, "model.", list(_MODEL.values()))
    _exactly(grading, "grading.", ["cause", "invariant", "verify", "users"])
    _exactly(truth["anchor"], "truth.anchor.", ["path", "line", "symbol"])
    looks = []
    for number, entry in enumerate(document["observations"]):
        _exactly(entry, f"observations[{number}].", "name minutes informative summary".split())
        looks.append(Look(**entry))
    points = {
        key: tuple(Point.from_table(e, f"grading.{key}[{n}]") for n, e in enumerate(grading[key]))
        for key in grading
    }
    found = Case(
        name=name,
        title=document["title"],
        areas=tuple(document["areas"]),
        competencies=tuple(document["competencies"]),
        page=document["page"].strip(),
        facts=tuple(document["facts"]),
        looks=tuple(looks),
        truth=truth["cause"],
        path=tuple((step["see"], step["shows"]) for step in truth["path"]),
        stands_for=truth["stands_for"],
        anchor=Anchor(area="", look_for="", invariant="", **truth["anchor"]),
        model="\n\n".join(f"## {h}\n\n{model[key].strip()}" for h, key in _MODEL.items()) + "\n",
        figures=tuple(_figure(e, f"figures[{n}]") for n, e in enumerate(document["figures"])),
        fixes=tuple(_fix(e, f"fixes[{n}]") for n, e in enumerate(document["fixes"])),
        **points,
    )
    _check(found)
    return found


def _figure(entry: Mapping[str, Any], where: str) -> Figure:
    _exactly(entry, f"{where}.", "name says near views".split())
    return Figure(entry["name"], entry["says"], entry["near"], tuple(entry["views"]))


def _fix(entry: Mapping[str, Any], where: str) -> Fix:
    _exactly(entry, f"{where}.", "name says said kind".split())
    points = tuple(
        Point.from_table({"says": entry["says"], **way}, f"{where}.said[{n}]")
        for n, way in enumerate(entry["said"])
    )
    return Fix(entry["name"], entry["says"], points, entry["kind"])


def _check(case: Case) -> None:
    """That names refer to something, and that there is enough of everything."""
    offered = set(case.minutes)
    for where, named in (
        ("truth.path", [name for name, _ in case.path]),
        ("figures.views", [view for figure in case.figures for view in figure.views]),
    ):
        for view in named:
            if view not in offered:
                raise _BadKeyError(f"{where}: {view!r} is not among the observations")
    for number in case.areas:
        if number not in range(len(loop_areas())):
            raise _BadKeyError(f"areas: there is no area {number}")
    for slug in case.competencies:
        if slug not in competencies():
            raise _BadKeyError(f"competencies: there is no {slug!r}")
    if sum(fix.root for fix in case.fixes) != 1:
        raise _BadKeyError('fixes: exactly one must have kind = "root"')
    for fix in case.fixes:
        if fix.kind not in get_args(FixKind):
            raise _BadKeyError(f"fixes: {fix.name} has kind {fix.kind!r}")


def _exactly(table: Mapping[str, Any], where: str, keys: list[str]) -> None:
    for key in table:
        if key not in keys:
            raise _BadKeyError(f"unknown key {where}{key} (known: {', '.join(keys)})")
    for key in keys:
        if key not in table:
            raise _BadKeyError(f"{where}{key} is missing")
