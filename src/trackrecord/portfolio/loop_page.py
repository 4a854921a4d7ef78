"""The page of the mock loop: how it was earned, the matrix, the level, and the best answers.

Invariant: the page is made again from the runs that were chosen (`Published.select`), whatever the
report it is given was made of; no score and no word of another answer can be on it. A candidate's
words are text, never markup.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import date

from markupsafe import Markup

from mini_vllm.console import printable
from trackrecord.loop.areas import loop_areas
from trackrecord.loop.graded import GradedAnswer
from trackrecord.loop.marks import LAYER_TITLES, LAYERS
from trackrecord.loop.outcome.change import Change
from trackrecord.loop.outcome.evidence import Evidence, in_order, one_line
from trackrecord.loop.outcome.levels import (
    Group,
    groups,
    levels,
    plural,
)
from trackrecord.loop.outcome.matrix import Row
from trackrecord.loop.outcome.published import Published
from trackrecord.loop.outcome.report import LoopReport, build_report
from trackrecord.loop.outcome.revision import Revision
from trackrecord.portfolio.loop_plots import area_plot, calibration_plot, competency_plot
from trackrecord.portfolio.page import Page
from trackrecord.portfolio.plots import Plot
from trackrecord.portfolio.render import Table, render

SLUG = "loop"
TITLE = "Mock staff loop"
_MOST_REVISED = 5
_MOST_READ = 2
_MOST_MOVED = 3
_MOST_BY = 3
_MOST_SHOWN = 40_000
_MOST_EVIDENCE = 110


@dataclass(frozen=True)
class Text:
    """An answer in full: `lines` for HTML, `block` for Markdown."""

    title: str
    lines: str
    block: Markup


def loop_page(report: LoopReport, published: Published) -> Page | None:
    """The page of what `published` chose of the report's runs; None where that is nothing.

    Raises:
        PublishedError: a chosen run is not there any more.
    """
    chosen = published.select(report.runs)
    if not chosen:
        return None
    shown = build_report(chosen, report.today, known=report.known)
    quoted = published.texts != "none"
    rows = [row for row in shown.matrix.areas if row.name not in published.without]
    plots = _plots(shown, rows)
    values = {
        "title": TITLE,
        "summary": _summary(shown),
        "earned": shown.earned,
        "rules": _RULES,
        "choice": _choice(report, shown, published),
        "problems": shown.problems,
        "sittings": _sittings(shown),
        "level": shown.staff.words,
        "staff": _staff_table(shown),
        "standings": [_standing(group, shown) for group in groups()],
        "plots": plots,
        "areas": [_area(row, quoted) for row in rows if row.answers],
        "empty": [row.title for row in rows if not row.answers],
        "practised": _practised(shown, published),
        "calibration": shown.calibration.words,
        "strongest": [_strong(evidence, quoted) for evidence in shown.strongest],
        "revision": [_revision(entry, shown.today) for entry in shown.revision[:_MOST_REVISED]],
        "more": len(shown.revision) - _MOST_REVISED,
        "change": _change(shown.change) if shown.change else "",
        "texts": _texts(in_order(chosen)) if published.texts == "whole" else [],
        "data": f"{SLUG}.json",
    }
    document = json.dumps(shown.to_json(quoted), indent=1, allow_nan=False)
    files = {
        f"{SLUG}.html": render("loop.html", **values),
        f"{SLUG}.md": render("loop.md", **values),
        f"{SLUG}.json": document.encode() + b"\n",
    }
    for plot in plots:
        files |= {f"plots/{plot.name}.svg": plot.svg, f"plots/{plot.name}.png": plot.png}
    return Page(SLUG, TITLE, _summary(shown), files)


_RULES = (
    "A timed interview sat alone. Every save goes into an append-only, hash-chained journal; model "
    "answers open when a session ends, and a look before that is recorded and holds the answer at "
    "2. An answer has three layers, 0 to 4 each: points are given for what can be quoted, "
    "numbers are checked against computed ones, designs are simulated, and incidents run on a live "
    "engine."
)


def _summary(report: LoopReport) -> str:
    asked, of = len(report.matrix.asked), len(loop_areas())
    if not report.counted:
        return report.earned
    stands = f"stands at {report.staff.level}" if report.staff.level else "no level holds yet"
    if not report.staff.is_enough:
        stands = "too little to name a level"
    answers = sum(sitting.answers for sitting in report.counted)
    return (
        f"{answers} timed {plural(answers, 'answer')} in {asked} of {of} areas of LLM inference, "
        f"graded in three layers with the words as evidence: {stands}."
    )


def _choice(report: LoopReport, shown: LoopReport, published: Published) -> str:
    """What of everything that was sat is shown: whoever reads the page should know."""
    words = f"Shown by choice: {len(shown.runs)} of {len(report.known)} runs"
    if published.without:
        left = len(published.without)
        words += f", without {left} of {len(loop_areas())} {plural(len(loop_areas()), 'area')}"
    texts = {"none": "no text", "quotes": "quotations", "whole": "all text"}[published.texts]
    return f"{words}, with {texts} of the answers. As of {report.today.isoformat()}."


def _plots(report: LoopReport, rows: list[Row]) -> list[Plot]:
    if not report.matrix.asked:
        return []
    plots = [area_plot(rows), competency_plot(report.matrix.competencies)]
    return [*plots, calibration_plot(report.calibration)] if report.calibration.pairs else plots


def _sittings(report: LoopReport) -> Table:
    rows = [
        [
            f"{s.day.isoformat()}, {s.run}" + (" (practice)" if s.practice else ""),
            str(s.answers),
            f"{s.minutes:.0f}" + ("" if s.finished else ", not finished"),
            *(str(n) for n in (s.peeked, s.overtime, s.skipped, s.met_before)),
            "damaged" if s.problems else "whole",
        ]
        for s in report.sittings
    ]
    columns = ["Run", "Answers", "Minutes", "Peeked", "Overtime", "Skipped", "Met before"]
    return Table("How each run was sat", [*columns, "Journal"], rows)


def _staff_table(report: LoopReport) -> Table:
    rows = [
        [group.title, *(report.staff.at(group.name, level.name).words for level in levels())]
        for group in groups()
    ]
    caption = "Answers that reach a level, of those asked at it; what was met before is not counted"
    return Table(caption, ["Group", *(level.name for level in levels())], rows)


def _standing(group: Group, report: LoopReport) -> dict[str, object]:
    """A group, with what its highest level looks like and by which answers it holds; without one,
    what the lowest level asks for."""
    held = report.staff.highest(group.name)
    level = next(level for level in levels() if level.name == (held or levels()[0].name))
    by = report.staff.at(group.name, level.name).by
    names = [f"{evidence.title} ({evidence.at.isoformat()})" for evidence in by[-_MOST_BY:]]
    more = f" and {len(by) - _MOST_BY} more" if len(by) > _MOST_BY else ""
    return {
        "title": f"{group.title}: {held or f'not yet {level.name}'}",
        "looks_like": [level.looks_like[group.name][layer] for layer in LAYERS],
        "by": f"By {'; '.join(names)}{more}." if names else "No answer reaches it yet.",
    }


def _area(row: Row, quoted: bool) -> dict[str, str]:
    """What the picture does not say of an area: how many items, the gap, the best evidence."""
    facts = [f"{row.answers} {plural(row.answers, 'item')}"]
    if row.gap is not None:
        facts.append(f"own {row.gap:+.1f}")
    facts.append(f"at best {row.reached}" if row.reached else "no level reached")
    best = row.best if quoted else None
    quote = f"“{one_line(best.quote.quote, _MOST_EVIDENCE)}”" if best else ""
    dated = f"{quote} {best.title}, {best.at}" if best else ""
    return {"title": row.title, "facts": f"{_scores(row)} ({', '.join(facts)})", "evidence": dated}


def _scores(row: Row) -> str:
    return " / ".join("–" if cell.score is None else f"{cell.score:.1f}" for cell in row.cells)


def _practised(report: LoopReport, published: Published) -> str:
    rows = [row for row in report.practised if row.name not in published.without]
    shown = ", ".join(f"{row.title} {_scores(row)}" for row in rows)
    return f"Practised, counted nowhere: {shown}." if rows else ""


def _change(change: Change) -> str:
    """The counts, and what moved most."""
    moved = "; ".join(step.words for step in change.moved[:_MOST_MOVED])
    return f"{change.words} {moved}." if moved else change.words


def _strong(evidence: Evidence, quoted: bool) -> dict[str, object]:
    scores = ", ".join(f"{LAYER_TITLES[layer]} {evidence.scores[layer]}" for layer in LAYERS)
    return {
        "title": evidence.title,
        "facts": f"{evidence.level}, {', '.join(evidence.areas)}, {evidence.at}: {scores}",
        "quotes": [(q.says, q.quote) for q in evidence.quotes] if quoted else [],
    }


def _revision(entry: Revision, today: date) -> dict[str, object]:
    places = [f"{r.where} {r.symbol}" for r in entry.read[:_MOST_READ]]
    return {
        "title": entry.title,
        "weak": f"{LAYER_TITLES[entry.layer]} {entry.score}",
        "read": f"Reading {', '.join(places)}; " if places else "",
        "due": f"{'due since' if entry.due <= today else 'again on'} {entry.due}",
    }


def _texts(answers: Iterable[GradedAnswer]) -> list[Text]:
    texts = []
    for graded in answers:
        written = (graded.answer.text, *graded.answer.followups)
        whole = "\n\n".join(part for part in written if part.strip())[:_MOST_SHOWN]
        lines = [printable(line) for line in whole.expandtabs(4).splitlines()]
        block = Markup("\n".join(f"    {line}" for line in lines))  # noqa: S704 - indented code
        title = f"{printable(graded.item.title)}, {graded.at.date().isoformat()}"
        if lines:
            texts.append(Text(title, "\n".join(lines), block))
    return texts
