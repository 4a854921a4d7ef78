"""What every command of both programs keeps: one-line errors, exit codes, one JSON document.

Exit codes: 0 done or positive, 1 a negative verdict or a finding, 2 bad usage or bad input.
Standard output carries the result alone; progress and errors go to standard error.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Callable, Sequence
from typing import Any, NoReturn

from mini_vllm.errors import MiniVLLMError

EXIT_OK, EXIT_NEGATIVE, EXIT_BAD_INPUT = 0, 1, 2


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


def run(program: str, main: Callable[[Sequence[str]], int], argv: Sequence[str] | None) -> int:
    """Runs `main`, turning the project's errors into one line and exit code 2."""
    try:
        code = main(sys.argv[1:] if argv is None else argv)
        sys.stdout.flush()
        return code
    except MiniVLLMError as error:
        say(f"{program}: {printable(str(error))}")
        return EXIT_BAD_INPUT
    except KeyboardInterrupt:
        say(f"{program}: interrupted")
        return 130
    except BrokenPipeError:
        # The reader left (`| head`); the interpreter would complain again while closing stdout.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return EXIT_OK
