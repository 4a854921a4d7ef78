"""A program at a pseudo-terminal, as a person has it before them."""

from __future__ import annotations

import fcntl
import os
import pty
import select
import signal
import struct
import sys
import termios
import time
from pathlib import Path

_PATIENCE = 15.0


class PseudoTerminal:
    """Runs a Python program with a terminal of 100 columns as its own; `seen` is its output."""

    def __init__(self, *words: str) -> None:
        self.seen = ""
        self._ended: int | None = None
        self.pid, self._master = pty.fork()
        if self.pid == 0:
            settings = {"TERM": "xterm", "PROMPT_TOOLKIT_NO_CPR": "1"}
            os.execve(sys.executable, [sys.executable, *words], os.environ | settings)  # noqa: S606
        fcntl.ioctl(self._master, termios.TIOCSWINSZ, struct.pack("HHHH", 30, 100, 0, 0))

    def __enter__(self) -> PseudoTerminal:
        return self

    def __exit__(self, *_: object) -> None:
        if self._ended is None:
            self.kill(signal.SIGKILL)
            self.wait()
        self.hang_up()

    def type(self, text: str) -> None:
        rest = text.encode()
        while rest:
            writable = select.select([], [self._master], [], 0.05)[1]
            self._read()
            if writable:
                rest = rest[os.write(self._master, rest[:1024]) :]

    def expect(self, text: str, after: int = 0) -> int:
        """Waits until `text` is seen behind `after`; returns where it ends."""
        end = time.monotonic() + _PATIENCE
        while (place := self.seen.find(text, after)) < 0:
            assert time.monotonic() < end, f"{text!r} did not come: {self.seen[-600:]!r}"
            self._read(0.05)
        return place + len(text)

    def until(self, condition) -> None:
        """Waits, reading, until `condition()` holds."""
        end = time.monotonic() + _PATIENCE
        while not condition():
            assert time.monotonic() < end, f"it did not come about: {self.seen[-600:]!r}"
            self._read(0.05)

    def kill(self, number: int) -> None:
        os.kill(self.pid, number)

    def hang_up(self) -> None:
        if self._master >= 0:
            os.close(self._master)
            self._master = -1

    def wait(self) -> int:
        """Waits for the end; the exit code, negative for a signal."""
        while self._ended is None:
            if self._master >= 0:
                self._read(0.02)
            pid, status = os.waitpid(self.pid, os.WNOHANG if self._master >= 0 else 0)
            if pid:
                self._ended = os.waitstatus_to_exitcode(status)
        return self._ended

    def _read(self, wait: float = 0.0) -> None:
        if select.select([self._master], [], [], wait)[0]:
            try:
                self.seen += os.read(self._master, 65536).decode(errors="replace")
            except OSError:  # its end is closed
                time.sleep(wait)


def journal_text(workspace: Path) -> str:
    """All that lies in the journals of the runs there."""
    return "".join(path.read_text() for path in sorted(workspace.glob("loop/*/journal.jsonl")))
