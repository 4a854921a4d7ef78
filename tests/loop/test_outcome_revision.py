"""What to work on, and when."""

from __future__ import annotations

from datetime import date, timedelta

import fsrs
import pytest

from loop.graded_runs import FIRST_DAY, graded, sat
from trackrecord.loop.outcome.cards import cards, due, rating_of
from trackrecord.loop.outcome.revision import revision_list

TODAY = FIRST_DAY.date()


@pytest.mark.parametrize(
    ("scores", "how", "rating"),
    [
        ((4, 4, 1), {}, fsrs.Rating.Again),
        ((4, 4, 2), {}, fsrs.Rating.Hard),
        ((4, 3, 4), {}, fsrs.Rating.Good),
        ((4, 4, 4), {}, fsrs.Rating.Easy),
        ((2, 2, 2), {"peeked": True}, fsrs.Rating.Again),
        ((4, 4, 4), {"skipped": True}, fsrs.Rating.Again),
    ],
)
def test_the_rating_follows_the_lowest_layer(
    scores: tuple[int, int, int], how: dict[str, bool], rating: fsrs.Rating
) -> None:
    assert rating_of(graded("02/x", scores, **how)) == rating  # type: ignore[arg-type]


def test_only_a_weak_item_gets_a_card() -> None:
    found = cards([sat("a", graded("02/x", (3, 3, 3)), graded("02/y", (4, 4, 2)))])
    assert [card.item for card in found] == ["question:02/y"]


def test_a_card_is_due_tomorrow_at_the_earliest_and_by_then() -> None:
    runs = [sat("a", graded("02/x", (0, 0, 0)))]
    assert due(runs, TODAY) == []
    assert [card.due for card in due(runs, TODAY + timedelta(days=1))] == [date(2026, 7, 2)]


def test_a_good_answer_puts_the_card_off_and_a_bad_one_brings_it_back() -> None:
    weak = sat("a", graded("02/x", (2, 2, 2)))
    good = sat("b", graded("02/x", (4, 4, 4)), day=4, practice=True)
    bad = sat("c", graded("02/x", (0, 1, 1)), day=30)
    (first,), (second,), (third,) = cards([weak]), cards([weak, good]), cards([weak, good, bad])
    assert second.due - second.last > first.due - first.last
    assert third.due - third.last < second.due - second.last
    assert [first.reviews, second.reviews, third.reviews] == [1, 2, 3]


def test_cards_are_a_function_of_the_runs_in_any_order() -> None:
    runs = [sat(f"r{n}", graded("02/x", (n % 4, 2, 2)), day=3 * n) for n in range(6)]
    assert cards(runs) == cards(runs) == cards(runs[::-1])


def test_the_intervals_are_those_of_fsrs() -> None:
    """A first `Hard` has the published stability w1 of 1.2931 days."""
    (card,) = cards([sat("a", graded("02/x", (2, 2, 2)))])
    assert card.stability == 1.29


def test_two_answers_at_one_moment_and_a_clock_set_back_are_taken() -> None:
    runs = [sat("a", graded("02/x", (1, 1, 1))), sat("b", graded("02/x", (1, 1, 1)))]
    assert cards(runs)[0].reviews == 2
    assert cards([sat("c", graded("02/x", (1, 1, 1)), day=-400), *runs])[0].reviews == 3


def test_the_weakest_comes_first_with_what_to_read_and_redo_and_when() -> None:
    run = sat(
        "a",
        graded("02/x", (3, 2, 4)),
        graded("03/y", (1, 4, 4), areas=(3,)),
        graded("02/z", (1, 1, 4)),
        graded("02/fine", (3, 3, 3)),
    )
    found = revision_list([run])
    assert [entry.item[9:] for entry in found] == ["02/z", "03/y", "02/x"]
    entry = found[1]
    assert (entry.layer, entry.score, entry.missing) == ("mechanism", 1, "what mechanism lacks")
    assert entry.read[0].where == "vllm/v1/core/block_pool.py:130"
    assert entry.read[0].look_for == "who raises a reference count"
    assert entry.redo == "trackrecord loop start --only 3"
    assert entry.due == date(2026, 7, 2)


def test_what_was_made_good_in_practice_leaves_the_list() -> None:
    weak = sat("a", graded("02/x", (1, 1, 1)))
    assert revision_list([weak])
    assert revision_list([weak, sat("p", graded("02/x", (3, 3, 3)), day=1, practice=True)]) == ()
