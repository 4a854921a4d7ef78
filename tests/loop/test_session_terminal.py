"""A loop in a real terminal, killed, hung up on, pasted into; and line by line through a pipe."""

from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path

import pytest
from pseudo_terminal import PseudoTerminal, journal_text

from trackrecord.loop.session.record import load_run, runs
from trackrecord.loop.session.ui import parsed, without_command
from trackrecord.workspace import Workspace

PROGRAM = str(Path(__file__).with_name("small_loop.py"))
PASTE, PASTED = "\x1b[200~", "\x1b[201~"
F2 = "\x1bOQ"


class Sitting:
    """A workspace, and the program that sits in it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder / "work"
        self.shift = folder / "shift"
        self.shift.write_text("0 0")

    def words(self, action: str, *only: str) -> list[str]:
        return [PROGRAM, action, str(self.folder), str(self.shift), *only]

    def at_terminal(self, action: str, *only: str) -> PseudoTerminal:
        return PseudoTerminal(*self.words(action, *only))

    def piped(self, action: str, lines: bytes, *only: str) -> subprocess.CompletedProcess[bytes]:
        words = [sys.executable, *self.words(action, *only)]
        return subprocess.run(words, input=lines, capture_output=True, check=False)

    @property
    def run(self):
        place = Workspace.open(self.folder)
        return load_run(place, runs(place)[-1])


@pytest.fixture
def sitting(tmp_path):
    return Sitting(tmp_path)


def test_killed_resumed_and_finished_it_lost_nothing_and_its_clock_ran_on(sitting):
    with sitting.at_terminal("start", "2") as terminal:
        terminal.expect("29:5")
        terminal.type("the first line\rsecond")
        terminal.until(lambda: "second" in journal_text(sitting.folder))
        terminal.type(" and what was typed last")
        second = sitting.piped("start", b"")
        assert second.returncode == 2
        assert second.stderr.count(b"\n") == 1
        assert b"another loop is being sat" in second.stderr
        terminal.kill(signal.SIGKILL)
        assert terminal.wait() == -signal.SIGKILL
    assert sitting.run.answers[0].text.startswith("the first line\nsecond")
    sitting.shift.write_text("600 600")
    with sitting.at_terminal("resume") as terminal:
        terminal.expect("the first line")
        terminal.expect("19:")
        terminal.type("\r/peek\r")
        shown = terminal.expect("model of")
        terminal.expect("19:", shown)
        terminal.type("/next\r")
        for number in range(2, 9):
            shown = terminal.expect(f" left · {number} of 8", shown)
            terminal.type(f"answer {number}{F2}" if number % 2 else "/skip\r")
        for _ in range(4):
            shown = terminal.expect("Your own score", shown)
            terminal.type("3 2 4\r")
        terminal.expect("is done", shown)
        assert terminal.wait() == 0
    run = sitting.run
    assert (run.practice, run.problems, run.notes) == (True, (), ())
    first, *others = run.answers
    assert first.text.startswith("the first line\nsecond")
    assert "/" not in first.text
    assert first.peeked
    assert first.seconds >= 600
    assert [answer.skipped for answer in others] == [True, False] * 3 + [True]
    assert others[1].text == "answer 3"
    assert others[1].own == {"mechanism": 3, "arithmetic": 2, "consequence": 4}


def test_a_lost_terminal_leaves_all_that_was_seen_and_the_code_of_the_signal(sitting):
    with sitting.at_terminal("start") as terminal:
        terminal.expect("29:5")
        terminal.type("typed before")
        terminal.expect("before")
        terminal.hang_up()
        assert terminal.wait() == 128 + signal.SIGHUP
    assert sitting.run.answers[0].text == "typed before"
    assert sitting.run.problems == ()


@pytest.mark.parametrize("way", ["\x03", "\x04", signal.SIGTERM])
def test_who_leaves_is_told_how_to_come_back(sitting, way):
    with sitting.at_terminal("start") as terminal:
        terminal.expect("29:5")
        if way != "\x04":
            terminal.type("typed before")
            terminal.expect("before")
        if isinstance(way, str):
            terminal.type(way)
            terminal.expect("loop resume")
            assert terminal.wait() == 0
        else:
            terminal.kill(way)
            terminal.expect("ended by SIGTERM")
            assert terminal.wait() == 128 + way
    assert sitting.run.answers[0].text == ("" if way == "\x04" else "typed before")


def test_a_megabyte_of_paste_with_control_characters_is_cut_said_and_made_visible(sitting):
    with sitting.at_terminal("start") as terminal:
        terminal.expect("29:5")
        terminal.type(PASTE + "evil\x1b]0;title\x07 /next\n" * 45_000 + PASTED)
        terminal.expect("at most 200,000 characters")
        terminal.type(F2)
        terminal.expect("2 of 8")
        terminal.type("\x03")
        terminal.wait()
    assert "\x1b]0;" not in terminal.seen
    (pasted, _) = sitting.run.answers
    assert len(pasted.text) == 200_000
    assert pasted.text.startswith("evil\\x1b]0;title\\x07 /next\nevil")


def test_through_a_pipe_lines_are_text_and_commands(sitting):
    lines = b"one \x1b[2J\xff\n/v1/completions\n/next\n/nothing\n/help\n/skip\n"
    result = sitting.piped("start", lines)
    assert result.returncode == 0
    assert result.stderr == b""
    assert b"\x1b" not in result.stdout
    assert b"loop resume" in result.stdout
    first, second, _ = sitting.run.answers
    assert first.text == "one \\x1b[2J\ufffd\n/v1/completions\n"
    assert (second.text, second.skipped) == ("/nothing\n", True)


def test_without_an_input_or_with_another_encoding_there_is_no_traceback(sitting, monkeypatch):
    monkeypatch.setenv("PYTHONIOENCODING", "ascii")
    assert sitting.piped("start", b"/help\n").returncode == 0
    closed = ["sh", "-c", 'exec "$@" <&-', "sh", sys.executable, *sitting.words("start")]
    result = subprocess.run(closed, capture_output=True, check=False)
    assert result.returncode == 2
    assert result.stderr.count(b"\n") == 1


def test_a_megabyte_through_a_pipe_is_cut_and_said(sitting):
    result = sitting.piped("start", b"x" * 1_000_000 + b"\n/next\n")
    assert b"at most 200,000 characters" in result.stdout
    assert len(sitting.run.answers[0].text) == 200_000
    assert len(sitting.run.answers) == 2


def test_the_first_question_needs_no_heavy_import(sitting):
    program = (
        "import sys, small_loop; import trackrecord.loop.session.terminal; "
        "sys.exit(bool({'torch', 'matplotlib', 'numpy'} & set(sys.modules)))"
    )
    folder = Path(PROGRAM).parent
    assert subprocess.run([sys.executable, "-c", program], cwd=folder, check=False).returncode == 0


@pytest.mark.parametrize(
    ("line", "command"),
    [
        ("/next", ("next", "")),
        ("  /peek ", ("peek", "")),
        ("/observe  block table ", ("observe", "block table")),
        ("/next one", None),
        ("/v1/completions", None),
        ("next", None),
        ("a /next", None),
    ],
)
def test_a_command_is_a_line_of_its_own(line, command):
    assert parsed(line) == command


@pytest.mark.parametrize(
    ("text", "row", "left"),
    [
        ("a\n/ne", 1, "a\n"),
        ("/suspect a leak", 0, ""),
        ("a\n/\nb", 1, "a\nb"),
        ("a\n/v1", 1, "a\n/v1"),
        ("a\n/next\nb", 2, "a\n/next\nb"),
    ],
)
def test_a_command_that_is_being_typed_is_no_part_of_the_answer(text, row, left):
    assert without_command(text, row) == left
