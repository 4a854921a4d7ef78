"""`trackrecord pr body`: the description of the pull request, from what is on record."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from mini_vllm import console
from trackrecord.commands.preflight import add_branch_flags, read_text
from trackrecord.errors import TrackRecordError
from trackrecord.pr.gitrepo import Repository
from trackrecord.workspace import Workspace, write_whole


def configure(parser: argparse.ArgumentParser) -> None:
    actions = parser.add_subparsers(dest="action", required=True, metavar="ACTION")
    summary = "compose the description from plan, evidence and statements"
    body = actions.add_parser("body", help=summary, description=summary)
    add_branch_flags(body)
    body.add_argument(
        "--purpose", default="", metavar="TEXT", help="what it is for; @FILE reads a file"
    )
    body.add_argument(
        "--plan", type=Path, metavar="FILE", help="the plan; by default that of the issue"
    )
    body.add_argument("--ai-note", default="", metavar="TEXT", help="what AI helped with")
    body.add_argument(
        "--section",
        action="append",
        default=[],
        metavar="HEADING=TEXT",
        help="the answer to another heading of the template; @FILE reads a file",
    )
    body.add_argument("--out", type=Path, metavar="FILE", help="write it there, not to the screen")


def run(args: argparse.Namespace) -> int:
    from trackrecord.pr import body as bodies
    from trackrecord.pr.journal import Journal
    from trackrecord.pr.preflight.run import Request, read_branch

    workspace = Workspace.open(args.workspace)
    request = Request(
        Repository.open(args.repo), workspace, args.base, args.title, None, args.issue
    )
    branch = read_branch(request, Journal(workspace))
    try:
        answers = dict(map(_answer, args.section))
        given = bodies.Given(_text(args.purpose), args.ai_note, args.plan, answers)
        body = bodies.compose(branch, workspace, given)
    finally:
        if branch.store is not None:
            branch.store.close()
    if body.text and args.out:
        write_whole(args.out, body.text)
    if args.json:
        console.emit_json(
            {
                "written": bool(body.text),
                "body": body.text,
                "missing": list(body.missing),
                "out": str(args.out) if args.out and body.text else None,
            }
        )
    elif body.missing:
        print("not written: the description still lacks")
        for item in body.missing:
            print(f"  - {console.printable(item)}")
    elif args.out:
        print(f"{args.out}: written")
    else:
        sys.stdout.write(body.text)
    return console.EXIT_NEGATIVE if body.missing else console.EXIT_OK


def _text(value: str) -> str:
    return read_text(Path(value[1:])) if value.startswith("@") else value


def _answer(value: str) -> tuple[str, str]:
    heading, equals, text = value.partition("=")
    if not equals:
        raise TrackRecordError(f"--section {value!r}: write HEADING=TEXT")
    return heading.strip(), _text(text)
