"""The twenty areas that the loop asks about, and the competencies that its items test."""

from __future__ import annotations

import tomllib
from dataclasses import dataclass
from functools import cache
from importlib import resources

LEVELS = ("senior", "staff", "principal")
"""The difficulties of items, named for the level at which an answer is expected without help."""


@dataclass(frozen=True)
class LoopArea:
    """One area. `reading` names areas of the reading map that it goes with."""

    number: int
    slug: str
    title: str
    reading: tuple[str, ...]

    @property
    def folder(self) -> str:
        """Of its questions in the bank: `02-paged-kv-cache`."""
        return f"{self.number:02d}-{self.slug}"


@dataclass(frozen=True)
class Competency:
    """Something that an answer shows, whatever its area."""

    slug: str
    title: str


@cache
def loop_areas() -> tuple[LoopArea, ...]:
    """The areas, by number."""
    listed = enumerate(_document()["areas"])
    return tuple(
        LoopArea(n, area["slug"], area["title"], tuple(area["reading"])) for n, area in listed
    )


@cache
def competencies() -> dict[str, Competency]:
    """The competencies by slug."""
    return {entry["slug"]: Competency(**entry) for entry in _document()["competencies"]}


@cache
def _document() -> dict[str, list[dict[str, str]]]:
    file = resources.files(__package__).joinpath("areas.toml")
    return tomllib.loads(file.read_text(encoding="utf-8"))
