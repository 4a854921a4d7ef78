"""The mark of an answer to a question of the bank.

Rules, not taste: a layer is the share of its points and quantities that were found, and 4 only for
all of them. A number that was asked for and is not stated holds the arithmetic layer at 2; a stated
number that is wrong, or arithmetic that does not come out, at 1; a known mistake holds its layer at
3; an answer whose model was looked at is held at 2 in every layer.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from trackrecord.loop.bank.question import Expected, Question
from trackrecord.loop.grading.layers import Caps, Judged, layer_mark, notes_of, peek_caps
from trackrecord.loop.grading.points import Point, Text, find_point, read_text
from trackrecord.loop.grading.prose import MOST_CHARACTERS
from trackrecord.loop.items import Answer
from trackrecord.loop.marks import (
    LAYERS,
    MISTAKEN_CAP,
    UNSHOWN_CAP,
    WRONG_CAP,
    Finding,
    Layer,
    Mark,
)
from trackrecord.loop.quantities.reading import (
    Equation,
    Stated,
    Verdict,
    compare,
    read_equations,
    read_quantities,
)

_CONTEXT = 120
"""Characters around a number in which its unit's nouns may stand."""

_MOST_MEANT = 3
"""Numbers that may be meant for a quantity which none of them is, up to which that is a mistake."""


@dataclass(frozen=True)
class _Numbers:
    """The numbers of an answer, beside each quantity of its question.

    Args:
        verdicts: by quantity, what each stated number is to it.
        explained: indices of the stated numbers that are right for some quantity, stand in the
            question, or are part of arithmetic that comes out: none of them can be a wrong version
            of another quantity.
    """

    stated: tuple[Stated, ...]
    equations: tuple[Equation, ...]
    verdicts: Mapping[str, tuple[Verdict, ...]]
    explained: frozenset[int]

    def right(self, entry: Expected) -> Stated | None:
        """The first number that is the quantity."""
        found = zip(self.stated, self.verdicts[entry.name], strict=True)
        return next((stated for stated, verdict in found if verdict == "right"), None)


def grade_question(question: Question, answer: Answer) -> Mark:
    """The machine's evidence on an answer, and the score that follows from it."""
    main = read_text(answer.text, copied_from=question.ask)
    followups = [
        (entry, read_text(text, copied_from=f"{entry.ask}\n{question.ask}"))
        for entry, text in zip(question.followups, answer.followups, strict=False)
    ]
    layers = []
    for layer in LAYERS:
        points = question.layers[layer].points
        judged = _judged(main, points)
        stated: Judged = []
        caps = peek_caps(answer)
        if layer == "arithmetic":
            numbers = _read_numbers(question, answer.text)
            judged = _with_shown(question, points, judged, numbers)
            stated, number_caps = _quantities(question, numbers)
            caps += number_caps
        for entry, text in followups:
            if entry.layer == layer:
                judged += _judged(text, entry.points)
        mistakes = _mistakes(question, layer, main)
        if mistakes:
            caps.append((MISTAKEN_CAP, f"resembles a known mistake: {mistakes[0].says}"))
        shown = [(0.0, mistake) for mistake in mistakes]
        layers.append(layer_mark(layer, [*judged, *stated, *shown], caps))
    return Mark(question.name, tuple(layers), tuple(notes_of(answer)))


def _read_numbers(question: Question, text: str) -> _Numbers:
    text = text[:MOST_CHARACTERS]
    stated, equations = tuple(read_quantities(text)), tuple(read_equations(text))
    around = [text[max(0, s.start - _CONTEXT) : s.end + _CONTEXT] for s in stated]
    verdicts = {
        entry.name: tuple(
            compare(each, entry.measure, entry.tolerance, context)
            for each, context in zip(stated, around, strict=True)
        )
        for entry in question.quantities
    }
    given = read_quantities(question.ask)
    holding = [(e.start, e.end) for e in equations if e.holds]
    explained = frozenset(
        n
        for n, each in enumerate(stated)
        if any(found[n] == "right" for found in verdicts.values())
        or any(compare(each, other.measure, 0.001) == "right" for other in given)
        or any(start <= each.start and each.end <= end for start, end in holding)
    )
    return _Numbers(stated, equations, verdicts, explained)


def _with_shown(
    question: Question, points: Sequence[Point], judged: Judged, numbers: _Numbers
) -> Judged:
    """The findings on the arithmetic layer's points, with those that a calculation makes."""
    entries = {entry.name: entry for entry in question.quantities}
    found = []
    for point, (weight, finding) in zip(points, judged, strict=True):
        if finding.verdict not in ("found", "opposite"):
            lines = (_calculated(entries[name], numbers) for name in point.shown_by)
            if line := next(filter(None, lines), None):
                finding = Finding(finding.says, "found", line.text, line.start)
        found.append((weight, finding))
    return found


def _calculated(entry: Expected, numbers: _Numbers) -> Equation | None:
    """The calculation that comes to a quantity."""
    pairs = zip(numbers.stated, numbers.verdicts[entry.name], strict=True)
    ends = {stated.end for stated, verdict in pairs if verdict == "right"}
    return next((e for e in numbers.equations if e.holds and e.end in ends), None)


def _quantities(question: Question, numbers: _Numbers) -> tuple[Judged, Caps]:
    """What became of each quantity and calculation: what was asked for counts, the rest shows."""
    asked: Judged = []
    others: Judged = []
    caps: Caps = []
    for entry in question.quantities:
        finding = _finding(entry, numbers)
        if finding.verdict == "wrong":
            caps.append((WRONG_CAP, f"a number is wrong: {entry.says}"))
        elif finding.verdict != "found" and entry.asked:
            caps.append((UNSHOWN_CAP, f"asked for and not stated: {entry.says}"))
        if entry.asked:
            asked.append((1.0, finding))
        elif finding.verdict == "wrong":
            others.append((0.0, finding))
    for equation in numbers.equations:
        if not equation.holds:
            note = "the arithmetic does not come out"
            line = Finding("arithmetic", "wrong", equation.text, equation.start, note)
            others.append((0.0, line))
            caps.append((WRONG_CAP, f"does not come out: {equation.text}"))
    return [*asked, *others], caps


def _judged(text: Text, points: Sequence[Point]) -> Judged:
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


def _finding(entry: Expected, numbers: _Numbers) -> Finding:
    """What became of a quantity. It is wrong if one to three numbers of the answer can be meant;
    among more the machine cannot tell. Numbers in words are mostly turns of phrase, and one that
    was not asked for is not sought among bare numbers."""
    note = f"computed: {entry.shown}"
    if right := numbers.right(entry):
        return Finding(entry.says, "found", right.text, right.start, note)
    meant = [
        (stated, verdict)
        for n, (stated, verdict) in enumerate(
            zip(numbers.stated, numbers.verdicts[entry.name], strict=True)
        )
        if n not in numbers.explained
        and verdict in ("wrong value", "wrong unit")
        and any(letter.isdigit() for letter in stated.text)
        and (stated.has_unit or entry.asked)
    ]
    if 0 < len(meant) <= _MOST_MEANT:
        stated, verdict = max(meant, key=lambda pair: pair[1] == "wrong value")
        words = f"the unit is wrong; {note}" if verdict == "wrong unit" else note
        return Finding(entry.says, "wrong", stated.text, stated.start, words)
    if meant and entry.asked:
        named = ", ".join(stated.text for stated, _ in meant[:4])
        return Finding(entry.says, "unclear", note=f"none of {named} is it; {note}")
    return Finding(entry.says, "missing", note=note if entry.asked else "")
