"""`trackrecord rfc`: a request for comments in upstream's form."""

from __future__ import annotations

import argparse
import sys
from dataclasses import asdict
from pathlib import Path

from mini_vllm import console
from mini_vllm.console import printable
from trackrecord.commands.flags import add_common_flags
from trackrecord.commands.preflight import read_text
from trackrecord.errors import TrackRecordError
from trackrecord.pr.preflight.rulebook import Rulebook, open_rulebook
from trackrecord.workspace import Workspace


def configure(parser: argparse.ArgumentParser) -> None:
    actions = parser.add_subparsers(dest="action", required=True, metavar="ACTION")
    summary = "write an empty RFC with the headings of upstream's form"
    new = actions.add_parser("new", help=summary, description=summary)
    new.add_argument("--title", required=True, metavar="TEXT", help="without the prefix")
    new.add_argument(
        "--path",
        action="append",
        default=[],
        metavar="PATH",
        help="a file it concerns, whose owners go into the list of people to inform",
    )
    new.add_argument("--out", type=Path, metavar="FILE", help="write it there; never over a file")
    summary = "check that an RFC answers what the form asks"
    lint = actions.add_parser("lint", help=summary, description=summary)
    lint.add_argument("file", type=Path, metavar="FILE", help="the draft ('-' for standard input)")
    for action in (new, lint):
        action.add_argument("--repo", type=Path, metavar="DIR", help="a clone, not the pinned tree")
        add_common_flags(action)


def run(args: argparse.Namespace) -> int:
    from trackrecord.pr.rfc import lint_rfc, new_rfc, rfc_form

    book = open_rulebook(Workspace.open(args.workspace), args.repo)
    form = rfc_form(book)
    if args.action == "new":
        return _write(new_rfc(form, args.title, _owners(book, args.path)), args)
    findings = lint_rfc(form, read_text(args.file), book)
    blocking = [finding for finding in findings if finding.level.blocks]
    if args.json:
        from trackrecord.pr.preflight.output import clean

        document = {"complete": not blocking, "findings": [asdict(f) for f in findings]}
        console.emit_json(clean(document))
    else:
        for finding in findings:
            print(printable(f"{finding.level}: {finding.message} [{finding.sources[0]}]"))
        print("not complete" if blocking else "complete")
    return console.EXIT_NEGATIVE if blocking else console.EXIT_OK


def _owners(book: Rulebook, paths: list[str]) -> list[str]:
    from trackrecord.pr.preflight.rulebook import first_text
    from trackrecord.upstream.owners import LOCATIONS, deciding_rule, parse_codeowners

    found = first_text(book, LOCATIONS)
    rules = parse_codeowners(found[1]) if found else []
    decided = (deciding_rule(rules, path) for path in paths)
    return list(dict.fromkeys(owner for rule in decided if rule for owner in rule.owners))


def _write(text: str, args: argparse.Namespace) -> int:
    if args.out:
        try:
            with args.out.open("x", encoding="utf-8") as file:
                file.write(text)
        except FileExistsError:
            raise TrackRecordError(f"{str(args.out)!r} exists: give another name") from None
        except OSError as error:
            raise TrackRecordError(f"cannot write {str(args.out)!r}: {error.strerror}") from None
    if args.json:
        console.emit_json({"out": str(args.out) if args.out else None, "text": text})
    elif args.out:
        print(f"{args.out}: written")
    else:
        sys.stdout.write(text)
    return console.EXIT_OK
