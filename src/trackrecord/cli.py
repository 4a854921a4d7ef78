"""`trackrecord`: from understanding an inference engine to a public track record.

Each command is a module of `trackrecord.commands`, imported only when it is the one asked for.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from importlib import import_module

from mini_vllm import __version__, console

COMMANDS = {
    "upstream": "pin, index and query the upstream tree",
    "issues": "bring a repository's issues here, search them, rank what could be done",
    "gauntlet": "put issues through the five checks that can disqualify them",
    "plan": "write the one-page plan for an issue, or check one",
    "preflight": "check the branch in this clone against the project's own rules",
    "evidence": "run commands and keep what came of them, in a journal that shows tampering",
    "pr": "write the pull request's description in upstream's template",
    "rfc": "start or check a request for comments in upstream's form",
    "review": "prepare the review of a pull request",
    "trust": "show where someone stands in the project, and what would move them up",
    "loop": "sit a mock staff interview, graded in three layers with evidence",
    "venture": "work out what serving a model costs, earns and depends on",
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
