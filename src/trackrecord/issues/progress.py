"""Progress of long work on standard error: one line, rewritten, and only for a person who waits."""

from __future__ import annotations

import sys
import time
from types import TracebackType
from typing import TextIO

SILENT_SECONDS = 2.0
"""Work that is done by then shows nothing."""
REDRAW_SECONDS = 0.1
_WIDTH = 24


class ProgressLine:
    """A bar where the total is known, a count where it is not. Silent unless on a terminal."""

    def __init__(self, stream: TextIO | None = None) -> None:
        self._stream = stream or sys.stderr
        self._shown = self._stream.isatty()
        self._next = time.monotonic() + SILENT_SECONDS
        self._drawn = False

    def __enter__(self) -> ProgressLine:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._clear()

    def __call__(self, what: str, done: int, total: int | None = None) -> None:
        """Shows that `done` of `total` are done."""
        now = time.monotonic()
        if not self._shown or now < self._next:
            return
        self._next = now + REDRAW_SECONDS
        if total:
            filled = _WIDTH * min(done, total) // total
            bar = "#" * filled + "-" * (_WIDTH - filled)
            line = f"{what} [{bar}] {100 * min(done, total) // total:3d} % of {total:,}"
        else:
            line = f"{what} {done:,}"
        self._stream.write(f"\r\x1b[2K{line}")
        self._stream.flush()
        self._drawn = True

    def say(self, line: str) -> None:
        """A line of its own, above the bar; also where there is no terminal."""
        self._clear()
        self._stream.write(f"{line}\n")
        self._stream.flush()

    def _clear(self) -> None:
        if self._drawn:
            self._stream.write("\r\x1b[2K")
            self._stream.flush()
            self._drawn = False
