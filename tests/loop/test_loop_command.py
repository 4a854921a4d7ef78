"""`trackrecord loop` from end to end: sat in a terminal, killed, resumed, graded, published."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from pseudo_terminal import PseudoTerminal, journal_text

from pr.upstream_shaped import Run, runner
from trackrecord.loop.bank.load import load_question
from trackrecord.loop.catalogue import catalogue, make_item
from trackrecord.loop.marks import FULL
from trackrecord.loop.session.plan import PlannedSession, make_plan

SEED = 11
PROGRAM = ("-m", "trackrecord.cli", "loop")


@pytest.fixture
def place(tmp_path: Path) -> Path:
    return tmp_path / "work"


@pytest.fixture
def run(place: Path, capsys: pytest.CaptureFixture[str]) -> Run:
    return runner("loop", place, capsys)


def planned(number: int) -> PlannedSession:
    [session] = make_plan(catalogue(), SEED, [number]).sessions
    return session


def model_lines(session: PlannedSession) -> list[str]:
    """What a candidate types who knows every model answer."""
    lines: list[str] = []
    for name in session.items:
        item = make_item(name)
        for look in item.observations:
            lines += [f"/observe {look.name}"] if look.minutes <= 2 else []
        text = load_question(name).model if item.kind == "question" else item.model
        lines += [text, "/next"]
        if session.followups and item.kind == "question":
            for entry in load_question(name).followups:
                lines += [entry.answer, "/next"]
    return lines


def sit(place: Path, *words: str, lines: list[str]) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, *PROGRAM, *words, "--workspace", str(place)],
        input="\n".join([*lines, ""]), capture_output=True, text=True, timeout=120, check=False,
    )  # fmt: skip


def answers_of(run: Run, *words: str) -> list[dict[str, Any]]:
    code, out, _ = run("report", *words, "--json")
    assert code == 0
    listed: list[dict[str, Any]] = json.loads(out)["answers"]
    return listed


def test_model_answers_typed_in_have_full_marks(place: Path, run: Run) -> None:
    done = sit(place, "start", "--session", "2", "--seed", str(SEED), lines=[
        *model_lines(planned(2)), *["4 3 2"] * 5,
    ])  # fmt: skip
    assert done.returncode == 0, done.stderr
    answers = answers_of(run)
    assert [a["item"] for a in answers] == list(planned(2).items)
    for answer in answers:
        assert {layer["score"] for layer in answer["mark"]["layers"]} == {FULL}, answer["item"]
        assert answer["own"] == {"mechanism": 4, "arithmetic": 3, "consequence": 2}
        assert answer["gap"] == {"mechanism": 0, "arithmetic": -1, "consequence": -2}


def test_a_loop_that_is_killed_goes_on_in_another_terminal(place: Path, run: Run) -> None:
    first = load_question(planned(1).items[0])
    words = ("start", "--session", "1", "--seed", str(SEED), "--workspace", str(place))
    with PseudoTerminal(*PROGRAM, *words) as terminal:
        terminal.expect(first.ask.split("\n")[0][:60])
        terminal.type("Written before the lights went out.\r")
        terminal.until(lambda: "lights went out" in journal_text(place))
        terminal.kill(signal.SIGKILL)
    done = sit(place, "resume", lines=["And after.", "/next", *["/skip"] * 7, "1 1 1"])
    assert done.returncode == 0, done.stderr
    text = answers_of(run)[0]["text"]
    assert "lights went out" in text
    assert "And after." in text


def test_what_is_left_open_is_not_shown_and_not_reviewed(place: Path, run: Run) -> None:
    done = sit(place, "start", "--session", "1", "--seed", str(SEED), lines=["text", "/quit"])
    assert done.returncode == 1
    assert load_question(planned(1).items[0]).model[:80] not in done.stdout
    code, out, problem = run("report", "--json")
    assert (code, json.loads(out)["answers"]) == (1, [])
    assert "goes on" in problem
    code, out, problem = run("review", "2026-01-01-1")
    assert (code, out) == (2, "")
    run_id = json.loads(run("runs", "--json")[1])["runs"][0]["run"]
    code, out, problem = run("review", run_id)
    assert (code, out) == (2, "")
    assert "not finished" in problem


def test_an_answer_beside_the_model_answer(place: Path, run: Run) -> None:
    name = "question:03/token-budget"
    lines = [load_question(name).layers["mechanism"].answer, "/next", "4 4 4"]
    assert sit(place, "start", "--item", name, lines=lines).returncode == 0
    run_id = json.loads(run("runs", "--json")[1])["runs"][0]["run"]
    code, out, _ = run("review", f"{run_id}/1")
    assert code == 0
    assert load_question(name).model.split(".")[-3].strip()[:30] in " ".join(out.split())
    assert "computed: 3 steps" in out
    code, _, problem = run("review", f"{run_id}/7")
    assert code == 2
    assert "has 1 answers" in problem


def test_the_true_path_is_shown_afterwards_and_not_before(place: Path, run: Run) -> None:
    name = "incident:block-leak"
    lines = ["/observe metrics", "/peek", "It leaks.", "/next", "1 1 1"]
    done = sit(place, "start", "--item", name, lines=lines)
    assert done.returncode == 0, done.stderr
    peeked, _, scored = done.stdout.partition("-- your answer --")
    assert "The way to it" not in peeked
    assert "The way to it" in scored
    run_id = json.loads(run("runs", "--json")[1])["runs"][0]["run"]
    out = run("review", f"{run_id}/1")[1]
    assert "vLLM v0.22.1" in out
    assert "the model answer was looked at" in " ".join(out.split())


def test_practice_is_kept_apart_and_comes_back_when_due(place: Path, run: Run) -> None:
    name = "question:03/token-budget"
    assert sit(place, "start", "--item", name, lines=["No idea.", "/next", ""]).returncode == 0
    code, out, _ = run("report")
    assert code == 0
    assert "practice" in out
    code, out, _ = run("due")
    assert code == 0
    assert f"trackrecord loop start --item {name}" in out
    code, _, problem = run("start", "--due")
    assert code == 2
    assert "nothing is due today" in problem


def test_nothing_is_published_until_it_is_chosen(place: Path, run: Run, tmp_path: Path) -> None:
    from trackrecord.commands.portfolio import _loop_page
    from trackrecord.workspace import Workspace

    lines = [*model_lines(planned(1)), *["4 4 4"] * 8]
    assert sit(place, "start", "--session", "1", "--seed", str(SEED), lines=lines).returncode == 0
    assert _loop_page(Workspace.open(place)) is None
    run_id = json.loads(run("runs", "--json")[1])["runs"][0]["run"]
    assert run("publish", run_id, "--without", "paged-kv-cache")[0] == 0
    page = _loop_page(Workspace.open(place))
    assert page is not None
    assert "Request lifecycle" in page.files["loop.html"].decode()
    assert run("publish", "--withdraw")[0] == 0
    assert _loop_page(Workspace.open(place)) is None


def test_what_was_passed_counts_in_the_gauntlet(place: Path) -> None:
    from trackrecord.commands.gauntlet import _passed_in_the_loop
    from trackrecord.workspace import Workspace

    assert _passed_in_the_loop(Workspace.open(place)) == ()
    lines = [*model_lines(planned(1)), *["4 4 4"] * 8]
    assert sit(place, "start", "--session", "1", "--seed", str(SEED), lines=lines).returncode == 0
    assert "scheduler" in _passed_in_the_loop(Workspace.open(place))


@pytest.mark.parametrize(
    ("words", "problem"),
    [
        (("start", "--only", "cooking"), "no area 'cooking'"),
        (("start", "--item", "question:03/nothing"), "no question"),
        (("start", "--item", "recipe:soup"), "no item"),
        (("start", "--session", "5"), "no session 5"),
        (("start", "--session", "1", "--only", "3"), "--session is for the loop"),
        (("start", "--seed", "-1"), "whole number"),
        (("resume",), "no run to go on with"),
        (("resume", "../../etc"), "not the name of a run"),
        (("score",), "nothing has been sat"),
        (("review", "2026-01-01-1/1"), "no run"),
        (("report", "2026-01-01-1"), "no run"),
        (("publish",), "give the runs"),
        (("publish", "2026-01-01-1"), "no run"),
        (("bank", "list", "cooking"), "no area"),
    ],
)
def test_bad_usage_is_one_line(words: tuple[str, ...], problem: str, run: Run, place: Path) -> None:
    code, out, said = run(*words)
    assert (code, out) == (2, "")
    assert problem in said
    assert said.count("\n") == 1
    assert not place.exists() or not list(place.glob("loop/2*"))


def test_the_bank_is_listed_and_checked(run: Run) -> None:
    code, out, _ = run("bank", "list", "3")
    assert code == 0
    assert out.count("question:03/") >= 8
    code, out, _ = run("bank", "check", "3", "--json")
    found = json.loads(out)
    assert (code, found["problems"]) == (0, [])


def test_a_design_file_is_graded_by_itself(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from pr.upstream_shaped import run_command

    assert run_command("loop", "design", "70b-chat") == 0
    assert "## Topology" in capsys.readouterr().out
    file = tmp_path / "design.md"
    file.write_text(make_item("design:70b-chat").model, encoding="utf-8")
    document = tmp_path / "out.md"
    assert run_command("loop", "design", "70b-chat", file, "--document", document) == 0
    assert "mechanism 4/4" in document.read_text(encoding="utf-8")
    assert run_command("loop", "design", "70b-chat", tmp_path / "none.md") == 2
