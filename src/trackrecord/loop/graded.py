"""A sitting with its marks: what the outcome is made of.

Invariant: a mark is a function of the item and the answer, so marks are never stored as the truth:
they are made again from the journal whenever they are asked for.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from trackrecord.loop.areas import LoopArea
from trackrecord.loop.items import Answer, Item
from trackrecord.loop.marks import LAYERS, Layer, Mark
from trackrecord.upstream.areas import Anchor


@dataclass(frozen=True)
class GradedAnswer:
    """One answer with its mark and what it is evidence of.

    Args:
        session: 1 to 4.
        level: senior, staff or principal: at which the item asks.
        read: what to read of the tree to do better.
        redo: the command that practises this item again.
    """

    run: str
    at: datetime
    session: int
    item: Item
    answer: Answer
    mark: Mark
    level: str
    areas: tuple[LoopArea, ...]
    competencies: tuple[str, ...]
    read: tuple[Anchor, ...]
    redo: str

    @property
    def gap(self) -> dict[Layer, int]:
        """Own score minus the machine's, for the layers that have both."""
        scores = self.mark.scores
        return {n: self.answer.own[n] - scores[n] for n in LAYERS if n in self.answer.own}


@dataclass(frozen=True)
class GradedRun:
    """One sitting. `problems` are a damaged journal's, in words."""

    run: str
    seed: int
    practice: bool
    started: datetime
    ended: datetime | None
    answers: tuple[GradedAnswer, ...]
    problems: tuple[str, ...] = ()
