"""The three layers of an answer to an incident.

Mechanism: the cause, and that the way to it went from cheap and telling to expensive. Arithmetic:
the invariant that broke, and numbers of the run that show it, each looked at before it was quoted.
Consequence: the first fix that is named is switched on and the workload run again; whether it takes
the fault away or only the symptom, what keeps it away, and what it meant to users.

Rules, not taste: a number that was not stated holds the arithmetic layer at 2; an answer whose
model was looked at is held at 2 in every layer. Nothing is found without the candidate's words.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

from trackrecord.loop.grading.layers import Judged, layer_mark, notes_of, peek_caps
from trackrecord.loop.grading.points import Point, Text, find_point, fits, parse_pattern, read_text
from trackrecord.loop.grading.prose import MOST_CHARACTERS, Sentence
from trackrecord.loop.incidents.case import (
    EXPENSIVE_MINUTES,
    SECTIONS,
    Case,
    Figure,
    Fix,
    load_case,
)
from trackrecord.loop.incidents.item import incident_item
from trackrecord.loop.incidents.run import run_incident
from trackrecord.loop.items import Answer
from trackrecord.loop.marks import UNSHOWN_CAP, Finding, Mark

MOST_WORDS_OF_AN_ORDER = 20
TOLERANCE = 0.02
"""Share of a figure that a stated number may be off, for rounding."""
_NUMBER = re.compile(r"(?<![\w.,])\d+(?:,\d{3})*(?:\.\d+)?(?![\d])")
_HEADINGS = tuple(heading.lower() for heading in SECTIONS)
_HEADING = re.compile(rf"^#{{1,4}}[ \t]*({'|'.join(_HEADINGS)})\b.*$", re.I | re.M)
UNCAUSED_CAP = 1
"""The most that the mechanism can have when the cause is not named, however well one looked."""


@dataclass(frozen=True)
class _Reading:
    """An answer as it is graded."""

    case: Case
    answer: Answer
    text: Text
    parts: dict[str, Text]
    """By heading: what stands under it, the rest blanked, so that places stay what they are."""
    seed: int


def grade_incident(answer: Answer, seed: int = 0) -> Mark:
    """The machine's evidence on an answer to an incident, and the score that follows from it.

    Runs the incident with its fault, and with the fix that the answer names.

    Raises:
        IncidentError: `answer.item` is no incident.
    """
    case = load_case(answer.item.removeprefix("incident:"))
    prompt = incident_item(case.name, seed).prompt
    written = answer.text[:MOST_CHARACTERS]
    parts = {name: read_text(section(written, name), prompt) for name in _HEADINGS}
    read = _Reading(case, answer, read_text(written, prompt), parts, seed)
    caps = peek_caps(answer)
    figures = [(1.0, _figure(read, figure)) for figure in case.figures]
    unshown = [
        (UNSHOWN_CAP, f"not shown: {finding.says}")
        for _, finding in figures
        if finding.verdict != "found"
    ]
    cause = _points(read, "cause", case.cause)
    main = cause[0][1]
    uncaused = [] if main.verdict == "found" else [(UNCAUSED_CAP, f"not named: {main.says}")]
    layers = (
        layer_mark("mechanism", _weighed(cause, 3) + _order(read), caps + uncaused),
        layer_mark(
            "arithmetic",
            _weighed(_points(read, "evidence", case.invariant), 2) + _weighed(figures, 2),
            caps + unshown,
        ),
        layer_mark(
            "consequence",
            _fixing(read)
            + _weighed(_points(read, "how to verify", case.verify), 1)
            + _weighed(_points(read, "cause", case.users), 1),
            caps,
        ),
    )
    return Mark(answer.item, layers, (_walked(case, answer), *notes_of(answer)))


def section(text: str, name: str) -> str:
    """What stands under the heading `name` of an answer, at its place, the rest blanked.

    All of it where there is no heading at all; a heading may come twice, as where somebody left the
    template as it was and wrote below it.
    """
    headings = [*_HEADING.finditer(text)]
    if not headings:
        return text
    ends = [*(match.start() for match in headings[1:]), len(text)]
    kept = " " * len(text)
    for match, end in zip(headings, ends, strict=True):
        if match[1].lower() == name:
            kept = kept[: match.end()] + text[match.end() : end] + kept[end:]
    return kept


def find_fix(case: Case, text: Text) -> tuple[Fix, Finding] | None:
    """The fix that the text names first, and where."""
    text = replace(text, own=tuple(map(_may_name_a_fix, text.sentences, text.own)))
    named = []
    for fix in case.fixes:
        found = [find_point(text, point) for point in fix.points]
        starts = [(finding.start, finding) for finding in found if finding.verdict == "found"]
        if starts:
            start, finding = min(starts, key=lambda each: each[0])
            named.append((start, not fix.root, fix, finding))
    if not named:
        return None
    *_, fix, finding = min(named, key=lambda each: each[:2])
    return fix, finding


def _points(read: _Reading, part: str, points: Sequence[Point]) -> Judged:
    """Looked for under the heading they belong to, and then anywhere.

    What is wrong stands under one heading and how it should be under another: together they would
    read as said and denied.
    """
    judged = []
    for point in points:
        finding = find_point(read.parts[part], point)
        if finding.verdict != "found":
            elsewhere = find_point(read.text, point)
            finding = elsewhere if elsewhere.verdict == "found" else finding
        judged.append((point.weight, finding))
    return judged


def _weighed(judged: Judged, whole: float) -> Judged:
    """The same with weights that add up to `whole`."""
    total = sum(weight for weight, _ in judged) or 1.0
    return [(weight * whole / total, finding) for weight, finding in judged]


# The way to the cause.


def _order(read: _Reading) -> Judged:
    return [(0.5, _telling_first(read)), (0.5, _suspected_early(read))]


def _telling_first(read: _Reading) -> Finding:
    says = "what tells the cause apart was looked at first"
    telling = {look.name for look in read.case.looks if look.informative}
    seen = [action.what for action in read.answer.actions if action.kind == "observe"][:3]
    if not seen:
        return Finding(says, "missing", note="nothing was looked at")
    quote = ", ".join(seen)
    if seen[0] in telling and sum(name in telling for name in seen) >= min(2, len(seen)):
        return Finding(says, "found", quote)
    idle = ", ".join(name for name in seen if name not in telling)
    return Finding(says, "missing", quote, note=f"of the first three, these tell little: {idle}")


def _suspected_early(read: _Reading) -> Finding:
    says = f"a hypothesis was named before anything of {EXPENSIVE_MINUTES:g} minutes or more"
    for action in read.answer.actions:
        if action.kind == "suspect" and action.what.strip():
            return Finding(says, "found", action.what.strip()[:240])
        if read.case.minutes.get(action.what, 0.0) >= EXPENSIVE_MINUTES:
            return Finding(says, "missing", note=f"{action.what} was looked at before")
    return Finding(says, "missing", note="none was named")


# The numbers.


def _figure(read: _Reading, figure: Figure) -> Finding:
    value = run_incident(read.case.name, seed=read.seed).figures[figure.name]
    note = f"of the run: {value:.6g}"
    for sentence, own in zip(read.text.sentences, read.text.own, strict=True):
        copied = not own and sentence.is_prose
        if copied or not _speaks_of(sentence, figure.near):
            continue
        for stated in _numbers(sentence.text):
            if _is_close(stated, figure.name, value):
                quote = " ".join(sentence.text.split())[:240]
                looked = {a.what for a in read.answer.actions if a.kind == "observe"}
                if looked.isdisjoint(figure.views):
                    which = " or ".join(figure.views)
                    unseen = f"{note}; stated without a look at {which}"
                    return Finding(figure.says, "unclear", quote, sentence.start, unseen)
                return Finding(figure.says, "found", quote, sentence.start, note)
    return Finding(figure.says, "missing", note=note)


def _numbers(text: str) -> Iterator[float]:
    for match in _NUMBER.finditer(text):
        yield float(match[0].replace(",", ""))


def _is_close(stated: float, name: str, value: float) -> bool:
    """Whether `stated` is the figure; a percentage may be written as a share too."""
    written = (value, value / 100) if name.endswith("_percent") else (value,)
    return any(abs(stated - each) <= TOLERANCE * abs(each) for each in written)


def _speaks_of(sentence: Sentence, near: str) -> bool:
    """Whether all words of one alternative of `near` stand in the sentence."""
    return any(
        all(any(fits(word, part) for word in sentence.words) for part in phrase.words)
        for phrase in parse_pattern(near)
    )


# The fix.


def _may_name_a_fix(sentence: Sentence, own: bool) -> bool:
    """A fix is often an order of a few words, which is no prose; a row of terms is none."""
    brief = not sentence.is_prose and 4 <= len(sentence.words) <= MOST_WORDS_OF_AN_ORDER
    return own or (brief and len(re.findall(r"[,;|/\n]", sentence.text)) < 2)


def _fixing(read: _Reading) -> Judged:
    works = "the first fix that is named makes the symptom go"
    root = "it takes the fault away, not only its symptom"
    named = find_fix(read.case, read.parts["fix"])
    if named is None:
        note = "none was recognised, so none was run: name what you change"
        return [(1.0, Finding(works, "missing", note=note)), (1.0, Finding(root, "missing"))]
    fix, finding = named
    quote = finding.quote
    before = run_incident(read.case.name, seed=read.seed)
    after = run_incident(read.case.name, fix=fix.name, seed=read.seed)
    said = f"read as: {fix.says}. Before: {before.says}. With it: {after.says}"
    verdict = "found" if not after.symptom else "missing"
    return [
        (1.0, Finding(works, verdict, quote, finding.start, said)),  # type: ignore[arg-type]
        (1.0, Finding(root, "found" if fix.root else "missing", quote, finding.start)),
    ]


def _walked(case: Case, answer: Answer) -> str:
    """How long the way was that was taken, beside the true one."""
    looked = [action.what for action in answer.actions if action.kind == "observe"]
    spent = sum(case.minutes.get(what, 0.0) for what in looked)
    needed = sum(case.minutes[name] for name, _ in case.path)
    return f"observations: {spent:g} min; the true path takes {needed:g} min"
