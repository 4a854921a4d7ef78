"""`mini-vllm`: serve, chat with, measure and replay a small vLLM.

Each command is a module of `mini_vllm.commands`, imported only when it is the one asked for, so
that `--help` and `replay` never pay for torch.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from importlib import import_module

from mini_vllm import __version__, console

COMMANDS = {
    "serve": "serve a model over an OpenAI-compatible HTTP API",
    "chat": "talk to a model in the terminal",
    "generate": "complete prompts and print the result",
    "bench": "measure the engine on this machine",
    "replay": "run the scheduler over a recorded workload, without a model",
    "models": "list the models that can be used by name",
    "size": "show what a model takes on a device, with the arithmetic",
    "simulate": "run the scheduler over made traffic on modelled hardware",
    "sweep": "simulate a grid of configurations and find the cheapest that will do",
}


def main(argv: Sequence[str] | None = None) -> int:
    """Entry point; returns the exit code."""
    return console.run("mini-vllm", _main, argv)


def _main(argv: Sequence[str]) -> int:
    parser = console.Parser(prog="mini-vllm", description="An LLM engine small enough to read.")
    parser.add_argument("--version", action="version", version=f"mini-vllm {__version__}")
    subparsers = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    asked = next((word for word in argv if not word.startswith("-")), None)
    for name, summary in COMMANDS.items():
        subparser = subparsers.add_parser(name, help=summary, description=summary)
        if name == asked:
            import_module(f"mini_vllm.commands.{name}").configure(subparser)
    args = parser.parse_args(argv)
    return int(import_module(f"mini_vllm.commands.{args.command}").run(args))


if __name__ == "__main__":
    sys.exit(main())
