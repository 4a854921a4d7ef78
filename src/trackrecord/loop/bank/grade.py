"""The mark of an answer to a question of the bank.

Rules, not taste: a layer is the share of its points and quantities that were found, and 4 only for
all of them. A number that was asked for and is not stated holds the arithmetic layer at 2; a stated
number that is wrong, or arithmetic that does not come out, at 1; a known mistake holds its layer at
3; an answer whose model was looked at is held at 2 in every layer.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from trackrecord.loop.bank.question import Expected, Question
from trackrecord.loop.grading.points import Point, Text, find_point, read_text
from trackrecord.loop.grading.prose import MOST_CHARACTERS
from trackrecord.loop.items import Answer
from trackrecord.loop.marks import (
    LAYERS,
    MISTAKEN_CAP,
    PEEK_CAP,
    UNSHOWN_CAP,
    WRONG_CAP,
    Finding,
    Layer,
    LayerMark,
    Mark,
    capped,
    score_of,
)
from trackrecord.loop.quantities.reading import (
    Equation,
    Stated,
    compare,
    read_equations,
    read_quantities,
)

_CONTEXT = 120
"""Characters around a number in which its unit's nouns may stand."""

_MOST_MEANT = 3
"""Numbers that may be meant for a quantity which none of them is, up to which that is a mistake."""


@dataclass(frozen=True)
class Numbers:
    """The numbers of an answer, and the calculations that they stand in."""

    text: str
    stated: tuple[Stated, ...]
    equations: tuple[Equation, ...]


def grade_question(question: Question, answer: Answer) -> Mark:
    """The machine's evidence on an answer, and the score that follows from it."""
    main = read_text(answer.text, copied_from=question.ask)
    followups = [
        (entry, read_text(text, copied_from=f"{entry.ask}\n{question.ask}"))
        for entry, text in zip(question.followups, answer.followups, strict=False)
    ]
    layers = []
    for layer in LAYERS:
        judged = _judged(main, question.layers[layer].points)
        for entry, text in followups:
            if entry.layer == layer:
                judged += _judged(text, entry.points)
        caps: list[tuple[int, str]] = [(PEEK_CAP, "the model answer was looked at")]
        caps = caps if answer.peeked else []
        extra: list[Finding] = []
        if layer == "arithmetic":
            numbers = read_numbers(answer.text)
            found, extra, number_caps = grade_quantities(question, numbers)
            judged = _with_shown(question, judged, numbers)
            judged += [(1.0, finding) for finding in found]
            caps += number_caps
        mistakes = _mistakes(question, layer, main)
        if mistakes:
            caps.append((MISTAKEN_CAP, f"resembles a known mistake: {mistakes[0].says}"))
        total = sum(weight for weight, _ in judged)
        got = sum(weight for weight, finding in judged if finding.verdict == "found")
        score, reasons = capped(score_of(got, total), caps)
        findings = (*(finding for _, finding in judged), *extra, *mistakes)
        layers.append(LayerMark(layer, score, findings, reasons))
    return Mark(question.name, tuple(layers), tuple(notes_of(answer)))


def notes_of(answer: Answer) -> list[str]:
    """What is said of an answer as a whole."""
    notes = []
    if answer.peeked:
        notes.append(f"the model answer was looked at: no layer is above {PEEK_CAP}")
    if answer.skipped:
        notes.append("skipped")
    if answer.overtime:
        notes.append("part of it was written after the time was up")
    if len(answer.text) > MOST_CHARACTERS:
        notes.append(f"only the first {MOST_CHARACTERS:,} characters were read")
    return notes


def read_numbers(text: str) -> Numbers:
    """The numbers of an answer."""
    text = text[:MOST_CHARACTERS]
    return Numbers(text, tuple(read_quantities(text)), tuple(read_equations(text)))


def _with_shown(
    question: Question, judged: list[tuple[float, Finding]], numbers: Numbers
) -> list[tuple[float, Finding]]:
    """The arithmetic layer's findings, with the points that a calculation makes."""
    points = {point.says: point for point in question.layers["arithmetic"].points}
    entries = {entry.name: entry for entry in question.quantities}
    found = []
    for weight, finding in judged:
        point = points.get(finding.says)
        if finding.verdict not in ("found", "opposite") and point is not None:
            shown = (entries[name] for name in point.shown_by)
            lines = (line for entry in shown if (line := _calculated(entry, numbers)))
            if line := next(lines, None):
                finding = Finding(finding.says, "found", line.text, line.start)
        found.append((weight, finding))
    return found


