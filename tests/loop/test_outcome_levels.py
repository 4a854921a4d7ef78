"""Where a person stands, and which areas they have passed."""

from __future__ import annotations

import pytest

from loop.graded_runs import graded, sat, whole_loop
from trackrecord.loop.areas import LEVELS, competencies
from trackrecord.loop.graded import GradedAnswer
from trackrecord.loop.marks import LAYERS
from trackrecord.loop.outcome.levels import groups, levels, staff_map
from trackrecord.loop.outcome.passed import passed_areas

EVERY_GROUP = ("sizing", "memory", "operations", "tradeoffs")


def answers(n: int, level: str, scores: tuple[int, int, int] = (3, 2, 2)) -> list[GradedAnswer]:
    """`n` answers over as many areas as there are, each about every group."""
    return [
        graded(f"{level}-{k}-{scores[0]}", scores, areas=(k % 20,), competencies=EVERY_GROUP,
               level=level)
        for k in range(n)
    ]  # fmt: skip


def test_every_competency_is_in_one_group_and_every_level_describes_every_layer() -> None:
    named = [slug for group in groups() for slug in group.competencies]
    assert sorted(named) == sorted(competencies())
    assert tuple(level.name for level in levels()) == LEVELS
    described = [
        level.looks_like[group.name][layer]
        for level in levels()
        for group in groups()
        for layer in LAYERS
    ]
    assert len(set(described)) == 36


def test_eight_good_senior_answers_stand_at_senior() -> None:
    found = staff_map([sat("a", *answers(8, "senior"))])
    assert found.level == "senior"
    assert found.words.startswith("Stands at senior, by 8 answers in 8 of 20 areas")
    assert found.at("state", "senior").words == "holds: 8 of 8"
    assert found.at("state", "staff").words == "not asked"
    assert len(found.at("state", "senior").by) == 8


@pytest.mark.parametrize("scores", [(2, 4, 4), (4, 1, 4), (4, 4, 1)])
def test_an_answer_reaches_its_level_by_mechanism_and_something_of_the_rest(
    scores: tuple[int, int, int],
) -> None:
    assert staff_map([sat("a", *answers(8, "senior", scores))]).level == ""


@pytest.mark.parametrize("how", ["peeked", "overtime", "skipped"])
def test_what_was_peeked_at_late_or_skipped_reaches_nothing(how: str) -> None:
    late = [graded(f"x{k}", (4, 4, 4), areas=(k,), **{how: True}) for k in range(8)]  # type: ignore[arg-type]
    standing = staff_map([sat("a", *late)]).at("state", "senior")
    assert (standing.reached, standing.asked, standing.verdict) == (0, 8, "not yet")


def test_answers_at_a_higher_level_count_at_the_lower_ones_and_failing_them_does_not() -> None:
    good, bad = answers(8, "staff"), answers(9, "principal", (0, 0, 0))
    found = staff_map([sat("a", *good, *bad)])
    assert found.level == "staff"
    assert found.at("running", "senior").words == "holds: 8 of 8"
    assert found.at("running", "principal").words == "not yet: 0 of 9"


def test_a_level_takes_two_thirds_of_what_was_asked() -> None:
    good, bad = answers(6, "senior"), answers(4, "senior", (0, 0, 0))
    assert staff_map([sat("a", *good, *bad[:3])]).level == "senior"
    assert staff_map([sat("a", *good, *bad)]).level == ""


def test_a_level_holds_only_on_top_of_the_one_below() -> None:
    found = staff_map([sat("a", *answers(6, "staff"), *answers(6, "senior", (0, 0, 0)))])
    assert found.at("state", "staff").verdict == "not yet"
    assert found.level == ""


@pytest.mark.parametrize("n", [0, 1, 2, 7])
def test_with_few_answers_it_says_that_they_say_little(n: int) -> None:
    found = staff_map([sat("a", *answers(n, "senior"))])
    assert found.level == ""
    assert found.words.startswith(f"Too little to say: {n} answer")


def test_many_answers_in_few_areas_say_little_too() -> None:
    same = [graded(f"x{k}", (4, 4, 4), competencies=EVERY_GROUP) for k in range(20)]
    found = staff_map([sat("a", *same)])
    assert found.level == ""
    assert "20 answers in 1 of 20 areas say little" in found.words


def test_practice_is_no_evidence_of_a_level() -> None:
    assert staff_map([sat("a", *answers(12, "senior"), practice=True)]).answers == 0


def test_sitting_the_same_items_again_adds_nothing() -> None:
    first = sat("a", *answers(8, "senior", (1, 1, 1)))
    again = sat("b", *answers(8, "senior", (1, 1, 1)), day=1)
    better = [graded(a.item.name.removeprefix("question:"), (4, 4, 4)) for a in first.answers]
    met = sat("c", *better, day=2)
    assert staff_map([first, again, met]).at("state", "senior").reached == 0
    # ... and leaving out the run in which they were met does not make them new.
    assert staff_map([met], known=[first, met]).answers == 0


def test_a_whole_loop_can_be_placed() -> None:
    found = staff_map([sat("a", *whole_loop())])
    assert found.is_enough
    assert found.level == "senior"


def test_an_area_is_passed_by_two_answers_with_a_known_mechanism() -> None:
    pair = [graded("03/x", (4, 0, 0), areas=(3,)), graded("03/y", (2, 4, 4), areas=(3,))]
    assert passed_areas([sat("a", *pair)]) == ("scheduler",)
    assert passed_areas([sat("a", pair[0])]) == ()


def test_the_same_item_twice_is_one_answer() -> None:
    once = graded("03/x", (4, 4, 4), areas=(3,))
    assert passed_areas([sat("a", once), sat("b", once, day=1)]) == ()


def test_every_area_of_the_loop_that_was_asked_must_be_good() -> None:
    kv = [graded("02/x", (4, 4, 4)), graded("02/y", (4, 4, 4))]
    assert passed_areas([sat("a", *kv)]) == ("kv-cache",)
    weak = graded("08/x", (1, 4, 4), areas=(8,))
    assert passed_areas([sat("a", *kv, weak)]) == ()


def test_practice_passes_nothing() -> None:
    kv = [graded("02/x", (4, 4, 4)), graded("02/y", (4, 4, 4))]
    assert passed_areas([sat("a", *kv, practice=True)]) == ()


def test_contribution_passes_what_goes_with_it() -> None:
    both = [graded("19/x", (3, 3, 3), areas=(19,)), graded("19/y", (3, 3, 3), areas=(19,))]
    assert passed_areas([sat("a", *both)]) == ("contributing", "ci", "design-docs")
