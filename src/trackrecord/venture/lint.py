"""What a sheet owes its reader, checked without simulating anything.

An error is something without which a number or a claim cannot be checked; a warning, something
that a reader should know.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import date

from trackrecord.venture import thesis
from trackrecord.venture.figures import NAMES
from trackrecord.venture.sheet import Assumption, Sheet

OLD_DAYS = 180
"""From when on a price is old."""


@dataclass(frozen=True)
class Problem:
    """A finding; `where` is a key of the sheet."""

    rule: str
    where: str
    text: str
    is_error: bool

    def __str__(self) -> str:
        return f"{'error' if self.is_error else 'warning'}: {self.where}: {self.text}"


def lint(sheet: Sheet, today: date) -> list[Problem]:
    """What is wrong, errors first, each group in the order of the sheet."""
    found = [*_thesis(sheet), *_moats(sheet)]
    for assumption in sheet.assumptions.values():
        found += _assumption(assumption, today)
    return sorted(found, key=lambda problem: not problem.is_error)


def _thesis(sheet: Sheet) -> Iterator[Problem]:
    where = "thesis.text"
    for word in thesis.bare_numbers(sheet.thesis):
        words = f"{word!r} is a number without a derivation: refer to a figure, as {{gross_margin}}"
        yield Problem("bare-number", where, words, True)
    for name in thesis.references(sheet.thesis):
        if name not in NAMES:
            words = f"{{{name}}} names no figure and no assumption"
            yield Problem("unknown-reference", where, words, True)
    if not [line for line in sheet.falsifiers if line.strip()]:
        words = "say what would show that the thesis is wrong"
        yield Problem("no-falsifier", "thesis.falsifiers", words, True)
    for word in thesis.number_words(sheet.thesis):
        words = f"{word!r} reads as a number: refer to a figure instead"
        yield Problem("number-word", where, words, False)
    count = len(sheet.thesis.split())
    if count > thesis.MOST_WORDS:
        words = f"{count} words are more than a page ({thesis.MOST_WORDS})"
        yield Problem("long-thesis", where, words, False)


def _moats(sheet: Sheet) -> Iterator[Problem]:
    for number, moat in enumerate(sheet.moats):
        where = f"moats[{number}]"
        if not moat.falsifier:
            words = "say what would show that this moat does not hold"
            yield Problem("no-falsifier", f"{where}.falsifier", words, True)
        if not moat.evidence:
            words = f"a {moat.kind} moat without evidence is a hope, and is listed as one"
            yield Problem("hope", f"{where}.evidence", words, False)
        if moat.months_until_upstream is None:
            words = "say how long until upstream ships the same"
            yield Problem("no-months", f"{where}.months_until_upstream", words, False)


def _assumption(assumption: Assumption, today: date) -> Iterator[Problem]:
    name = assumption.key.name
    if assumption.key.is_price:
        missing = [key for key in ("date", "source") if not getattr(assumption, key).strip()]
        if missing:
            words = f"a price needs to say {' and '.join(missing)}: when and where it was seen"
            yield Problem("price-unsourced", f"{name}.{missing[0]}", words, True)
    if assumption.example:
        words = "is still the example's value, not yours"
        yield Problem("example", name, words, False)
    if assumption.date:
        age = (today - date.fromisoformat(assumption.date)).days
        if age > OLD_DAYS:
            yield Problem("old", f"{name}.date", f"is {age} days old", False)
        elif age < 0:
            yield Problem("future", f"{name}.date", f"{assumption.date} is yet to come", False)
