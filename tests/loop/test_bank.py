"""The bank keeps its promises: every question, against answers whose worth is known."""

from __future__ import annotations

from collections import Counter
from functools import cache

import pytest

from trackrecord.loop.areas import LEVELS, LoopArea, competencies, loop_areas
from trackrecord.loop.bank.checks import Problem, check_question, confusions, model_answer
from trackrecord.loop.bank.grade import grade_question
from trackrecord.loop.bank.load import load_area, load_bank
from trackrecord.loop.items import Answer
from trackrecord.loop.marks import FULL, PEEK_CAP

AREAS = pytest.mark.parametrize("area", loop_areas(), ids=lambda area: area.folder)


@cache
def problems(area: LoopArea) -> list[Problem]:
    return [problem for question in load_area(area) for problem in check_question(question)]


def of_rule(area: LoopArea, rule: str) -> list[str]:
    return [str(problem) for problem in problems(area) if problem.rule == rule]


@AREAS
def test_an_area_has_eight_questions_in_three_difficulties(area: LoopArea) -> None:
    levels = Counter(question.level for question in load_area(area))
    assert sum(levels.values()) >= 8
    assert all(levels[level] >= 2 for level in LEVELS), levels


def test_every_competency_is_asked_about() -> None:
    tested = {slug for question in load_bank() for slug in question.competencies}
    assert tested == set(competencies())


def test_no_question_is_asked_twice() -> None:
    asked = Counter(" ".join(question.ask.lower().split()) for question in load_bank())
    assert max(asked.values()) == 1


def test_quantities_are_asked_for() -> None:
    for area in loop_areas():
        with_numbers = [q for q in load_area(area) if any(e.asked for e in q.quantities)]
        least = len(load_area(area)) if area.slug != "contribution" else len(load_area(area)) / 2
        assert len(with_numbers) >= least, area.folder


@pytest.mark.slow
@AREAS
@pytest.mark.parametrize(
    "rule", ["model answer", "no answer", "wrong answer", "changed number", "denied mechanism"]
)
def test_every_question_keeps(rule: str, area: LoopArea) -> None:
    assert of_rule(area, rule) == []


@AREAS
def test_model_answers_have_full_marks(area: LoopArea) -> None:
    for question in load_area(area):
        mark = grade_question(question, model_answer(question))
        assert set(mark.scores.values()) == {FULL}, (question.name, mark.scores)


@pytest.mark.slow
def test_answers_to_other_questions_of_the_area_are_told_apart() -> None:
    pairs = confused = 0
    for area in loop_areas():
        questions = load_area(area)
        pairs += len(questions) * (len(questions) - 1)
        confused += len(confusions(questions))
    assert confused <= 0.03 * pairs


def test_looking_at_the_model_answer_caps_every_layer() -> None:
    question = load_bank()[0]
    answer = model_answer(question)
    mark = grade_question(question, Answer(answer.item, answer.text, answer.followups, peeked=True))
    assert set(mark.scores.values()) == {PEEK_CAP}
    assert "looked at" in mark.notes[0]


def test_an_endless_answer_is_read_to_its_bound_and_says_so() -> None:
    question = load_bank()[0]
    text = f"{question.model}\n" * 1000
    mark = grade_question(question, Answer(question.name, text[:1_000_000]))
    assert any("only the first" in note for note in mark.notes)


def test_every_finding_that_is_no_silence_has_a_quote_of_the_text() -> None:
    for question in load_bank()[::7]:
        answer = model_answer(question)
        for layer in grade_question(question, answer).layers:
            for finding in layer.findings:
                if finding.verdict == "found" and finding.start >= 0:
                    texts = (answer.text, *answer.followups)
                    opening = finding.quote.split()[0]
                    assert any(text[finding.start :].startswith(opening) for text in texts)


def test_grading_does_not_depend_on_what_was_graded_before() -> None:
    first, second = load_bank()[:2]
    before = grade_question(first, model_answer(first))
    grade_question(second, model_answer(second))
    assert grade_question(first, model_answer(first)) == before
