"""The competency matrix: areas and competencies by layer.

A cell's score is the mean of the machine's scores in that layer, the last answer to each item
counting once. What is newer therefore replaces what it corrects, and weighs no more than anything
else; a mean of few answers is shown with how few they are. Invariant: a cell that nobody was asked
about has no score; it is never 0.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import date

from mini_vllm.console import printable
from trackrecord.loop.areas import competencies, loop_areas
from trackrecord.loop.graded import GradedAnswer
from trackrecord.loop.marks import LAYERS, Layer
from trackrecord.loop.outcome.evidence import Quote, best_quote, latest, mean, reaches
from trackrecord.loop.outcome.levels import levels


@dataclass(frozen=True)
class Best:
    """The best evidence of a cell: what was quoted, from which item, when."""

    item: str
    title: str
    at: date
    quote: Quote


@dataclass(frozen=True)
class Cell:
    """One layer of an area or a competency.

    Args:
        score: 0 to 4, or None where nobody asked.
        answers: how many items `score` is the mean of.
        gap: own score minus the machine's, a mean; None where no own score was given.
        best: None where nothing was found.
    """

    layer: Layer
    score: float | None
    answers: int
    gap: float | None
    best: Best | None


@dataclass(frozen=True)
class Row:
    """An area or a competency. `reached` is the highest level at which an answer was good enough,
    empty for none; `last` when it was last asked about."""

    name: str
    title: str
    cells: tuple[Cell, ...]
    reached: str
    last: date | None

    @property
    def answers(self) -> int:
        return self.cells[0].answers

    @property
    def gap(self) -> float | None:
        """Of its layers together."""
        return mean([cell.gap for cell in self.cells if cell.gap is not None])

    @property
    def best(self) -> Best | None:
        """The evidence of its best layer."""
        shown = [cell for cell in self.cells if cell.best is not None]
        return max(shown, key=lambda cell: cell.score or 0.0).best if shown else None


@dataclass(frozen=True)
class Matrix:
    """Every area, by number, and every competency."""

    areas: tuple[Row, ...]
    competencies: tuple[Row, ...]

    @property
    def asked(self) -> tuple[Row, ...]:
        """The areas that anything was asked about."""
        return tuple(row for row in self.areas if row.answers)


def make_matrix(answers: Iterable[GradedAnswer]) -> Matrix:
    """The matrix of `answers`, which are in order."""
    last = latest(answers)
    by_area: Mapping[int, list[GradedAnswer]] = {area.number: [] for area in loop_areas()}
    by_competency: Mapping[str, list[GradedAnswer]] = {slug: [] for slug in competencies()}
    for graded in last:
        for area in graded.areas:
            by_area[area.number].append(graded)
        for slug in graded.competencies:
            by_competency[slug].append(graded)
    return Matrix(
        tuple(_row(area.folder, area.title, by_area[area.number]) for area in loop_areas()),
        tuple(_row(slug, c.title, by_competency[slug]) for slug, c in competencies().items()),
    )


def _row(name: str, title: str, answers: Sequence[GradedAnswer]) -> Row:
    good = {graded.level for graded in answers if reaches(graded)}
    return Row(
        name,
        title,
        tuple(_cell(layer, answers) for layer in LAYERS),
        next((level.name for level in reversed(levels()) if level.name in good), ""),
        max((graded.at.date() for graded in answers), default=None),
    )


def _cell(layer: Layer, answers: Sequence[GradedAnswer]) -> Cell:
    scores = [graded.mark.scores[layer] for graded in answers]
    gaps = [graded.gap[layer] for graded in answers if layer in graded.gap]
    best = None
    for graded in sorted(answers, key=lambda g: (g.mark.scores[layer], g.at), reverse=True):
        if quote := best_quote(graded, layer):
            best = Best(graded.item.name, printable(graded.item.title), graded.at.date(), quote)
            break
    return Cell(layer, mean(scores), len(scores), mean(gaps), best)
