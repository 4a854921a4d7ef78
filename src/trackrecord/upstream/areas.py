"""The reading map: what to read of upstream, area by area, and which area a path belongs to.

An area is one file of `reading_map/`: which paths are its, and an ordered list of anchors. An
anchor names a place in the pinned tree by path, line and symbol, says what to look for there, and
which invariant the place keeps. `anchors` checks that every one of them is where it says.
"""

from __future__ import annotations

import tomllib
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from importlib import resources

from trackrecord.errors import UpstreamError

AREAS = (
    "scheduler",
    "kv-cache",
    "attention",
    "sampling",
    "quantization",
    "spec-decode",
    "distributed",
    "serving",
    "contributing",
    "ci",
    "design-docs",
)
"""The areas by name, in an order that one can read them in."""


@dataclass(frozen=True)
class Anchor:
    """A place worth knowing. `symbol` is a qualified name in Python, a heading in Markdown, and
    words of the line itself in other files."""

    area: str
    path: str
    line: int
    symbol: str
    look_for: str
    invariant: str


@dataclass(frozen=True)
class Area:
    """One area; `paths` are files, or folders where they end in `/`."""

    name: str
    title: str
    summary: str
    paths: tuple[str, ...]
    anchors: tuple[Anchor, ...]


@cache
def load_area(name: str) -> Area:
    """The area called `name`.

    Raises:
        UpstreamError: there is none; says which there are.
    """
    if name not in AREAS:
        raise UpstreamError(f"no area {name!r}: known are {', '.join(AREAS)}")
    file = resources.files(__package__).joinpath("reading_map", f"{name}.toml")
    document = tomllib.loads(file.read_text(encoding="utf-8"))
    anchors = tuple(Anchor(area=name, **anchor) for anchor in document["anchors"])
    return Area(name, document["title"], document["summary"], tuple(document["paths"]), anchors)


def all_anchors() -> list[Anchor]:
    """Every anchor of every area, in reading order."""
    return [anchor for name in AREAS for anchor in load_area(name).anchors]


def area_of_path(path: str) -> list[str]:
    """The areas that a path belongs to, the one with the closest claim first; often none."""
    claims = []
    for position, name in enumerate(AREAS):
        reach = max((_claim(claim, path) for claim in load_area(name).paths), default=0)
        if reach:
            claims.append((-reach, position, name))
    return [name for *_, name in sorted(claims)]


def areas_of_paths(paths: Sequence[str]) -> list[str]:
    """The areas that any of `paths` belongs to, each once."""
    return list(dict.fromkeys(name for path in paths for name in area_of_path(path)))


def _claim(claim: str, path: str) -> int:
    """How closely `claim` fits `path`: the length that they share, 0 for not at all."""
    fits = path.startswith(claim) if claim.endswith("/") else path == claim
    return len(claim) if fits else 0
