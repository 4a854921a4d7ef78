"""Flags that the workbench's commands share."""

from __future__ import annotations

import argparse

from trackrecord.workspace import DEFAULT_FOLDER


def whole(text: str, least: int, most: int) -> int:
    """A whole number within bounds; for argparse types.

    Raises:
        ArgumentTypeError: it is none, or lies outside.
    """
    if not (text.isascii() and text.isdigit() and len(text) < 20 and least <= int(text) <= most):
        raise argparse.ArgumentTypeError(
            f"must be a whole number from {least} to {most:,}, got {text!r}"
        )
    return int(text)


def add_common_flags(parser: argparse.ArgumentParser) -> None:
    """`--workspace` and `--json`."""
    add_workspace_flag(parser)
    parser.add_argument("--json", action="store_true", help="print one JSON document")


def add_workspace_flag(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--workspace", default=DEFAULT_FOLDER, metavar="DIR", help="the workbench's folder"
    )
