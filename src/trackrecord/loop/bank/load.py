"""The bank as a whole: the questions of each area, read when they are asked for.

Listing names reads file names alone, so that a session starts at once.
"""

from __future__ import annotations

import re
from functools import cache
from importlib import resources
from importlib.resources.abc import Traversable

from trackrecord.loop.areas import LoopArea, loop_areas
from trackrecord.loop.bank.question import BankError, Question, read_question

_NAME = re.compile(r"question:(\d\d)/([a-z0-9-]+)")


def question_names(area: LoopArea) -> tuple[str, ...]:
    """The names of an area's questions, as items, in order."""
    return tuple(f"question:{area.number:02d}/{slug}" for slug in sorted(_files(area)))


@cache
def load_question(name: str) -> Question:
    """The question `question:NN/SLUG`.

    Raises:
        BankError: there is none of that name, or its file is bad.
    """
    match = _NAME.fullmatch(name)
    areas = loop_areas()
    if match is None or int(match[1]) >= len(areas):
        raise BankError(f"no question {name!r}: write question:NN/NAME, as question:02/block-size")
    area = areas[int(match[1])]
    file = _files(area).get(match[2])
    if file is None:
        raise BankError(f"no question {name!r}: {area.folder} holds {', '.join(_files(area))}")
    return read_question(file, area)


def load_area(area: LoopArea) -> tuple[Question, ...]:
    """All questions of an area."""
    return tuple(load_question(name) for name in question_names(area))


def load_bank() -> tuple[Question, ...]:
    """All questions, by area and name."""
    return tuple(question for area in loop_areas() for question in load_area(area))


@cache
def _files(area: LoopArea) -> dict[str, Traversable]:
    folder = resources.files(__package__).joinpath("questions", area.folder)
    if not folder.is_dir():
        return {}
    files = {file.name: file for file in folder.iterdir() if file.name.endswith(".toml")}
    return {name.removesuffix(".toml"): files[name] for name in sorted(files)}
