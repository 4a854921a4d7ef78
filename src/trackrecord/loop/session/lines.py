"""A session line by line: for a pipe, a script, or a terminal that can do no more."""

from __future__ import annotations

import shutil
from typing import BinaryIO, TextIO

from trackrecord.loop.session.text import MOST, clean, shown, too_long
from trackrecord.loop.session.ui import Command, Hooks, parsed

_WIDEST = 100
_PIECE = 1 << 16
"""Bytes read at once: a line may have no end."""


class LineUi:
    """Reads lines from `source`, shows on `out`. Each line is kept as soon as it is there."""

    def __init__(self, source: BinaryIO, out: TextIO) -> None:
        self._source = source
        self._out = out

    def show(self, text: str) -> None:
        print(shown(text, min(shutil.get_terminal_size().columns, _WIDEST)), file=self._out)
        self._out.flush()

    def answer(self, draft: str, hooks: Hooks) -> Command:
        text, told = draft, False
        if draft:
            self.show(f"So far:\n{draft}")
        self.show(f"[{hooks.status()}]")
        while True:
            line = self._line()
            for notice in hooks.tick():
                self.show(notice)
            if line is None:
                return Command("quit", "", text)
            if command := parsed(line):
                return Command(*command, text)
            begun = text if not text or text.endswith("\n") else f"{text}\n"
            text = f"{begun}{line}\n"
            if len(text) > MOST and not told:
                told = True
                self.show(too_long())
            text = text[:MOST]
            hooks.changed(text)

    def ask(self, question: str) -> str | None:
        self.show(question)
        return self._line()

    def _line(self) -> str | None:
        """The next line, cut at the bound of an answer; None at the end."""
        kept, whole = b"", False
        while not whole:
            piece = self._source.readline(_PIECE)
            if not piece:
                return clean(kept.decode("utf-8", errors="replace")) if kept else None
            whole = piece.endswith(b"\n")
            if len(kept) <= 4 * MOST:
                kept += piece
        return clean(kept.decode("utf-8", errors="replace").rstrip("\r\n"))
