"""What a session needs of whatever faces the person, and the commands that a person can give.

A command is a line of its own that begins with a slash, so that it can be guessed, scripted and
typed on any terminal. A line that only looks like one (`/v1/completions`) is text.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal, Protocol, get_args

Word = Literal["next", "skip", "peek", "observe", "suspect", "edit", "help", "quit"]
WORDS: tuple[Word, ...] = get_args(Word)
_WITH_ARGUMENT = ("observe", "suspect")
HELP = """\
Write the answer; Enter begins a new line. A command is a line of its own:
  /next          this answer is done: on to the next one (F2)
  /skip          leave this one
  /peek          see the model answer; recorded, and the answer counts 2 of 4 at most
  /observe NAME  look at something, at its price in minutes; alone: what there is (incidents)
  /suspect TEXT  name a hypothesis (incidents)
  /edit          write in $VISUAL or $EDITOR (Ctrl-X Ctrl-E)
  /help          this (F1)
  /quit          leave; all is kept, and the clock runs on (Ctrl-C)"""


@dataclass(frozen=True)
class Command:
    """What the person asked for, and the answer's text at that moment."""

    word: Word
    argument: str
    text: str


@dataclass(frozen=True)
class Hooks:
    """What a session wants to be asked while somebody writes.

    Args:
        status: one line that says where one is and what time is left.
        changed: is called with the text whenever it changed.
        tick: is called at least once a second; returns what to say now, a line each.
    """

    status: Callable[[], str]
    changed: Callable[[str], None]
    tick: Callable[[], list[str]]


class Ui(Protocol):
    """Faces the person."""

    def show(self, text: str) -> None:
        """Puts `text` before the person, made safe for a terminal."""

    def answer(self, draft: str, hooks: Hooks) -> Command:
        """Lets the person write on from `draft` until they give a command."""

    def ask(self, question: str) -> str | None:
        """One line of the person's, or None if they want to leave."""


def parsed(line: str) -> tuple[Word, str] | None:
    """The command that `line` is, with its argument; None if it is text."""
    if not line.lstrip().startswith("/"):
        return None
    name, _, argument = line.strip()[1:].partition(" ")
    argument = argument.strip()
    for word in WORDS:
        if name == word and (word in _WITH_ARGUMENT or not argument):
            return word, argument
    return None


def without_command(text: str, row: int) -> str:
    """`text` without line `row` (from 0) if that is a command, whole or begun.

    Where it was the last, an empty line stays, for the next command to be typed on.
    """
    lines = text.split("\n")
    name, space, _ = lines[row].strip().partition(" ")
    begun = name.startswith("/") and any(
        f"/{word}" == name if space else f"/{word}".startswith(name) for word in WORDS
    )
    if not begun:
        return text
    return "\n".join(lines[:row] + (lines[row + 1 :] or [""]))
