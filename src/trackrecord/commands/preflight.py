"""`trackrecord preflight`: the branch in this clone against upstream's own rules."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from mini_vllm import console
from trackrecord.commands.flags import add_common_flags
from trackrecord.errors import TrackRecordError
from trackrecord.pr.gitrepo import Repository
from trackrecord.pr.statements import (
    AI,
    DEFENCE,
    NOT_DUPLICATE,
    REVIEWED,
    TESTS_RUN,
    TEXTS,
    WAIVER,
)
from trackrecord.workspace import Workspace

MAX_BODY_BYTES = 1_000_000
_FLAGS = {
    REVIEWED: "--i-reviewed-every-line",
    TESTS_RUN: "--i-ran-the-tests",
    DEFENCE: "--i-can-defend-this-change",
    NOT_DUPLICATE: "--i-checked-for-duplicates",
}


def configure(parser: argparse.ArgumentParser) -> None:
    add_branch_flags(parser)
    parser.add_argument(
        "--pr-body", type=Path, metavar="FILE", help="the description ('-' reads standard input)"
    )
    parser.add_argument(
        "--hooks",
        choices=("auto", "always", "never"),
        default="auto",
        help="run pre-commit where it is installed, unless the branch changes what it would run",
    )
    parser.add_argument(
        "--format",
        choices=("text", "json", "sarif", "github"),
        default="text",
        help="how to print the report",
    )
    said = parser.add_argument_group("statements", "each is recorded for the last commit")
    said.add_argument("--ai-assistance", choices=("none", "used"), help="whether AI assisted")
    for what, flag in _FLAGS.items():
        said.add_argument(flag, dest=what, action="store_true", help=f"state: “{TEXTS[what]}”")
    said.add_argument(
        "--waive",
        action="append",
        default=[],
        metavar="RULE=REASON",
        help="state why a rule does not apply to this branch",
    )


def add_branch_flags(parser: argparse.ArgumentParser) -> None:
    """What names the branch, for every command about one."""
    parser.add_argument(
        "--repo", type=Path, default=Path(), metavar="DIR", help="a folder of the clone"
    )
    parser.add_argument(
        "--base", metavar="REV", help="what to compare with; by default upstream's main branch"
    )
    parser.add_argument("--issue", type=int, metavar="N", help="the issue that it is for")
    parser.add_argument(
        "--title", metavar="TEXT", help="title of the pull request; by default the only commit's"
    )
    add_common_flags(parser)


def run(args: argparse.Namespace) -> int:
    from trackrecord.pr.preflight import output
    from trackrecord.pr.preflight.run import Request, preflight

    report = preflight(
        Request(
            repository=Repository.open(args.repo),
            workspace=Workspace.open(args.workspace),
            base=args.base,
            title=args.title,
            body=read_text(args.pr_body) if args.pr_body else None,
            issue=args.issue,
            hooks=args.hooks,
            said=tuple(_said(args)),
        )
    )
    form = "json" if args.json else args.format
    if form == "json":
        console.emit_json(output.as_json(report))
    elif form == "sarif":
        console.emit_json(output.as_sarif(report))
    elif form == "github":
        sys.stdout.write(output.as_github(report))
    else:
        sys.stdout.write(output.as_text(report))
    return console.EXIT_OK if report.ready else console.EXIT_NEGATIVE


def read_text(path: Path) -> str:
    """The text of a file, or of standard input for "-".

    Raises:
        TrackRecordError: it cannot be read, is too large, or is not UTF-8.
    """
    try:
        if str(path) == "-":
            content = sys.stdin.buffer.read(MAX_BODY_BYTES + 1)
        else:
            with path.open("rb") as file:
                content = file.read(MAX_BODY_BYTES + 1)
    except OSError as error:
        raise TrackRecordError(f"cannot read {str(path)!r}: {error.strerror}") from None
    if len(content) > MAX_BODY_BYTES:
        raise TrackRecordError(f"{str(path)!r} is larger than {MAX_BODY_BYTES:,} bytes")
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise TrackRecordError(f"{str(path)!r} is not UTF-8 (byte {error.start})") from None


def _said(args: argparse.Namespace) -> list[tuple[str, str, str]]:
    said = [(AI, args.ai_assistance, "")] if args.ai_assistance else []
    said += [(what, "", "") for what in _FLAGS if getattr(args, what)]
    for waiver in args.waive:
        rule, equals, reason = waiver.partition("=")
        if not equals:
            raise TrackRecordError(f"--waive {waiver}: write RULE=REASON")
        said.append((WAIVER, reason.strip(), rule.strip()))
    return said
