"""All that can be asked: the questions of the bank, the designs, the incidents, by name."""

from __future__ import annotations

import hashlib
from functools import cache
from importlib import resources
from importlib.resources.abc import Traversable

from trackrecord.errors import TrackRecordError
from trackrecord.loop import design, incidents
from trackrecord.loop.areas import LoopArea, loop_areas
from trackrecord.loop.bank.load import load_question, question_names
from trackrecord.loop.items import Item
from trackrecord.loop.session.plan import Catalogue

_DATA = ("bank/questions", "design/scenarios", "incidents/cases")


@cache
def catalogue() -> Catalogue:
    """The names of everything, and what makes an item of a name."""
    return Catalogue(
        questions={area.number: question_names(area) for area in loop_areas()},
        designs=tuple(f"design:{name}" for name in design.names()),
        incidents=tuple(f"incident:{name}" for name in incidents.names()),
        make=make_item,
        fingerprint=_fingerprint(),
    )


def make_item(name: str) -> Item:
    """The item of that name.

    Raises:
        TrackRecordError: there is none.
    """
    kind, _, rest = name.partition(":")
    if kind == "question":
        return load_question(name).item()
    if kind == "design":
        return design.design_item(rest)
    if kind == "incident":
        return incidents.incident_item(rest)
    raise TrackRecordError(f"no item {name!r}: write question:NN/NAME, design:NAME, incident:NAME")


def find_area(text: str) -> LoopArea:
    """The area with that number or name; a part of a name will do where no other has it.

    Raises:
        TrackRecordError: there is none; names those there are.
    """
    for area in loop_areas():
        if text in (str(area.number), f"{area.number:02d}", area.slug, area.folder):
            return area
    partly = [area for area in loop_areas() if text and text in area.slug]
    if len(partly) == 1:
        return partly[0]
    known = ", ".join(area.folder for area in loop_areas())
    raise TrackRecordError(f"no area {text!r}: write a number or a name of {known}")


def _fingerprint() -> str:
    digest = hashlib.sha256()
    for folder in _DATA:
        root = resources.files(__package__).joinpath(*folder.split("/"))
        for path, file in _walk(root, folder):
            digest.update(path.encode() + b"\0" + file.read_bytes() + b"\0")
    return digest.hexdigest()[:16]


def _walk(folder: Traversable, path: str) -> list[tuple[str, Traversable]]:
    found: list[tuple[str, Traversable]] = []
    for entry in sorted(folder.iterdir(), key=lambda entry: entry.name):
        below = f"{path}/{entry.name}"
        if entry.is_dir():
            found += _walk(entry, below)
        elif entry.name.endswith(".toml"):
            found.append((below, entry))
    return found
