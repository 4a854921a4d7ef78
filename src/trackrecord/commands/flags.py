"""Flags that the workbench's commands share."""

from __future__ import annotations

import argparse

from trackrecord.workspace import DEFAULT_FOLDER


def add_common_flags(parser: argparse.ArgumentParser) -> None:
    """`--workspace` and `--json`."""
    add_workspace_flag(parser)
    parser.add_argument("--json", action="store_true", help="print one JSON document")


def add_workspace_flag(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--workspace", default=DEFAULT_FOLDER, metavar="DIR", help="the workbench's folder"
    )
