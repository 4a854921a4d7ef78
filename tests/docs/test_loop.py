"""The commands of docs/loop.md exist as they are written, and its session can be sat."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest

from mini_vllm import console
from trackrecord.commands import loop
from trackrecord.loop.areas import loop_areas
from trackrecord.loop.session.ui import WORDS

DOCS = (Path(__file__).parents[2] / "docs/loop.md").read_text(encoding="utf-8")
COMMANDS = [
    line.partition("#")[0].strip() for line in re.findall(r"^\$ trackrecord loop (.+)$", DOCS, re.M)
]


def parser() -> console.Parser:
    made = console.Parser(prog="trackrecord loop")
    loop.configure(made)
    return made


@pytest.mark.parametrize("command", COMMANDS)
def test_a_documented_command_is_understood(command: str) -> None:
    assert parser().parse_args(shlex.split(command)).action == command.split()[0]


def test_the_documented_listing_is_printed(capsys: pytest.CaptureFixture[str]) -> None:
    [command] = [command for command in COMMANDS if command.startswith("bank list")]
    args = parser().parse_args(shlex.split(command))
    assert loop.run(args) == 0
    assert capsys.readouterr().out.count("question:03/") >= 8


def test_every_action_is_documented() -> None:
    [actions] = [a for a in parser()._actions if a.dest == "action"]
    assert actions.choices is not None
    shown = {command.split()[0] for command in COMMANDS}
    assert shown | {"runs"} == set(actions.choices)


def test_every_word_of_a_session_is_documented() -> None:
    assert all(f"`/{word}" in DOCS for word in WORDS)


def test_the_areas_of_the_sessions_are_those_documented() -> None:
    assert len(loop_areas()) == 20
    assert "areas 0 to 3" in DOCS
    assert "areas 4 to 8" in DOCS
