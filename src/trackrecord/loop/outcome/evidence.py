"""Which answers are evidence, of what, and in which words.

Invariants: a practice run is never evidence of a level; an item counts once, by the last answer to
it; a quotation is the candidate's own words, on one line and with nothing in it that a terminal
would obey.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import date

from mini_vllm.console import printable
from trackrecord.loop.graded import GradedAnswer, GradedRun
from trackrecord.loop.marks import LAYERS, Layer

GOOD = 3
"""The score from which a layer counts as known."""
BESIDE = 2
"""What the other two layers need beside a known mechanism for an answer to reach its level."""
_MOST_QUOTED = 200


@dataclass(frozen=True)
class Quote:
    """The words that a criterion was read from; `says` is the criterion."""

    layer: Layer
    says: str
    quote: str


@dataclass(frozen=True)
class Evidence:
    """An answer, as what is said about a person refers to it. `quotes` has one a layer at most."""

    item: str
    title: str
    run: str
    at: date
    level: str
    areas: tuple[str, ...]
    scores: Mapping[Layer, int]
    quotes: tuple[Quote, ...]


def in_order(runs: Iterable[GradedRun]) -> list[GradedAnswer]:
    """All answers, oldest first."""
    answers = [answer for run in runs for answer in run.answers]
    return sorted(answers, key=lambda answer: (answer.at, answer.run, answer.item.name))


def counted(runs: Iterable[GradedRun]) -> list[GradedAnswer]:
    """The answers that were not practice, oldest first."""
    return in_order(run for run in runs if not run.practice)


def latest(answers: Iterable[GradedAnswer]) -> list[GradedAnswer]:
    """Of answers in order, the last to each item: who learnt something is not held to what they
    said before."""
    last: dict[str, GradedAnswer] = {}
    for answer in answers:
        last.pop(answer.item.name, None)
        last[answer.item.name] = answer
    return list(last.values())


def first_sights(runs: Iterable[GradedRun]) -> set[tuple[str, str]]:
    """(run, item) where an item was met for the first time, practice included: whoever meets it
    again may have read its model answer."""
    first: dict[str, str] = {}
    for answer in in_order(runs):
        first.setdefault(answer.item.name, answer.run)
    return {(run, item) for item, run in first.items()}


def lowest(graded: GradedAnswer) -> tuple[int, Layer]:
    """The lowest score of an answer, and the (first) layer that has it."""
    scores = graded.mark.scores
    layer = min(LAYERS, key=lambda name: scores[name])
    return scores[layer], layer


def is_weak(graded: GradedAnswer) -> bool:
    """Whether an answer is to be worked on: some layer of it is not known."""
    return lowest(graded)[0] < GOOD


def reaches(graded: GradedAnswer) -> bool:
    """Whether an answer is as good as its item's level asks: mechanism at 3 or better, the other
    layers at 2 or better, in time and without the model answer."""
    scores, answer = graded.mark.scores, graded.answer
    good = scores["mechanism"] >= GOOD and min(scores.values()) >= BESIDE
    return good and not (answer.peeked or answer.overtime or answer.skipped)


def evidence_of(graded: GradedAnswer) -> Evidence:
    """What is shown of an answer where it stands as evidence."""
    return Evidence(
        item=graded.item.name,
        title=printable(graded.item.title),
        run=graded.run,
        at=graded.at.date(),
        level=graded.level,
        areas=tuple(area.title for area in graded.areas),
        scores=graded.mark.scores,
        quotes=tuple(q for q in (best_quote(graded, layer) for layer in LAYERS) if q),
    )


def best_quote(graded: GradedAnswer, layer: Layer) -> Quote | None:
    """The longest quotation of what was found in a layer, if anything was."""
    mark = graded.mark.layers[LAYERS.index(layer)]
    found = [finding for finding in mark.findings if finding.verdict == "found"]
    if not found:
        return None
    best = max(found, key=lambda finding: len(finding.quote))
    return Quote(layer, one_line(best.says), one_line(best.quote))


def one_line(text: str, most: int = _MOST_QUOTED) -> str:
    """`text` on one line of at most `most` characters, cut between words where that is possible."""
    line = printable(" ".join(text[: 8 * most].split()))
    if len(line) <= most:
        return line
    cut = line[: most - 1]
    space = cut.rfind(" ")
    return (cut[:space] if space > most // 2 else cut) + "…"


def mean(values: Sequence[float]) -> float | None:
    """The mean, or None of nothing."""
    return sum(values) / len(values) if values else None