def _calculated(entry: Expected, numbers: Numbers) -> Equation | None:
    """The calculation that comes to a quantity."""
    for equation in numbers.equations:
        if equation.holds:
            for stated in numbers.stated:
                if stated.end == equation.end and _compared(stated, entry, numbers) == "right":
                    return equation
    return None


def grade_quantities(
    question: Question, numbers: Numbers
) -> tuple[list[Finding], list[Finding], list[tuple[int, str]]]:
    """(findings on the quantities that were asked for, on others that are wrong, caps)."""
    asked, others, caps = [], [], []
    right = {
        entry.name: stated
        for entry in question.quantities
        if (stated := _right(entry, numbers)) is not None
    }
    explained = _explained(question, numbers)
    for entry in question.quantities:
        finding = _finding(entry, right.get(entry.name), numbers, explained)
        if finding.verdict == "wrong":
            caps.append((WRONG_CAP, f"a number is wrong: {entry.says}"))
        elif finding.verdict != "found" and entry.asked:
            caps.append((UNSHOWN_CAP, f"asked for and not stated: {entry.says}"))
        if entry.asked:
            asked.append(finding)
        elif finding.verdict == "wrong":
            others.append(finding)
    for equation in numbers.equations:
        if not equation.holds:
            note = "the arithmetic does not come out"
            others.append(Finding("arithmetic", "wrong", equation.text, equation.start, note))
            caps.append((WRONG_CAP, f"does not come out: {equation.text}"))
    return asked, others, caps


def _judged(text: Text, points: Sequence[Point]) -> list[tuple[float, Finding]]:
    return [(point.weight, find_point(text, point)) for point in points]


def _mistakes(question: Question, layer: Layer, text: Text) -> list[Finding]:
    found = []
    for mistake in question.wrong:
        if mistake.layer != layer:
            continue
        finding = find_point(text, mistake.point)
        if finding.verdict == "found":
            words = mistake.point.says
            found.append(Finding(words, "wrong", finding.quote, finding.start, mistake.because))
    return found


def _right(entry: Expected, numbers: Numbers) -> Stated | None:
    for stated in numbers.stated:
        if _compared(stated, entry, numbers) == "right":
            return stated
    return None


def _compared(stated: Stated, entry: Expected, numbers: Numbers) -> str:
    context = numbers.text[max(0, stated.start - _CONTEXT) : stated.end + _CONTEXT]
    return compare(stated, entry.measure, entry.tolerance, context)


def _explained(question: Question, numbers: Numbers) -> set[int]:
    """Indices of the stated numbers that are right for some quantity, stand in the question, or are
    part of arithmetic that comes out: none of them can be a wrong version of another quantity."""
    given = read_quantities(question.ask)
    holding = [(e.start, e.end) for e in numbers.equations if e.holds]
    found = set()
    for n, stated in enumerate(numbers.stated):
        if (
            any(_compared(stated, entry, numbers) == "right" for entry in question.quantities)
            or any(compare(stated, other.measure, 0.001) == "right" for other in given)
            or any(start <= stated.start and stated.end <= end for start, end in holding)
        ):
            found.add(n)
    return found


def _finding(
    entry: Expected, right: Stated | None, numbers: Numbers, explained: set[int]
) -> Finding:
    """What became of a quantity. It is wrong if one to three numbers of the answer can be meant;
    among more the machine cannot tell. Numbers in words are mostly turns of phrase, and one that
    was not asked for is not sought among bare numbers."""
    note = f"computed: {entry.shown}"
    if right is not None:
        return Finding(entry.says, "found", right.text, right.start, note)
    meant = []
    for n, stated in enumerate(numbers.stated):
        in_digits = any(letter.isdigit() for letter in stated.text)
        if n in explained or not in_digits or not (stated.has_unit or entry.asked):
            continue
        verdict = _compared(stated, entry, numbers)
        if verdict in ("wrong value", "wrong unit"):
            meant.append((stated, verdict))
    if 0 < len(meant) <= _MOST_MEANT:
        stated, verdict = max(meant, key=lambda pair: pair[1] == "wrong value")
        words = f"the unit is wrong; {note}" if verdict == "wrong unit" else note
        return Finding(entry.says, "wrong", stated.text, stated.start, words)
    if meant and entry.asked:
        named = ", ".join(stated.text for stated, _ in meant[:4])
        return Finding(entry.says, "unclear", note=f"none of {named} is it; {note}")
    return Finding(entry.says, "missing", note=note if entry.asked else "")
