"""What a design session asks: a brief, what is given, and what is looked for in the answer.

One TOML file a scenario, in `scenarios`. What the simulator can express is a scenario of
`mini_vllm.sim.scenario` (`[given]`); the candidate's topology and knobs make it whole.

Invariant: no result is written here. Expected quantities are formulas, in which `{tp}` and the like
stand for what the candidate chose.
"""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from importlib import resources
from importlib.resources.abc import Traversable
from typing import Any

from trackrecord.errors import TrackRecordError
from trackrecord.loop.areas import LEVELS, competencies, loop_areas
from trackrecord.loop.design.keys import KEYS, PREDICTED, Key
from trackrecord.loop.grading.points import Point, parse_pattern


class DesignError(TrackRecordError):
    """A scenario of the design session that does not exist or cannot be used."""


@dataclass(frozen=True)
class Bound:
    """What a key of the design must keep, and why.

    Args:
        least, most: of a number; None where there is no such bound.
        one_of: of anything else; empty where there is none.
    """

    key: str
    why: str
    least: float | None = None
    most: float | None = None
    one_of: tuple[Any, ...] = ()

    def holds(self, value: Any) -> bool:
        if self.one_of:
            return value in self.one_of
        return (self.least is None or value >= self.least) and (
            self.most is None or value <= self.most
        )

    @property
    def words(self) -> str:
        """What is allowed: `from 2 to 8`."""
        if self.one_of:
            shown = ["yes" if v is True else "no" if v is False else str(v) for v in self.one_of]
            return " or ".join(shown)
        parts = [f"from {self.least:,g}"] if self.least is not None else []
        return " ".join([*parts, f"to {self.most:,g}"] if self.most is not None else parts)


@dataclass(frozen=True)
class Expected:
    """A quantity that an arithmetic line must come to. `formula` is filled with the choices."""

    says: str
    formula: str
    tolerance: float = 0.03


@dataclass(frozen=True)
class Risk:
    """A risk that a staff engineer would name.

    Args:
        point: how it is said.
        shows: patterns of what would show it; one of them is enough.
    """

    point: Point
    shows: str


@dataclass(frozen=True)
class DesignTask:
    """One scenario.

    Args:
        model: a complete design file that answers it.
        given: of the simulator's scenario, what the candidate cannot choose.
        prices: of a device for an hour, in US dollars, by the devices on offer.
        devices: most that may be used.
        budget: most US dollars an hour; infinite where there is no bound.
        cost: most US dollars for a million output tokens that keep the objective; likewise.
        adapter_bytes: formula for one LoRA adapter on one device; empty where there are none.
        adapters: how many are served in all.
        bounds: reasonable values of topology and knobs.
        predict: figures that must be predicted.
        within: factor between predicted and simulated that is near enough.
    """

    name: str
    title: str
    level: str
    areas: tuple[int, ...]
    competencies: tuple[str, ...]
    brief: str
    model: str
    given: Mapping[str, Any]
    prices: Mapping[str, float]
    devices: int
    budget: float
    cost: float
    adapter_bytes: str
    adapters: int
    bounds: tuple[Bound, ...]
    expected: tuple[Expected, ...]
    reasons: tuple[Point, ...]
    risks: tuple[Risk, ...]
    predict: tuple[str, ...]
    within: float

    @property
    def gpus(self) -> tuple[str, ...]:
        return tuple(self.prices)


def names() -> tuple[str, ...]:
    """The scenarios, by name: `70b-chat`."""
    return tuple(_files())


@cache
def load_task(name: str) -> DesignTask:
    """The scenario of a name.

    Raises:
        DesignError: there is none, or its file is bad.
    """
    file = _files().get(name)
    if file is None:
        raise DesignError(f"no design scenario {name!r} (known: {', '.join(_files())})")
    try:
        document = tomllib.loads(file.read_text(encoding="utf-8"))
    except ValueError as error:
        raise DesignError(f"{file.name}: not TOML: {error}") from None
    return task_from(name, document)


_REQUIRED = "title level areas competencies brief model given prices devices expected reasons risks"
_OPTIONAL = "budget cost adapter_bytes adapters bounds predict within"


