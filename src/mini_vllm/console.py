"""What every command of both programs keeps: one-line errors, exit codes, one JSON document.

Exit codes: 0 done or positive, 1 a negative verdict or a finding, 2 bad usage or bad input, 128 and
the signal's number where one ended the program. Standard output carries the result alone; progress
and errors go to standard error.
"""

from __future__ import annotations

import argparse
import errno
import io
import json
import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from typing import Any, NoReturn, TextIO

from mini_vllm.errors import MiniVLLMError

EXIT_OK, EXIT_NEGATIVE, EXIT_BAD_INPUT = 0, 1, 2
_NO_ROOM = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO, errno.EBADF}
"""Why what was opened cannot be written to; the project's own files have errors of their own."""


class Terminated(KeyboardInterrupt):
    """The program was asked to end by `signal`; cleaned up after like Ctrl-C."""

    def __init__(self, number: int) -> None:
        super().__init__()
        self.number = number


class HelpFormatter(argparse.ArgumentDefaultsHelpFormatter):
    """Shows a default where it says something: not where it is nothing, off, or empty."""

    def _get_help_string(self, action: argparse.Action) -> str | None:
        if action.default is None or action.default is False or action.default == []:
            return action.help
        return super()._get_help_string(action)


class Parser(argparse.ArgumentParser):
    """An `ArgumentParser` whose complaint is one line."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        kwargs.setdefault("formatter_class", HelpFormatter)
        kwargs.setdefault("allow_abbrev", False)
        super().__init__(*args, **kwargs)

    def error(self, message: str) -> NoReturn:
        self.exit(EXIT_BAD_INPUT, f"{self.prog}: {printable(message)} (see '{self.prog} --help')\n")


def printable(text: str) -> str:
    """`text` on one line, with every control character and escape made visible."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


def say(message: str) -> None:
    """One line of progress, for the person watching."""
    if sys.stderr is not None:  # else it would go to standard output
        print(message, file=sys.stderr, flush=True)


def emit_json(document: Any) -> None:
    """The one JSON document of a `--json` run; what a terminal would not show is escaped in it."""
    text = json.dumps(document, indent=2, ensure_ascii=False, allow_nan=False)
    if not text.isascii():
        text = "".join(c if c.isprintable() or c == "\n" else json.dumps(c)[1:-1] for c in text)
    sys.stdout.write(f"{text}\n")


def byte_size(text: str) -> int:
    """Parses `512MiB`, `2GB`, `1048576`; an argparse type. Result in bytes."""
    units = {"": 1, "B": 1, "KB": 10**3, "MB": 10**6, "GB": 10**9}
    units |= {"K": 2**10, "M": 2**20, "G": 2**30, "KIB": 2**10, "MIB": 2**20, "GIB": 2**30}
    digits = text.strip().rstrip("BbIiKkMmGg ")
    try:
        size = int(float(digits) * units[text.strip()[len(digits) :].strip().upper()])
    except (KeyError, ValueError, OverflowError):
        raise argparse.ArgumentTypeError(
            f"not a size: {text!r} (write 512MiB, 2GB or a number of bytes)"
        ) from None
    if size <= 0:
        raise argparse.ArgumentTypeError(f"a size must be greater than 0, got {text!r}")
    return size


def discard(stream: TextIO) -> None:
    """Drops what `stream` holds and what is written to it from now on: its reader left, or there is
    no room. The interpreter would complain again while closing it."""
    with suppress(OSError):  # not a real file
        os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())
    with suppress(OSError):
        stream.flush()


def run(program: str, main: Callable[[Sequence[str]], int], argv: Sequence[str] | None) -> int:
    """Runs `main`, turning the project's errors into one line and exit code 2."""
    if sys.stdout is None:  # closed by whoever started the program; may only be read from
        sys.stdout = open(os.devnull, encoding="utf-8")  # noqa: SIM115
    try:
        with _ended_by_signals():
            code = main(sys.argv[1:] if argv is None else argv)
            sys.stdout.flush()
        return code
    except MiniVLLMError as error:
        say(f"{program}: {printable(str(error))}")
        return EXIT_BAD_INPUT
    except Terminated as error:
        say(f"{program}: ended by {signal.Signals(error.number).name}")
        return 128 + error.number
    except KeyboardInterrupt:
        say(f"{program}: interrupted")
        return 128 + signal.SIGINT
    except BrokenPipeError:  # the reader left (`| head`)
        discard(sys.stdout)
        return EXIT_OK
    except OSError as error:
        if isinstance(error, io.UnsupportedOperation) and not sys.stdout.writable():
            problem = "standard output is closed"
        elif error.errno in _NO_ROOM and error.filename is None:
            problem = str(error.strerror)
        else:
            raise
        say(f"{program}: cannot write: {problem}")
        discard(sys.stdout)
        return EXIT_BAD_INPUT


@contextmanager
def _ended_by_signals() -> Iterator[None]:
    """Lets SIGTERM and SIGHUP unwind the program as Ctrl-C does, where nobody else sees to them."""

    def end(number: int, _frame: object) -> NoReturn:
        raise Terminated(number)

    ours = []
    if threading.current_thread() is threading.main_thread():
        wanted = (signal.SIGTERM, signal.SIGHUP)
        ours = [number for number in wanted if signal.getsignal(number) is signal.SIG_DFL]
    for number in ours:
        signal.signal(number, end)
    try:
        yield
    finally:
        for number in ours:
            signal.signal(number, signal.SIG_DFL)
