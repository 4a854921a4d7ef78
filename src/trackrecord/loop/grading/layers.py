"""From findings to a layer's score, by the rules that every kind of item shares.

A layer is the share of its criteria, by weight, that were found; rules hold it down. A criterion of
weight 0 is shown and not counted.
"""

from __future__ import annotations

from collections.abc import Sequence

from trackrecord.loop.grading.prose import MOST_CHARACTERS
from trackrecord.loop.items import Answer
from trackrecord.loop.marks import PEEK_CAP, Finding, Layer, LayerMark, capped, score_of

Judged = list[tuple[float, Finding]]
"""Criteria with their weights."""
Caps = list[tuple[int, str]]
"""The most that a layer may have, and why."""
_ROUNDING = 1e-9
"""What weights that are fractions may lack of their sum."""


def layer_mark(layer: Layer, judged: Judged, caps: Sequence[tuple[int, str]]) -> LayerMark:
    """The layer's score and what it rests on."""
    total = sum(weight for weight, _ in judged)
    got = sum(weight for weight, finding in judged if finding.verdict == "found")
    score, reasons = capped(score_of(got + _ROUNDING, total), caps)
    return LayerMark(layer, score, tuple(finding for _, finding in judged), reasons)


def peek_caps(answer: Answer) -> Caps:
    """What holds every layer of an answer whose model answer was looked at."""
    return [(PEEK_CAP, "the model answer was looked at")] if answer.peeked else []


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