def task_from(name: str, document: Mapping[str, Any]) -> DesignTask:
    """The scenario in a document.

    Raises:
        DesignError: naming the key and what is wrong with it.
    """
    table = _Table(name, document)
    table.only(f"{_REQUIRED} {_OPTIONAL}".split())
    areas = tuple(table.each("areas", int))
    tested = tuple(table.each("competencies", str))
    if not areas or any(not 0 <= area < len(loop_areas()) for area in areas):
        table.wrong("areas", f"must be numbers of areas, got {areas}")
    if not tested or any(slug not in competencies() for slug in tested):
        table.wrong("competencies", f"must be among {', '.join(competencies())}, got {tested}")
    level = table.text("level")
    if level not in LEVELS:
        table.wrong("level", f"must be one of {', '.join(LEVELS)}, got {level!r}")
    predict = tuple(table.each("predict", str)) or ("p99_ttft", "p50_tpot", "kv_cache_tokens")
    if unknown := [key for key in predict if key not in PREDICTED]:
        table.wrong("predict", f"unknown figures {', '.join(unknown)}")
    prices = {gpu: float(price) for gpu, price in table.tables("prices").items()}
    return DesignTask(
        name=name,
        title=table.text("title"),
        level=level,
        areas=areas,
        competencies=tested,
        brief=table.text("brief").strip() + "\n",
        model=table.text("model").strip() + "\n",
        given=table.tables("given"),
        prices=prices,
        devices=int(table.number("devices")),
        budget=table.number("budget", float("inf")),
        cost=table.number("cost", float("inf")),
        adapter_bytes=table.text("adapter_bytes", ""),
        adapters=int(table.number("adapters", 0)),
        bounds=tuple(_bound(entry) for entry in table.every("bounds")),
        expected=tuple(_expected(entry) for entry in table.every("expected")),
        reasons=tuple(Point.from_table(e.values, e.where) for e in table.every("reasons")),
        risks=tuple(_risk(entry) for entry in table.every("risks")),
        predict=predict,
        within=table.number("within", 2.0),
    )


def _bound(table: _Table) -> Bound:
    table.only(["key", "why", "least", "most", "one_of"])
    key = table.text("key")
    known: Mapping[str, Key] = {**KEYS["Topology"], **KEYS["Knobs"]}
    if key not in known:
        table.wrong("key", f"unknown {key!r} (known: {', '.join(known)})")
    least, most = (table.values.get(end) for end in ("least", "most"))
    one_of = tuple(table.values.get("one_of", ()))
    if least is None and most is None and not one_of:
        table.wrong("key", f"{key} needs least, most or one_of")
    return Bound(key, table.text("why"), least, most, one_of)


def _expected(table: _Table) -> Expected:
    table.only(["says", "formula", "tolerance"])
    return Expected(table.text("says"), table.text("formula"), table.number("tolerance", 0.03))


def _risk(table: _Table) -> Risk:
    values = dict(table.values)
    shows = values.pop("shows", "")
    if not isinstance(shows, str) or not shows:
        table.wrong("shows", "must be a pattern")
    parse_pattern(shows)
    return Risk(Point.from_table(values, table.where), shows)


@dataclass(frozen=True)
class _Table:
    """A table that knows where it stands, for errors."""

    where: str
    values: Mapping[str, Any]

    def wrong(self, key: str, problem: str) -> None:
        raise DesignError(f"{self.where}: {key}: {problem}")

    def only(self, known: list[str]) -> None:
        for key in self.values:
            if key not in known:
                self.wrong(key, f"unknown key (known: {', '.join(known)})")

    def text(self, key: str, default: str | None = None) -> str:
        value = self.values.get(key, default)
        if not isinstance(value, str):
            raise DesignError(f"{self.where}: {key}: must be a text, got {value!r}")
        return value

    def number(self, key: str, default: float | None = None) -> float:
        value = self.values.get(key, default)
        if isinstance(value, bool) or not isinstance(value, int | float) or not value >= 0:
            raise DesignError(f"{self.where}: {key}: must be a number from 0, got {value!r}")
        return value

    def tables(self, key: str) -> dict[str, Any]:
        value = self.values.get(key, {})
        if not isinstance(value, dict):
            raise DesignError(f"{self.where}: {key}: must be a table")
        return value

    def each(self, key: str, kind: type) -> list[Any]:
        value = self.values.get(key, [])
        if not isinstance(value, list) or not all(isinstance(entry, kind) for entry in value):
            raise DesignError(f"{self.where}: {key}: must be a list of {kind.__name__}")
        return value

    def every(self, key: str) -> list[_Table]:
        return [
            _Table(f"{self.where}: {key}[{number}]", entry)
            for number, entry in enumerate(self.each(key, dict))
        ]


@cache
def _files() -> dict[str, Traversable]:
    folder = resources.files(__package__).joinpath("scenarios")
    files = [file for file in folder.iterdir() if file.name.endswith(".toml")]
    return {f.name.removesuffix(".toml"): f for f in sorted(files, key=lambda f: f.name)}
