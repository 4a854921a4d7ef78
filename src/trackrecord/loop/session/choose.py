"""Which of the two faces a person gets."""

from __future__ import annotations

import os
import sys
from io import TextIOWrapper
from typing import TextIO

from trackrecord.loop.session import SessionError
from trackrecord.loop.session.lines import LineUi
from trackrecord.loop.session.ui import Ui


def choose_ui(out: TextIO) -> Ui:
    """The editor where standard input and `out` are a terminal that can draw it, else lines.

    Raises:
        SessionError: there is no standard input.
    """
    if sys.stdin is None:
        raise SessionError("standard input is closed: a loop is answered there")
    if isinstance(out, TextIOWrapper):  # a terminal of another encoding still shows something
        out.reconfigure(errors="backslashreplace")
    dumb = os.environ.get("TERM", "") in ("", "dumb")
    if sys.stdin.isatty() and out.isatty() and not dumb:
        from trackrecord.loop.session.terminal import TerminalUi

        return TerminalUi(out)
    return LineUi(sys.stdin.buffer, out)
