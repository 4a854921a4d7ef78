"""What a seed asks, and in how many minutes."""

from __future__ import annotations

from dataclasses import replace

import pytest
from small_loop import CATALOGUE

from trackrecord.loop.session import SessionError
from trackrecord.loop.session.plan import make_plan


def areas(session):
    return sorted(int(name.partition(":")[2][:2]) for name in session.items)


def test_the_four_sessions_ask_what_they_are_for_in_the_time_they_have():
    plan = make_plan(CATALOGUE, 7)
    rapid, deep, design, debugging = plan.sessions
    assert [s.minutes for s in plan.sessions] == [30, 45, 60, 30]
    assert areas(rapid) == [0, 0, 1, 1, 2, 2, 3, 3]
    assert areas(deep) == [4, 5, 6, 7, 8]
    assert (rapid.followups, deep.followups) == (False, True)
    assert len(design.items) == 1
    assert len(set(debugging.items)) == 2
    assert not plan.practice


def test_a_seed_gives_the_same_whatever_else_is_sat_and_however_names_are_listed():
    other = replace(
        CATALOGUE, questions={n: names[::-1] for n, names in CATALOGUE.questions.items()}
    )
    assert make_plan(CATALOGUE, 7) == make_plan(other, 7)
    assert make_plan(CATALOGUE, 7, (4, 2)).sessions == make_plan(CATALOGUE, 7).sessions[1::2]
    assert make_plan(CATALOGUE, 7) != make_plan(CATALOGUE, 8)


def test_practice_asks_one_area_and_is_marked():
    rapid, deep = make_plan(CATALOGUE, 7, only=2), make_plan(CATALOGUE, 7, only=19)
    assert rapid.practice
    assert deep.practice
    assert set(areas(rapid.sessions[0])) == {2}
    assert (len(rapid.sessions[0].items), rapid.sessions[0].minutes) == (8, 30)
    assert (len(deep.sessions[0].items), deep.sessions[0].minutes) == (8, 72)


@pytest.mark.parametrize(
    ("items", "minutes", "followups"),
    [
        (["question:00/a", "question:03/b", "question:00/a"], 7.5, False),
        (["question:00/a", "question:12/b"], 18, True),
        (["incident:leak", "design:small"], 75, True),
        ([f"question:12/{x}" for x in "abcdefghij"], 72, True),
    ],
)
def test_chosen_items_are_practice_with_the_time_of_their_kind(items, minutes, followups):
    plan = make_plan(CATALOGUE, 7, items=items)
    (session,) = plan.sessions
    assert plan.practice
    assert session.items == tuple(dict.fromkeys(items))[:8]
    assert (session.minutes, session.followups) == (minutes, followups)


@pytest.mark.parametrize(
    ("catalogue", "words", "said"),
    [
        (CATALOGUE, {"numbers": (5,)}, "no session 5"),
        (CATALOGUE, {"only": 20}, "no area 20"),
        (CATALOGUE, {"items": ["design:none"]}, "no item 'design:none'"),
        (CATALOGUE, {"seed": -1}, "not a seed: -1"),
        (replace(CATALOGUE, incidents=["incident:leak"]), {}, "too few incidents: 2 wanted, 1"),
        (replace(CATALOGUE, questions={}), {"only": 3}, "too few questions of area 3"),
    ],
)
def test_what_cannot_be_asked_is_said(catalogue, words, said):
    with pytest.raises(SessionError, match=said):
        make_plan(catalogue, **({"seed": 7} | words))
