"""Sitting a run: what is shown when, what the clock allows, what the record holds afterwards."""

from __future__ import annotations

import json
import sys
from dataclasses import replace

import pytest
from small_loop import CATALOGUE, Script

from mini_vllm.errors import MiniVLLMError
from trackrecord.loop.session import SessionError, sit
from trackrecord.loop.session.record import load_run, runs

MINUTE = 60


@pytest.fixture
def sat(place, clock):
    """Sits as a list of steps says; the run, and what was shown."""

    def sat(*steps, go_on=False, catalogue=CATALOGUE, **words):
        ui = Script(clock, steps)
        if go_on:
            return sit.resume(place, catalogue, ui, read=clock, **words), ui.said
        return sit.start(place, catalogue, ui, read=clock, **({"seed": 3} | words)), ui.said

    return sat


def test_a_whole_run_ends_with_every_answer_in_the_order_shown(sat, place):
    rapid = ["text", 20, "/next"] * 8
    deep = [part for _ in range(5) for part in ("main", "/next", "why", "/next", "then", "/next")]
    score = "3 2 4"
    run, said = sat(
        *(*rapid, *[score] * 8, "", *deep, *[score] * 5),
        *("", "gpus = 2", "/next", score, "", "cause", "/next", "cause", "/next", "123", ""),
    )
    assert (run.problems, run.notes) == ((), ())
    assert run.ended
    assert [s.why for s in run.sessions] == ["done"] * 4
    assert [a.item for a in run.answers] == [name for s in run.sessions for name in s.items]
    assert [a.seconds for a in run.sessions[0].answers] == [20] * 8
    assert run.sessions[1].answers[0].followups == ("why", "then")
    assert run.sessions[2].answers[0].text == "topology =\ngpus = 2"
    assert run.answers[0].own == {"mechanism": 3, "arithmetic": 2, "consequence": 4}
    assert run.answers[-2].own == {"mechanism": 1, "arithmetic": 2, "consequence": 3}
    assert run.answers[-1].own == {}
    assert "\x1b" not in json.dumps([a.text for a in run.answers])
    assert load_run(place, run.id) == run
    assert said.count("Follow-up: why so?") == 5


def test_model_answers_open_when_the_session_has_ended(sat):
    _, said = sat(*["text", "/next"] * 8, sessions=(1,))
    before, _, after = said.partition("Session 1 has ended.")
    assert "model of" not in before
    assert "model of" in after


def test_a_peek_is_recorded_before_it_shows(sat, place, clock):
    class Watching(Script):
        def show(self, text):
            if "model of" in text:
                seen.append(load_run(place, runs(place)[0]).answers[0].peeked)
            super().show(text)

    seen = []
    sit.start(place, CATALOGUE, Watching(clock, ["x", "/peek"]), read=clock)
    assert seen == [True]


def test_skipping_shows_no_follow_up(sat):
    run, said = sat("half a", "/skip", sessions=(2,))
    assert (run.answers[0].skipped, run.answers[0].text) == (True, "half a")
    assert "Follow-up" not in said
    assert len(run.answers) == 2


def test_an_empty_answer_and_an_untouched_template_are_not_taken_for_done(sat):
    for number in (1, 3):
        run, said = sat("/next", sessions=(number,))
        assert "Nothing is written yet" in said
        assert len(run.answers) == 1


def test_when_time_is_up_it_is_said_once_and_nothing_further_is_shown(sat):
    run, said = sat(
        *("in time", 30 * MINUTE + 1, "; late", 1, "; later", "/next"), sessions=(1,), seed=None
    )
    assert said.count("Time is up.") == 1
    assert "29:59 left" not in said
    assert [(a.text, a.overtime) for a in run.answers] == [("in time; late; later", True)]
    assert run.sessions[0].why == "time"
    assert "Time was up before 7 more could be shown." in said


def test_what_was_typed_in_time_is_not_marked_though_it_reaches_the_disk_after(sat):
    run, _ = sat("x", 30 * MINUTE - 0.2, "in time", 0.5, "/next", sessions=(1,))
    assert (run.answers[0].text, run.answers[0].overtime) == ("xin time", False)


def test_leaving_a_line_empty_after_time_is_no_writing(sat):
    run, _ = sat("done", 31 * MINUTE, "\n", "/next", sessions=(1,))
    assert not run.answers[0].overtime


def test_observations_cost_their_price_once_and_their_order_is_kept(sat):
    run, said = sat(
        *(60, "/observe metrics", "/observe nothing", "/suspect a leak", "/observe metrics"),
        *("/observe trace", "cause", "/next"),
        sessions=(4,),
    )
    (answer,) = run.answers
    assert [(a.kind, a.what, a.at) for a in answer.actions] == [
        ("observe", "metrics", 60),
        ("suspect", "a leak", 240),
        ("observe", "trace", 240),
    ]
    assert answer.seconds == (1 + 3 + 40) * MINUTE
    assert answer.overtime
    assert said.count("seen: metrics") == 2
    assert "trace (40 min): all of it" in said
    assert "/suspect" in sat("/suspect me", "/observe x", sessions=(1,))[1]


def test_the_clock_runs_on_while_nobody_sits(sat, clock):
    sat("first", sessions=(1,))
    clock.pass_(600)
    run, said = sat(" and more", "/next", go_on=True)
    assert "19:59 left" in said or "20:00 left" in said
    assert run.answers[0].text == "first and more"
    assert run.answers[0].seconds == 600


