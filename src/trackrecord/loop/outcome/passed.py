"""Which areas of the reading map a person has passed, for the gauntlet's third check.

Several areas of the loop may go with one of the reading map (`LoopArea.reading`). It is passed when
each of them that was asked about outside practice has a mechanism score (the matrix's) of 3 or
better, and at least two items were answered in them together. An answer whose model answer was
looked at has 2 at most, and so counts against passing.
"""

from __future__ import annotations

from collections.abc import Sequence

from trackrecord.loop.areas import loop_areas
from trackrecord.loop.graded import GradedRun
from trackrecord.loop.outcome.evidence import GOOD, counted, latest
from trackrecord.loop.outcome.matrix import make_matrix
from trackrecord.upstream.areas import AREAS

FEWEST_ITEMS = 2


def passed_areas(runs: Sequence[GradedRun]) -> tuple[str, ...]:
    """Names of areas of the reading map, in its order."""
    return tuple(name for name in AREAS if _is_passed(name, runs))


def _is_passed(name: str, runs: Sequence[GradedRun]) -> bool:
    belonging = {area.folder for area in loop_areas() if name in area.reading}
    answers = counted(runs)
    items = {
        graded.item.name
        for graded in latest(answers)
        if any(area.folder in belonging for area in graded.areas)
    }
    asked = [row for row in make_matrix(answers).asked if row.name in belonging]
    return len(items) >= FEWEST_ITEMS and all((row.cells[0].score or 0) >= GOOD for row in asked)
