"""`trackrecord`: from understanding an inference engine to a public track record.

Each command is a module of `trackrecord.commands`, imported only when it is the one asked for.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from importlib import import_module

from mini_vllm import __version__, console

COMMANDS = {
    "portfolio": "put the track record together as a folder to publish",
}


def main(argv: Sequence[str] | None = None) -> int:
    """Entry point; returns the exit code."""
    return console.run("trackrecord", _main, argv)


def _main(argv: Sequence[str]) -> int:
    parser = console.Parser(
        prog="trackrecord", description="Turn understanding of an LLM engine into a track record."
    )
    parser.add_argument("--version", action="version", version=f"trackrecord {__version__}")
    subparsers = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    asked = next((word for word in argv if not word.startswith("-")), None)
    for name, summary in COMMANDS.items():
        subparser = subparsers.add_parser(name, help=summary, description=summary)
        if name == asked:
            import_module(f"trackrecord.commands.{name}").configure(subparser)
    args = parser.parse_args(argv)
    return int(import_module(f"trackrecord.commands.{args.command}").run(args))


if __name__ == "__main__":
    sys.exit(main())