def test_the_clock_runs_on_over_a_restart_of_the_machine(sat, clock):
    sat("first", sessions=(1,))
    clock.wall, clock.steady, clock.boot = clock.wall + 700, 5.0, "boot-2"
    sat(1, go_on=True)
    clock.pass_(300)
    assert sat("x", "/next", go_on=True)[0].answers[0].seconds == 1001


def test_a_break_between_sessions_is_not_counted(sat, clock):
    sat(*["text", "/next"] * 8, *[""] * 8)
    clock.pass_(86400)
    run, said = sat("", 5, "text", "/next", go_on=True)
    assert "44:55 left" in said
    assert run.sessions[1].seconds == 5


@pytest.mark.parametrize(("step", "way"), [(-3600, "back by 60 minutes"), (7200, "ahead by 2 h")])
def test_a_wall_clock_set_while_writing_is_said_journalled_and_gives_nothing(sat, clock, step, way):
    def set_clock():
        clock.wall += step

    run, said = sat("x", set_clock, 60, "y", sessions=(1,))
    assert f"wall clock was set {way}" in said
    assert way in run.notes[0]
    assert len(run.notes) == 1
    assert run.sessions[0].seconds == 60


def test_a_wall_clock_set_back_while_away_gives_nothing(sat, clock):
    sat("x", 10, sessions=(1,))
    clock.pass_(300)
    clock.wall -= 5000
    run, said = sat("y", go_on=True)
    assert "set back" in said
    assert run.sessions[0].seconds == 310
    clock.wall, clock.steady, clock.boot = clock.wall - 5000, 5.0, "boot-2"
    run, said = sat("late", "/next", go_on=True)
    assert "cannot be told" in said
    assert run.answers[0].overtime
    assert run.sessions[0].why == "time"


def test_who_leaves_while_scoring_can_score_later(sat, place, clock):
    run, _ = sat("text", "/next", *["/skip"] * 7, sessions=(1,))
    assert run.answers[0].own == {}
    ui = Script(clock, ["5 5 5", "4, 0, 1"])
    run = sit.score(place, CATALOGUE, ui, run.id, read=clock)
    assert run.answers[0].own == {"mechanism": 4, "arithmetic": 0, "consequence": 1}
    assert "Not three scores" in ui.said
    assert ui.said.count("model of") == 1


def test_a_seed_whose_items_were_shown_before_is_practice(sat):
    assert not sat(sessions=(1,))[0].practice
    assert not sat(sessions=(2,))[0].practice
    assert sat(sessions=(1, 2))[0].practice


def test_runs_are_named_for_their_day_in_order(sat, place, clock):
    for _ in range(11):
        sat(seed=None)
    clock.wall -= 86400 * 3
    last = sat(seed=None)[0].id
    assert runs(place) == [f"2027-01-15-{n}" for n in range(1, 13)]
    assert last == runs(place)[-1]


def test_a_bank_that_changed_between_sittings_is_noted(sat):
    sat()
    run, _ = sat(go_on=True, catalogue=replace(CATALOGUE, fingerprint="f2"))
    assert run.notes == ("the bank is not the one that the run began with",)
    assert run.bank == "f1"


def test_there_is_nothing_to_go_on_with_until_something_was_begun(sat, place):
    with pytest.raises(SessionError, match="no run to go on with"):
        sat(go_on=True)
    for name in ("../x", "2027-01-15-1"):
        with pytest.raises(SessionError, match="run"):
            sat(go_on=True, run_id=name)
    sat(*["/skip"] * 2, sessions=(4,))
    with pytest.raises(SessionError, match="is finished"):
        sat(go_on=True, run_id=runs(place)[0])


def test_an_editor_saves_as_it_goes(sat, place, tmp_path, monkeypatch):
    program = tmp_path / "editor.py"
    program.write_text(
        "import sys, time, pathlib\n"
        "file = pathlib.Path(sys.argv[1]); journal = file.with_name('journal.jsonl')\n"
        "file.write_text(file.read_text() + 'edited \\x1b[2J')\n"
        "while 'edited' not in journal.read_text(): time.sleep(0.01)\n"
    )
    monkeypatch.setenv("VISUAL", f"{sys.executable} '{program}'")
    run, _ = sat("typed\n", "/edit", "/next", sessions=(1,))
    assert run.answers[0].text == "typed\nedited \\x1b[2J\n"


@pytest.mark.parametrize("editor", ["", "no-such-editor", "'"])
def test_an_editor_that_cannot_be_run_is_said_and_loses_nothing(sat, monkeypatch, editor):
    monkeypatch.delenv("EDITOR", raising=False)
    monkeypatch.setenv("VISUAL", editor)
    run, said = sat("typed", "/edit", sessions=(1,))
    assert "edit" in said.lower()
    assert run.answers[0].text == "typed"


def test_an_item_that_is_gone_is_one_line_and_loses_nothing(sat):
    def gone(name):
        raise MiniVLLMError(f"no item {name}")

    sat("typed", sessions=(1,))
    with pytest.raises(MiniVLLMError, match="no item"):
        sat(go_on=True, catalogue=replace(CATALOGUE, make=gone))
    assert sat("!", go_on=True)[0].answers[0].text == "typed!"
