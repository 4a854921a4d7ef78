"""`mini-vllm chat`: at a terminal, through a pipe, and beyond the context."""

from __future__ import annotations

import asyncio
import io
import os
import pty
import re
import select
import signal
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest

from mini_vllm import AsyncEngine, EngineConfig, SamplingParams, cli
from mini_vllm.commands.chat import Conversation
from mini_vllm.commands.terminal import harmless
from mini_vllm.core.sampling_params import RequestOutputKind
from mini_vllm.errors import InvalidInputError
from tiny_model import CONTEXT


def engine_flags(model: Path) -> list[str]:
    return ["--model", str(model), "--num-gpu-blocks-override", "65", "--num-threads", "1"]


class Terminal:
    """The command at a terminal of its own, and what it has shown."""

    def __init__(self, pid: int, controller: int) -> None:
        self.pid = pid
        self.controller = controller
        self.shown = ""

    def type(self, text: str) -> None:
        os.write(self.controller, text.encode())

    def until(self, pattern: str, seconds: float = 40, again: str = "") -> str:
        """What is shown up to and with `pattern`; `again` is typed every now and then."""
        deadline = time.monotonic() + seconds
        while not (found := re.search(pattern, self.shown)):
            assert time.monotonic() < deadline, f"no {pattern!r} in {self.shown!r}"
            if select.select([self.controller], [], [], 0.5)[0]:
                self.shown += os.read(self.controller, 65536).decode()
            else:
                self.type(again)
        upto, self.shown = self.shown[: found.end()], self.shown[found.end() :]
        return upto


@contextmanager
def terminal(model: Path, *flags: str) -> Iterator[Terminal]:
    pid, controller = pty.fork()
    if pid == 0:
        command = [sys.executable, "-m", "mini_vllm.cli", "chat", *flags, *engine_flags(model)]
        os.execv(sys.executable, command)  # noqa: S606
    try:
        yield Terminal(pid, controller)
    finally:
        with suppress(ProcessLookupError, ChildProcessError):
            os.kill(pid, signal.SIGKILL)
            os.waitpid(pid, 0)
        os.close(controller)


CTRL_C, CTRL_D = "\x03", "\x04"


def test_a_conversation_at_a_terminal(tiny_model: Path) -> None:
    with terminal(tiny_model, "--temperature", "0", "--max-tokens", "400") as chat:
        chat.until(r"/exit or Ctrl-D leaves.*\n")
        chat.until("> ")

        chat.type("Hello\n")
        chat.until("Hello\r\n")  # the echo
        chat.until(r"\S{3}")  # the answer has begun
        chat.type(CTRL_C)
        chat.until(r"\(stopped\)")
        chat.until("> ")

        # Typed again because a signal between the prompt and the wait for a key goes unheard.
        chat.until(r"\(Ctrl-D or /exit leaves\)", again=CTRL_C)
        chat.until("> ")

        chat.type("/reset\n")
        chat.until("the conversation is forgotten")
        chat.until("> ")

        chat.type("x" * 600 + "\n")
        chat.until(r"6\d\d tokens, the context has room for 511: say less")
        chat.until("> ")

        chat.type(CTRL_D)
        assert os.waitstatus_to_exitcode(os.waitpid(chat.pid, 0)[1]) == 0


def test_a_pipe_gets_answers_and_nothing_else(
    tiny_model: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def said(lines: str) -> str:
        monkeypatch.setattr(sys, "stdin", io.StringIO(lines))
        flags = ["--temperature", "0", "--max-tokens", "10"]
        assert cli.main(["chat", *flags, *engine_flags(tiny_model)]) == 0
        return capsys.readouterr().out

    two = said("Hello\n\nAgain\n").splitlines()
    assert len(two) == 2
    assert said("Hello\n/exit\nnever read\n").splitlines() == two[:1]
    # The second answer depends on the first turn, unless that was forgotten.
    alone = said("Again\n").splitlines()
    assert said("Hello\n/reset\nAgain\n").splitlines() == [two[0], *alone]
    assert alone != two[1:]


def test_bad_input_through_a_pipe_is_one_line(
    tiny_model: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for lines, message in (
        (io.StringIO("x" * 600 + "\n"), "say less"),
        (io.StringIO("refuse me\n"), "refused"),
        (io.TextIOWrapper(io.BytesIO(b"\xff\xfe\n"), encoding="utf-8"), "not UTF-8"),
    ):
        monkeypatch.setattr(sys, "stdin", lines)
        assert cli.main(["chat", *engine_flags(tiny_model)]) == 2
        said = capsys.readouterr()
        assert said.out == ""
        assert message in said.err
        assert said.err.count("\n") == 1


@contextmanager
def conversation(model: Path, system: str | None) -> Iterator[tuple[Conversation, asyncio.Runner]]:
    config = EngineConfig(model=str(model), num_gpu_blocks_override=65, num_threads=1)
    engine = AsyncEngine(config)
    params = SamplingParams(temperature=0, max_tokens=8, output_kind=RequestOutputKind.DELTA)
    with asyncio.Runner() as runner:
        runner.run(engine.start())
        try:
            yield Conversation(engine, params, system), runner
        finally:
            runner.run(engine.shutdown())


def test_a_full_context_forgets_the_oldest_turns_but_not_the_system_message(
    tiny_model: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with conversation(tiny_model, "You are terse.") as (talk, runner):
        for turn in range(12):
            runner.run(talk.answer(f"turn {turn}: " + "x" * 60))
            assert talk.turns[-1]["role"] == "assistant"
            assert talk.turns[0]["role"] == "user"
        assert len(talk.turns) < 12
        assert talk.turns[-2]["content"].startswith("turn 11")
        token_ids = talk._token_ids(talk.turns[:-1])
        assert bytes(t for t in token_ids if t < 256).startswith(b"system\nYou are terse.")
        assert len(token_ids) + len(talk.turns[-1]["content"]) <= CONTEXT
    assert "the oldest 2 messages are forgotten" in capsys.readouterr().err


def test_what_could_not_be_answered_is_not_remembered(tiny_model: Path) -> None:
    with conversation(tiny_model, None) as (talk, runner):
        runner.run(talk.answer("Hello"))
        remembered = list(talk.turns)
        for wrong in ("x" * 600, "refuse me"):
            with pytest.raises(InvalidInputError):
                runner.run(talk.answer(wrong))
            assert talk.turns == remembered


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("plain ä 漢字 🦙\n\tindented", "plain ä 漢字 🦙\n\tindented"),
        ("\x1b]0;title\x07", "\\x1b]0;title\\x07"),
        ("a\rb\x00\x9b31m", "a\\rb\\x00\\x9b31m"),
        ("\u202edrawkcab\u2066", "\\u202edrawkcab\\u2066"),
        ("\u3000\u00a0\u200d", "\u3000\u00a0\u200d"),
    ],
)
def test_control_characters_are_made_visible(text: str, shown: str) -> None:
    assert harmless(text) == shown
