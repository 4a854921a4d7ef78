"""The person's own editor, with the draft kept whenever they save it there."""

from __future__ import annotations

import os
import shlex
import signal
import subprocess
import sys
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from mini_vllm.console import printable
from trackrecord.loop.session import SessionError
from trackrecord.loop.session.text import MOST

_LOOK_SECONDS = 0.1


def edit(draft: str, file: Path, saved: Callable[[str], None]) -> str:
    """Opens `file` with `draft` in `$VISUAL` or `$EDITOR`; returns what it holds afterwards.

    Args:
        saved: called with the text each time the editor has saved it.

    Raises:
        SessionError: no editor is named, or it cannot be run.
    """
    command = os.environ.get("VISUAL") or os.environ.get("EDITOR") or ""
    try:
        words = shlex.split(command)
        if not words:
            raise SessionError("no editor is named: set VISUAL or EDITOR, or write here")
        file.write_text(draft, encoding="utf-8")
        _run([*words, str(file)], file, saved)
        return _read(file)
    except ValueError:
        raise SessionError(f"not a command line: {command!r} (VISUAL or EDITOR)") from None
    except OSError as error:
        raise SessionError(f"cannot edit in {printable(command)}: {error.strerror}") from None
    finally:
        with suppress(OSError):
            file.unlink()


def _run(words: list[str], file: Path, saved: Callable[[str], None]) -> None:
    # A Ctrl-C is the editor's while it runs; a handler, unlike "ignore", is not inherited by it.
    before = signal.signal(signal.SIGINT, lambda _number, _frame: None)
    stdin = None if sys.stdin.isatty() else subprocess.DEVNULL
    seen = _version(file)
    try:
        with subprocess.Popen(words, stdin=stdin) as running:  # noqa: S603 (the person's own)
            try:
                while True:
                    with suppress(subprocess.TimeoutExpired):
                        running.wait(_LOOK_SECONDS)
                        return
                    with suppress(FileNotFoundError):  # editors replace it
                        if (version := _version(file)) != seen:
                            seen = version
                            saved(_read(file))
            except BaseException:
                running.terminate()
                raise
    finally:
        signal.signal(signal.SIGINT, before)


def _version(file: Path) -> tuple[int, int]:
    status = file.stat()
    return status.st_mtime_ns, status.st_size


def _read(file: Path) -> str:
    with file.open("rb") as stream:
        text = stream.read(4 * MOST + 1).decode("utf-8", errors="replace")
    return text if text.endswith("\n") or not text else f"{text}\n"
