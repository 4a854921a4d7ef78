"""The report in a terminal: at most `MOST_LINES` lines of `WIDTH` columns, results only."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from textwrap import wrap

from trackrecord.loop.marks import LAYER_TITLES
from trackrecord.loop.outcome.levels import StaffMap, groups, levels
from trackrecord.loop.outcome.matrix import Row
from trackrecord.loop.outcome.report import NOTHING, LoopReport
from trackrecord.loop.outcome.revision import Revision

WIDTH = 100
MOST_LINES = 60
_MOST_REVISED = 3
_MOST_PROBLEMS = 2
_AREA = 42
_COMPETENCY = 14


def lines_of(report: LoopReport) -> list[str]:
    """The report, most important first: how it was earned, the matrix, the level, what to do."""
    if not report.runs:
        return [NOTHING]
    lines = [
        *_wrapped(report.earned, most=2),
        *_some(list(report.problems), _MOST_PROBLEMS, "problems of the journals"),
        "",
        *_areas(report),
        "",
        *_competencies(report.matrix.competencies),
        "",
        *_staff(report.staff),
        "",
        *_revision(report),
    ]
    if report.change:
        lines += ["", *_wrapped(report.change.words, most=2)]
    return lines


def _areas(report: LoopReport) -> list[str]:
    """The areas that were asked, a line each."""
    asked = report.matrix.asked
    if not asked:
        return ["no area has been asked yet", *_practised(report.practised)]
    header = f"{'area':<{_AREA}}{'mech':>6}{'arith':>7}{'conseq':>8}{'items':>7}{'own':>6}  highest"
    lines = [header]
    for row in asked:
        name = _clipped(f"{row.name[:2]} {row.title}", _AREA)
        gap = "" if row.gap is None else f"{row.gap:+.1f}"
        lines.append(f"{name:<{_AREA}}{_scores(row)}{row.answers:>7}{gap:>6}  {row.reached or '-'}")
    empty = [row.name[:2] for row in report.matrix.areas if not row.answers]
    if empty:
        lines.append(f"not asked: {', '.join(empty)}")
    return [*lines, *_practised(report.practised)]


def _practised(rows: Sequence[Row]) -> list[str]:
    """Practice, counted nowhere: the three layers of each area."""
    scores = (f"{row.name[:2]}: {'/'.join(_score(c.score) for c in row.cells)}" for row in rows)
    text = f"practised, not counted: {', '.join(scores)}"
    return _wrapped(text, most=3) if rows else []


def _competencies(rows: Sequence[Row]) -> list[str]:
    """Two a line: mechanism, arithmetic, consequence and the number of items."""
    cells = [_competency(row) for row in rows if row.answers]
    if not cells:
        return ["no competency has been tested yet"]
    head = f"{'competency':<{_COMPETENCY}}{'mech':>6}{'arith':>7}{'conseq':>8}{'items':>7}"
    half = -(-len(cells) // 2)
    left, right = [head, *cells[:half]], [head, *cells[half:]]
    if half == len(cells):
        return left
    right += [""] * (len(left) - len(right))
    return [f"{a}     {b}".rstrip() for a, b in zip(left, right, strict=True)]


def _competency(row: Row) -> str:
    return f"{row.name:<{_COMPETENCY}}{_scores(row)}{row.answers:>7}"


def _scores(row: Row) -> str:
    """The three layers, under their headings."""
    mechanism, arithmetic, consequence = (_score(cell.score) for cell in row.cells)
    return f"{mechanism:>6}{arithmetic:>7}{consequence:>8}"


def _staff(staff: StaffMap) -> list[str]:
    lines = _wrapped(staff.words, most=2)
    lines.append(f"{'':<28}" + "".join(f"{level.name:<24}" for level in levels()).rstrip())
    for group in groups():
        found = [staff.at(group.name, level.name) for level in levels()]
        cells = "".join(f"{standing.words:<24}" for standing in found)
        lines.append(f"{group.title:<28}{cells}".rstrip())
    return lines


def _revision(report: LoopReport) -> list[str]:
    if not report.revision:
        return ["nothing to revise: the last answer to every item is 3 or better in each layer"]
    lines = [f"to revise, weakest first ({len(report.revision)} in all, {len(report.due)} due):"]
    for entry in report.revision[:_MOST_REVISED]:
        lines += _revision_lines(entry)
    return lines


def _revision_lines(entry: Revision) -> Iterable[str]:
    what = f"{entry.title}: {LAYER_TITLES[entry.layer]} {entry.score}"
    yield f"  {entry.due}  {_clipped(what, WIDTH - 14)}"
    if entry.read:
        yield _clipped(f"              read {entry.read[0].where}", WIDTH)
    yield f"              {entry.redo}"


def _score(score: float | None) -> str:
    return "-" if score is None else f"{score:.1f}"


def _some(entries: list[str], most: int, what: str) -> list[str]:
    """The first of `entries`, and how many more there are."""
    if len(entries) <= most:
        return [_clipped(entry, WIDTH) for entry in entries]
    more = len(entries) - most + 1
    return [_clipped(e, WIDTH) for e in entries[: most - 1]] + [f"and {more} more {what}"]


def _wrapped(text: str, most: int) -> list[str]:
    return wrap(text, WIDTH, max_lines=most, placeholder=" …")


def _clipped(text: str, width: int) -> str:
    return text if len(text) <= width else f"{text[: width - 1]}…"
