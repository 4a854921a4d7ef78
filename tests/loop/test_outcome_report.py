"""The report and the review in a terminal."""

from __future__ import annotations

import json
from dataclasses import replace
from datetime import date

import pytest

from loop.graded_runs import SENTENCES, graded, sat, whole_loop
from trackrecord.loop.areas import competencies
from trackrecord.loop.graded import GradedRun
from trackrecord.loop.items import Action
from trackrecord.loop.outcome.lines import MOST_LINES, WIDTH, lines_of
from trackrecord.loop.outcome.report import build_report
from trackrecord.loop.outcome.review import columns, review_lines, wrapped

TODAY = date(2026, 8, 1)
HOSTILE = "\x1b[2J\x07<script>alert(1)</script>\u202e [x](http://e.example) | `a` \r\n# heading"


def lines(*runs: GradedRun) -> list[str]:
    return lines_of(build_report(runs, TODAY))


def test_before_anything_was_sat_it_says_how_to_begin() -> None:
    assert lines() == ["nothing has been sat yet: trackrecord loop start"]


def test_it_says_how_the_marks_were_earned() -> None:
    again = sat("b", graded("02/block-size", (4, 4, 4)), day=1)
    practice = sat("p", graded("05/x", (1, 1, 1)), day=2, practice=True)
    earned = " ".join(lines(sat("a", *whole_loop()), again, practice)[:2])
    assert earned == (
        "16 answers in 2 timed runs, 135 min by the clock: 1 with a look at the model answer, 1 in "
        "overtime, 1 skipped, 1 to an item met before; 1 practice run kept apart."
    )


def test_only_practice_is_said_to_be_only_practice() -> None:
    shown = lines(sat("p", graded("02/x", (3, 2, 1)), practice=True))
    assert shown[0].startswith("Only practice so far")
    assert "practised, not counted: 02: 3.0/2.0/1.0" in shown
    assert any(line.startswith("Too little to say: 0 answers") for line in shown)


def test_a_damaged_journal_is_said_plainly() -> None:
    shown = lines(sat("a", graded("02/x", (3, 3, 3)), problems=["entry 7 was \x1b[31maltered"]))
    assert "run a: entry 7 was \\x1b[31maltered" in shown


def test_the_columns_stand_under_their_headings() -> None:
    shown = lines(sat("a", graded("02/x", (4, 3, 2), own=(4, 4, 4))))
    head = next(line for line in shown if line.startswith("area"))
    row = next(line for line in shown if line.startswith("02 "))
    for heading, value in (("mech", "4.0"), ("arith", "3.0"), ("conseq", "2.0"), ("own", "+1.0")):
        end = head.index(heading) + len(heading)
        assert row[:end].endswith(value)


def test_everything_at_once_fits_the_terminal() -> None:
    everywhere = [
        graded(f"{n:02d}/{'long-' * 30}", (n % 3, 1, 2), areas=(n,), own=(4, 4, 4),
               competencies=tuple(competencies()), title="A long title " * 20)
        for n in range(20)
    ]  # fmt: skip
    runs = [
        sat("a" * 80, *everywhere, problems=["p " * 100] * 9),
        sat("b" * 80, *everywhere, day=1),
        sat("p", *everywhere, day=2, practice=True),
    ]
    shown = lines(*runs)
    assert len(shown) <= MOST_LINES
    assert max(map(len, shown)) <= WIDTH
    assert not any(c in line for line in shown for c in "\n\x1b")


def test_the_json_is_plain_and_without_quotes_has_no_word_of_the_candidate() -> None:
    report = build_report([sat("a", *whole_loop())], TODAY)
    whole = json.dumps(report.to_json(), allow_nan=False)
    assert SENTENCES[0] in whole
    bare = json.dumps(report.to_json(quotes=False))
    assert not any(sentence[:30] in bare for sentence in SENTENCES)
    assert json.loads(whole)["staff"]["level"] == "senior"


def test_the_report_does_not_hang_on_the_order_of_the_runs() -> None:
    runs = [sat("a", *whole_loop()), sat("b", *whole_loop()[3:9], day=4)]
    assert build_report(runs, TODAY).to_json() == build_report(runs[::-1], TODAY).to_json()


def test_the_strongest_answers_reach_their_level() -> None:
    found = build_report([sat("a", *whole_loop())], TODAY).strongest
    assert [e.title for e in found] == [
        "FP8 for the KV cache",
        "What the token budget decides",
        "Block size and waste",
    ]
    met = [sat("a", graded("02/x", (1, 1, 1))), sat("b", graded("02/x", (4, 4, 4)), day=1)]
    assert build_report(met, TODAY).strongest == ()
    peeked = sat("a", graded("02/x", (2, 2, 2), peeked=True))
    assert build_report([peeked], TODAY).strongest == ()


@pytest.mark.parametrize("width", [20, 79, 100, 120, 200])
@pytest.mark.parametrize(
    "text",
    ["", HOSTILE, "word " * 8000, "x" * 40_000, "块表" * 500, "a\tb\n\n    code\n" * 50],
    ids=["empty", "hostile", "long", "one-word", "wide", "indented"],
)
def test_a_review_keeps_to_its_width_and_shows_nothing_raw(width: int, text: str) -> None:
    answer = graded("02/x", (0, 0, 0), text=text, followups=(text,))
    shown = review_lines(answer, width)
    assert max(columns(line) for line in shown) <= width
    assert all(line.isprintable() for line in shown)


def test_wide_terminals_show_both_answers_side_by_side() -> None:
    answer = graded("02/x", (3, 3, 3))
    assert any("YOUR ANSWER" in a and "MODEL ANSWER" in a for a in review_lines(answer, 120))
    narrow = review_lines(answer, 119)
    assert narrow.index("YOUR ANSWER") < narrow.index("MODEL ANSWER")


def test_a_review_shows_findings_caps_own_scores_followups_and_steps() -> None:
    made = graded("02/x", (2, 0, 2), own=(4, 3, 3), peeked=True, followups=("half of it",))
    steps = (Action("observe", "metrics", 300), Action("suspect", "a leak", 420))
    shown = review_lines(replace(made, answer=replace(made.answer, actions=steps)), 100)
    for line in (
        "Mechanism: 2 of 4; your own score 4",
        "  held down: the model answer was looked at",
        "  missing: what arithmetic lacks",
        "Follow-up: And with FP8?",
        "  half of it",
        "     5 min  looked at metrics",
        "     7 min  suspected a leak",
    ):
        assert line in shown
    assert any(
        line.startswith(f'  found: a point of mechanism "{SENTENCES[0][:40]}') for line in shown
    )


def test_a_review_without_text_or_own_score_says_so() -> None:
    shown = review_lines(graded("02/x", (0, 0, 0), text="", skipped=True), 80)
    assert "(skipped)" in shown
    assert "Mechanism: 0 of 4; no own score" in shown
    assert "  (not reached)" in shown


def test_very_long_text_is_cut_and_says_by_how_much() -> None:
    shown = review_lines(graded("02/x", (0, 0, 0), text="y" * 1_000_000), 100)
    assert "(and 950,000 more characters)" in shown


def test_wrapping_keeps_lines_indents_and_every_character() -> None:
    assert wrapped("ab cd\n  ef", 5) == ["ab cd", "  ef"]
    assert "".join(wrapped("x" * 53, 10)) == "x" * 53
    assert wrapped("aa bbbbbbbbb c", 4) == ["aa", "bbbb", "bbbb", "b c"]
