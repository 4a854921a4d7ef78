"""Spaced repetition: when a weak item is due again.

An item gets a card with the first answer that is weak (its lowest layer is under 3), and every
later answer to it, practice included, is a review. The rating is read from the mark: `Again` if the
model answer was looked at, the item was skipped, or a layer has 0 or 1; `Hard` for a lowest layer
of 2, `Good` for 3, `Easy` for full marks in all three. Intervals are those of FSRS 6 with its
published parameters, for a recall of 90 % (package `fsrs`); its learning steps of minutes are left
out, since an item takes a session.

Invariant: a card's state is a function of the runs; with fuzzing off, the same runs give the same
dates. Days are days in UTC.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, date

import fsrs

from mini_vllm.console import printable
from trackrecord.loop.graded import GradedAnswer, GradedRun
from trackrecord.loop.marks import FULL
from trackrecord.loop.outcome.evidence import BESIDE, GOOD, in_order, is_weak, lowest

_SCHEDULER = fsrs.Scheduler(learning_steps=(), relearning_steps=(), enable_fuzzing=False)


@dataclass(frozen=True)
class Card:
    """An item that was weak once.

    Args:
        redo: the command that practises it.
        due: the day on which it should be answered again.
        reviews: how often it was answered since it was first weak, that time included.
        stability: days until the chance to recall it has fallen to 90 %.
    """

    item: str
    title: str
    redo: str
    due: date
    last: date
    reviews: int
    stability: float


def cards(runs: Iterable[GradedRun]) -> list[Card]:
    """Every card, by the day it is due."""
    states: dict[str, fsrs.Card] = {}
    made: dict[str, Card] = {}
    for graded in in_order(runs):
        name = graded.item.name
        if name not in states and not is_weak(graded):
            continue
        state = states.get(name) or fsrs.Card(card_id=len(states))
        at = graded.at.astimezone(UTC)
        states[name], _ = _SCHEDULER.review_card(state, rating_of(graded), at)
        reviews = made[name].reviews + 1 if name in made else 1
        made[name] = _card(graded, states[name], reviews)
    return sorted(made.values(), key=lambda card: (card.due, card.item))


def due(runs: Iterable[GradedRun], today: date) -> list[Card]:
    """The cards to answer again by the end of `today`, the longest due first."""
    return [card for card in cards(runs) if card.due <= today]


def rating_of(graded: GradedAnswer) -> fsrs.Rating:
    """How well an answer shows that its item is remembered."""
    low, _ = lowest(graded)
    if graded.answer.peeked or graded.answer.skipped or low < BESIDE:
        return fsrs.Rating.Again
    if low < GOOD:
        return fsrs.Rating.Hard
    return fsrs.Rating.Easy if low == FULL else fsrs.Rating.Good


def _card(graded: GradedAnswer, state: fsrs.Card, reviews: int) -> Card:
    return Card(
        item=graded.item.name,
        title=printable(graded.item.title),
        redo=graded.redo,
        due=state.due.date(),
        last=graded.at.astimezone(UTC).date(),
        reviews=reviews,
        stability=round(state.stability or 0.0, 2),
    )
