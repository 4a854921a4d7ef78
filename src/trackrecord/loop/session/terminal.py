"""A session on a terminal: an editor of several lines with the countdown above it.

Invariant: nothing reaches the terminal that did not pass `text.shown` or the editor, which shows
control characters as such; whatever the person typed reaches `Hooks.changed` at once.
"""

from __future__ import annotations

import asyncio
import errno
import shutil
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any, TextIO

from prompt_toolkit import PromptSession
from prompt_toolkit.application import Application, run_in_terminal
from prompt_toolkit.buffer import Buffer
from prompt_toolkit.document import Document
from prompt_toolkit.formatted_text import StyleAndTextTuples
from prompt_toolkit.input import create_input
from prompt_toolkit.key_binding import KeyBindings, KeyPressEvent
from prompt_toolkit.keys import Keys
from prompt_toolkit.output import create_output

from mini_vllm.console import Terminated
from mini_vllm.errors import MiniVLLMError
from trackrecord.loop.session.text import MOST, clean, shown, too_long
from trackrecord.loop.session.ui import Command, Hooks, Word, parsed, without_command

_WIDEST = 100
_TICK_SECONDS = 0.25
_ROOM = 64
"""Characters that can be typed beyond the bound of an answer, for a command; they are not kept."""


class TerminalUi:
    """Reads keys from standard input, draws on `out`."""

    def __init__(self, out: TextIO) -> None:
        self._out = out
        self._input = create_input()
        self._output = create_output(stdout=out)

    def show(self, text: str) -> None:
        with _terminal_there():
            print(shown(text, min(shutil.get_terminal_size().columns, _WIDEST)), file=self._out)
            self._out.flush()

    def ask(self, question: str) -> str | None:
        self.show(question)
        prompt: PromptSession[str] = PromptSession(
            input=self._input, output=self._output, erase_when_done=False
        )
        with _terminal_there():
            try:
                return clean(prompt.prompt("> ", set_exception_handler=False))[:MOST]
            except (EOFError, KeyboardInterrupt) as left:
                if isinstance(left, Terminated):
                    raise
                return None

    def answer(self, draft: str, hooks: Hooks) -> Command:
        editor = _Editor(draft, hooks, self.show)
        prompt: PromptSession[Any] = PromptSession(
            input=self._input,
            output=self._output,
            multiline=True,
            erase_when_done=True,
            key_bindings=editor.keys(),
            refresh_interval=1.0,
        )
        prompt.default_buffer.on_text_changed += editor.changed

        # Not the toolbar at the bottom: that needs a terminal that says where its cursor is.
        def status() -> StyleAndTextTuples:
            return [("reverse", f" {hooks.status()} · F2 or /next · F1 or /help "), ("", "\n")]

        def begin() -> None:
            editor.app = prompt.app
            prompt.app.create_background_task(editor.tick())

        with _terminal_there():
            try:
                given = prompt.prompt(
                    status, default=draft, pre_run=begin, set_exception_handler=False
                )
            except (EOFError, KeyboardInterrupt) as left:
                if isinstance(left, Terminated):
                    raise
                given = ("quit", "")
        # Enter with Meta, which ends a text elsewhere, gives the text itself.
        word, argument = given if isinstance(given, tuple) else ("next", "")
        return Command(word, argument, editor.text)


class _Editor:
    """One answer being written. `text` is what is there of it, without a command being typed."""

    def __init__(self, draft: str, hooks: Hooks, show: Callable[[str], None]) -> None:
        self.text = draft
        self.app: Application[Any] | None = None
        self._hooks = hooks
        self._show = show
        self._told_too_long = False
        self._notices: list[str] = []

    def changed(self, buffer: Buffer) -> None:
        if len(buffer.text) > MOST and not self._told_too_long:
            self._notices.append(too_long())
            self._told_too_long = True
        if len(buffer.text) > MOST + _ROOM:
            place = min(buffer.cursor_position, MOST)
            buffer.document = Document(buffer.text[:MOST], place)  # comes here again
            return
        self.text = without_command(buffer.text, buffer.document.cursor_position_row)
        with self._failing():
            self._hooks.changed(self.text)

    async def tick(self) -> None:
        """Asks once in a while what is to be said, and says it above the answer."""
        while True:
            with self._failing():
                notices, self._notices = [*self._notices, *self._hooks.tick()], []
                if notices:
                    await run_in_terminal(partial(self._show, "\n".join(notices)))
            await asyncio.sleep(_TICK_SECONDS)

    def keys(self) -> KeyBindings:
        keys = KeyBindings()

        @keys.add("enter")
        @keys.add("c-j")  # what Enter is in keys typed ahead, before the terminal is set up
        def _enter(event: KeyPressEvent) -> None:
            buffer = event.current_buffer
            if command := parsed(buffer.document.current_line):
                row = buffer.document.cursor_position_row
                self.text = without_command(buffer.text, row)
                self._end(*command)
            else:
                buffer.newline(copy_margin=False)

        @keys.add(Keys.BracketedPaste)
        def _paste(event: KeyPressEvent) -> None:
            event.current_buffer.insert_text(clean(event.data))

        bound: dict[Word, tuple[str, ...]] = {
            "next": ("f2",),
            "help": ("f1",),
            "edit": ("c-x", "c-e"),
            "quit": ("c-c",),
        }
        for word, sequence in bound.items():
            keys.add(*sequence)(lambda _event, word=word: self._end(word, ""))
        return keys

    def _end(self, word: Word, argument: str) -> None:
        if self.app is not None and self.app.future and not self.app.future.done():
            self.app.exit(result=(word, argument))

    @contextmanager
    def _failing(self) -> Iterator[None]:
        """Takes an error out of the event loop, which would only log it, to whoever asked."""
        try:
            yield
        except (MiniVLLMError, OSError) as error:
            if self.app is None or not self.app.future or self.app.future.done():
                raise
            self.app.exit(exception=error)


@contextmanager
def _terminal_there() -> Iterator[None]:
    """Takes a terminal that went away for the signal that says so, whichever comes first."""
    try:
        yield
    except OSError as error:
        if error.errno != errno.EIO:
            raise
        raise Terminated(signal.SIGHUP) from None
