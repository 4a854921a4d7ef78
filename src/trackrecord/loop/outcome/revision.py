"""What to work on: the items that are weak, weakest first, with what to read, redo, and when.

Invariant: an item is listed as long as the last answer to it, practice included, is weak.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date

from mini_vllm.console import printable
from trackrecord.loop.graded import GradedRun
from trackrecord.loop.marks import LAYERS, Layer
from trackrecord.loop.outcome.cards import cards
from trackrecord.loop.outcome.evidence import in_order, is_weak, latest, lowest, one_line
from trackrecord.upstream.areas import Anchor


@dataclass(frozen=True)
class Reading:
    """A place in the pinned tree, and what to look for there."""

    path: str
    line: int
    symbol: str
    look_for: str

    @property
    def where(self) -> str:
        return f"{self.path}:{self.line}"


@dataclass(frozen=True)
class Revision:
    """One weak item.

    Args:
        layer: the weakest, with its `score`.
        missing: the first criterion of that layer that was not met; empty where none is named.
        total: of all layers, 0 to 12.
        redo: the command that practises the item, or its lab or incident.
    """

    item: str
    title: str
    areas: tuple[str, ...]
    layer: Layer
    score: int
    total: int
    missing: str
    read: tuple[Reading, ...]
    redo: str
    due: date


def revision_list(runs: Sequence[GradedRun]) -> tuple[Revision, ...]:
    """The weak items: lowest layer first, then lowest total, then the one due first."""
    when = {card.item: card.due for card in cards(runs)}
    found = []
    for graded in latest(in_order(runs)):
        if not is_weak(graded):
            continue
        score, layer = lowest(graded)
        findings = graded.mark.layers[LAYERS.index(layer)].findings
        wanting = (f.says for f in findings if f.verdict != "found")
        found.append(
            Revision(
                item=graded.item.name,
                title=printable(graded.item.title),
                areas=tuple(area.title for area in graded.areas),
                layer=layer,
                score=score,
                total=graded.mark.total,
                missing=one_line(next(wanting, "")),
                read=tuple(_reading(anchor) for anchor in graded.read),
                redo=graded.redo,
                due=when[graded.item.name],
            )
        )
    return tuple(sorted(found, key=lambda entry: (entry.score, entry.total, entry.due, entry.item)))


def _reading(anchor: Anchor) -> Reading:
    return Reading(anchor.path, anchor.line, anchor.symbol, anchor.look_for)
