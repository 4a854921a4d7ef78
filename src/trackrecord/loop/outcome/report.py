"""The outcome of everything that was sat, in one value: what `trackrecord loop report` shows.

Invariant: a report is a pure function of the graded runs and a date. What was practised is in it,
apart, and in no figure of the matrix, the map or the calibration.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, is_dataclass
from datetime import date
from typing import Any

from mini_vllm.console import printable
from trackrecord.loop.graded import GradedAnswer, GradedRun
from trackrecord.loop.outcome.calibration import Calibration, calibration
from trackrecord.loop.outcome.cards import Card, due
from trackrecord.loop.outcome.change import Change, change_between
from trackrecord.loop.outcome.evidence import (
    Evidence,
    counted,
    evidence_of,
    first_sights,
    in_order,
    reaches,
)
from trackrecord.loop.outcome.levels import StaffMap, plural, rank_of, staff_map
from trackrecord.loop.outcome.matrix import Matrix, Row, make_matrix
from trackrecord.loop.outcome.passed import passed_areas
from trackrecord.loop.outcome.revision import Revision, revision_list

NOTHING = "nothing has been sat yet: trackrecord loop start"
MOST_STRONGEST = 3


@dataclass(frozen=True)
class Sitting:
    """How one run was earned. `met_before` counts answers to items that an earlier run had shown;
    `problems` are what is wrong with its journal."""

    run: str
    day: date
    practice: bool
    finished: bool
    answers: int
    minutes: float
    peeked: int
    skipped: int
    overtime: int
    met_before: int
    problems: tuple[str, ...]


@dataclass(frozen=True)
class LoopReport:
    """Everything that the outcome is; `runs` is what it was made of, oldest first."""

    runs: tuple[GradedRun, ...]
    known: tuple[GradedRun, ...]
    today: date
    sittings: tuple[Sitting, ...]
    matrix: Matrix
    practised: tuple[Row, ...]
    staff: StaffMap
    passed: tuple[str, ...]
    calibration: Calibration
    strongest: tuple[Evidence, ...]
    revision: tuple[Revision, ...]
    due: tuple[Card, ...]
    change: Change | None

    @property
    def counted(self) -> tuple[Sitting, ...]:
        """The sittings that were no practice."""
        return tuple(sitting for sitting in self.sittings if not sitting.practice)

    @property
    def earned(self) -> str:
        """How the marks were earned, in a sentence."""
        if not self.runs:
            return NOTHING
        sat, practice = self.counted, [s for s in self.sittings if s.practice]
        aside = f"{len(practice)} practice {plural(len(practice), 'run')} kept apart"
        if not sat:
            return f"Only practice so far: {aside}, and no run that counts."
        answers = sum(s.answers for s in sat)
        exceptions = [
            f"{sum(s.peeked for s in sat) or 'none'} with a look at the model answer",
            f"{sum(s.overtime for s in sat) or 'none'} in overtime",
            f"{sum(s.skipped for s in sat) or 'none'} skipped",
            f"{sum(s.met_before for s in sat) or 'none'} to an item met before",
        ]
        words = (
            f"{answers} {plural(answers, 'answer')} in {len(sat)} timed {plural(len(sat), 'run')}"
        )
        words += f", {sum(s.minutes for s in sat):.0f} min by the clock: {', '.join(exceptions)}"
        return f"{words}; {aside}." if practice else f"{words}."

    @property
    def problems(self) -> tuple[str, ...]:
        """What is wrong with the journals."""
        return tuple(f"run {s.run}: {problem}" for s in self.sittings for problem in s.problems)

    def to_json(self, quotes: bool = True) -> dict[str, Any]:
        """The report as JSON values; without `quotes` no word of a candidate is in it."""
        made_of = ("runs", "known")
        shown = {f.name: getattr(self, f.name) for f in fields(self) if f.name not in made_of}
        document: dict[str, Any] = _plain(shown | {"earned": self.earned}, quotes)
        return document


def build_report(
    runs: Sequence[GradedRun], today: date, known: Sequence[GradedRun] | None = None
) -> LoopReport:
    """The outcome of `runs` as of `today`. `known` are all runs there are, if `runs` is a choice of
    them: what was met before in one that is left out has been met all the same."""
    runs = sorted(runs, key=lambda run: (run.started, run.run))
    known = runs if known is None else known
    firsts = first_sights(known)
    answers = counted(runs)
    sat = [run for run in runs if not run.practice and run.answers]
    return LoopReport(
        runs=tuple(runs),
        known=tuple(known),
        today=today,
        sittings=tuple(_sitting(run, firsts) for run in runs),
        matrix=make_matrix(answers),
        practised=make_matrix(in_order(run for run in runs if run.practice)).asked,
        staff=staff_map(runs, known),
        passed=passed_areas(runs),
        calibration=calibration(answers),
        strongest=_strongest(answers, firsts),
        revision=revision_list(runs),
        due=tuple(due(runs, today)),
        change=change_between(*sat[-2:]) if len(sat) > 1 else None,
    )


def _sitting(run: GradedRun, firsts: set[tuple[str, str]]) -> Sitting:
    answers = [graded.answer for graded in run.answers]
    return Sitting(
        run=run.run,
        day=run.started.date(),
        practice=run.practice,
        finished=run.ended is not None,
        answers=len(answers),
        minutes=round(sum(answer.seconds for answer in answers) / 60, 1),
        peeked=sum(answer.peeked for answer in answers),
        skipped=sum(answer.skipped for answer in answers),
        overtime=sum(answer.overtime for answer in answers),
        met_before=sum((run.run, answer.item) not in firsts for answer in answers),
        problems=tuple(printable(problem) for problem in run.problems),
    )


def _strongest(
    answers: Sequence[GradedAnswer], firsts: set[tuple[str, str]]
) -> tuple[Evidence, ...]:
    """The best answers that reach their item's level, to items that had not been met before: by
    total, then level, then date."""
    good = [g for g in answers if reaches(g) and (g.run, g.item.name) in firsts]
    good.sort(key=lambda g: (g.mark.total, rank_of(g.level), g.at), reverse=True)
    return tuple(evidence_of(graded) for graded in good[:MOST_STRONGEST])


def _plain(value: Any, quotes: bool) -> Any:
    """Dataclasses as objects, dates in ISO 8601; quotations only where they are wanted."""
    if is_dataclass(value):
        names = [f.name for f in fields(value) if quotes or f.name != "quote"]
        return {name: _plain(getattr(value, name), quotes) for name in names}
    if isinstance(value, Mapping):
        return {str(key): _plain(entry, quotes) for key, entry in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(entry, quotes) for entry in value]
    return value.isoformat() if isinstance(value, date) else value
