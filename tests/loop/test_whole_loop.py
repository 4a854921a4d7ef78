"""The whole loop, sat in a real terminal: four sessions, killed in the third, resumed, graded."""

from __future__ import annotations

import json
import signal
from pathlib import Path

import pytest
from pseudo_terminal import PseudoTerminal

from pr.upstream_shaped import runner
from trackrecord.loop.bank.load import load_question
from trackrecord.loop.catalogue import catalogue, make_item
from trackrecord.loop.incidents import load_case
from trackrecord.loop.marks import FULL
from trackrecord.loop.session.plan import PlannedSession, make_plan
from trackrecord.loop.session.record import load_run, runs
from trackrecord.workspace import Workspace

SEED = 5
PROGRAM = ("-m", "trackrecord.cli", "loop")


class Candidate:
    """Types what somebody would who knows all model answers, and waits for what should come."""

    def __init__(self, terminal: PseudoTerminal, place: Path, draft: Path) -> None:
        self.terminal = terminal
        self.place = place
        self.draft = draft
        self.seen = 0

    def wait(self, text: str) -> None:
        self.seen = self.terminal.expect(text, self.seen)

    def paste(self, text: str) -> None:
        self.terminal.type(f"\x1b[200~{text}\x1b[201~\r")

    def answer(self, session: PlannedSession, first: int = 0) -> None:
        for n, name in enumerate(session.items[first:], first + 1):
            self.wait(f"{n} of {len(session.items)}")
            self.write(name)
            self.terminal.type("/next\r")
            if session.followups and name.startswith("question:"):
                for entry in load_question(name).followups:
                    self.wait(" ".join(entry.ask.split())[:40])
                    self.paste(entry.answer)
                    self.terminal.type("/next\r")

    def write(self, name: str) -> None:
        if name.startswith("incident:"):
            case = load_case(name.removeprefix("incident:"))
            for action in case.ideal_actions():
                self.terminal.type(f"/{action.kind} {action.what}\r")
                self.wait("(" if action.kind == "observe" else "Noted")
        if name.startswith("question:"):
            self.paste(load_question(name).model)
            return
        text = make_item(name).model
        self.draft.write_text(text, encoding="utf-8")
        self.terminal.type("/edit\r")
        last = text.rstrip()[-60:]
        self.terminal.until(lambda: last in self.written())

    def written(self) -> str:
        """What of the answer that is being written is on disk."""
        workspace = Workspace.open(self.place)
        return load_run(workspace, runs(workspace)[-1]).answers[-1].text

    def score(self, session: PlannedSession) -> None:
        for _ in session.items:
            self.wait("Your own score")
            self.terminal.type("4 4 4\r")


@pytest.mark.slow
def test_a_whole_loop(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    place, draft, editor = tmp_path / "work", tmp_path / "draft", tmp_path / "editor"
    editor.write_text(f'#!/bin/sh\ncat {draft} > "$1"\n')
    editor.chmod(0o755)
    monkeypatch.setenv("VISUAL", str(editor))
    plan = make_plan(catalogue(), SEED)
    one, two, three, four = plan.sessions
    with PseudoTerminal(*PROGRAM, "start", "--seed", str(SEED), "--workspace", str(place)) as at:
        person = Candidate(at, place, draft)
        person.answer(one)
        person.score(one)
        person.wait("Enter begins it")
        at.type("\r")
        person.answer(two)
        person.score(two)
        person.wait("Enter begins it")
        at.type("\r")
        person.wait("1 of 1")
        person.write(three.items[0])
        at.kill(signal.SIGKILL)
    with PseudoTerminal(*PROGRAM, "resume", "--workspace", str(place)) as at:
        person = Candidate(at, place, draft)
        person.wait("left")
        at.type("/next\r")
        person.score(three)
        person.wait("Enter begins it")
        at.type("\r")
        person.answer(four)
        person.score(four)
        person.wait("is done")
        assert at.wait() == 0
    run = runner("loop", place, capsys)
    code, out, _ = run("report", "--out", str(tmp_path / "out"), "--json")
    assert code == 0
    report = json.loads(out)
    assert [a["item"] for a in report["answers"]] == [n for s in plan.sessions for n in s.items]
    low = [
        (answer["item"], layer["layer"], layer["score"])
        for answer in report["answers"]
        for layer in answer["mark"]["layers"]
        if layer["score"] < FULL
    ]
    assert low == []
    assert (tmp_path / "out/loop.html").is_file()
    assert list((tmp_path / "out").glob("design-*.md"))
