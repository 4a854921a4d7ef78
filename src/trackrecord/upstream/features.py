"""Which cross-cutting features reach a definition, each with the path that shows it.

A feature reaches a definition if code that takes part in the feature uses it, directly or through
other definitions, or inherits it. The features are data (`features.toml`); the path is the shortest
found, and ends at a line that anybody can look at.
"""

from __future__ import annotations

import re
import tomllib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cache
from importlib import resources
from typing import TYPE_CHECKING

from trackrecord.upstream.index.records import Symbol

if TYPE_CHECKING:
    from trackrecord.upstream.index.query import Index


@dataclass(frozen=True)
class Feature:
    """A feature and how code that takes part in it can be told."""

    name: str
    paths: tuple[str, ...]
    names: re.Pattern[str]

    def is_told_by(self, name: str) -> bool:
        """Whether code that has `name` (of a variable, a class, `torch.compile`) takes part."""
        return self.names.fullmatch(name) is not None


@dataclass(frozen=True)
class Hop:
    """One definition on a path; `how` it comes after the one before: "" for the touched one."""

    qualname: str
    path: str
    line: int
    how: str


@dataclass(frozen=True)
class FeatureReach:
    """A feature that reaches a touched definition.

    `evidence` is what at `path:line` shows that the last hop takes part in the feature.
    """

    feature: str
    hops: tuple[Hop, ...]
    path: str
    line: int
    evidence: str


@cache
def load_features() -> tuple[Feature, ...]:
    """The features that ship with the workbench."""
    text = resources.files(__package__).joinpath("features.toml").read_text(encoding="utf-8")
    return tuple(
        Feature(f["name"], tuple(f["paths"]), re.compile(f["names"]))
        for f in tomllib.loads(text)["features"]
    )


class _TellingNames(dict[str, bool]):
    """Whether a name tells of a feature; each name is tried once."""

    def __missing__(self, name: str) -> bool:
        found = self[name] = any(feature.is_told_by(name) for feature in load_features())
        return found


@cache
def telling_names() -> Mapping[str, bool]:
    """Whether a name tells of one of the features that ship; has an answer for any name."""
    return _TellingNames()


class FeatureFinder:
    """Looks for features along the paths that a search from the touched definitions takes.

    Definitions have to be shown in the order of the search, so that what is found first is nearest.
    """

    def __init__(self, index: Index, features: Iterable[Feature] | None = None) -> None:
        self.index = index
        self.missing = list(load_features() if features is None else features)
        self.found: list[FeatureReach] = []
        self._last: tuple[Symbol | None, list[tuple[str, int]]] = (None, [])

    def look(self, symbol: Symbol, hops: tuple[Hop, ...]) -> None:
        """Looks at a definition that `hops`, ending with itself, lead to."""
        for feature in list(self.missing):
            shown = self._shown_by(feature, symbol)
            if shown:
                self._add(feature, hops, symbol.path, *shown)
        parent = self.index.symbol(symbol.path, symbol.parent) if symbol.kind == "method" else None
        if parent and self.missing:
            self._look_at_heirs(parent, symbol, hops)

    def _look_at_heirs(self, holder: Symbol, method: Symbol, hops: tuple[Hop, ...]) -> None:
        for heir in self.index.subclasses(holder):
            if heir.is_test or self.index.symbol(heir.path, f"{heir.qualname}.{method.name}"):
                continue
            for feature in list(self.missing):
                if heir.path.startswith(feature.paths) or feature.is_told_by(heir.name):
                    hop = Hop(heir.qualname, heir.path, heir.line, "inherited by")
                    self._add(feature, (*hops, hop), heir.path, heir.line, f"class {heir.name}")

    def _shown_by(self, feature: Feature, symbol: Symbol) -> tuple[int, str] | None:
        if symbol.path.startswith(feature.paths):
            return symbol.line, next(p for p in feature.paths if symbol.path.startswith(p))
        if self._last[0] != symbol:
            self._last = (symbol, self.index.signs_in(symbol))
        for name, line in self._last[1]:
            if feature.is_told_by(name):
                return line, name
        return None

    def _add(
        self, feature: Feature, hops: tuple[Hop, ...], path: str, line: int, evidence: str
    ) -> None:
        self.missing.remove(feature)
        self.found.append(FeatureReach(feature.name, hops, path, line, evidence))
