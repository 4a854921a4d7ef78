"""`trackrecord gauntlet`: the five checks that can disqualify an issue, cheapest first."""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator
from contextlib import ExitStack
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING

from mini_vllm import console
from mini_vllm.console import printable
from trackrecord.commands.flags import add_common_flags
from trackrecord.errors import TrackRecordError
from trackrecord.workspace import Workspace, write_whole

if TYPE_CHECKING:
    from trackrecord.issues.store import Store
    from trackrecord.pr.gauntlet.case import Case
    from trackrecord.pr.gauntlet.report import Report


def configure(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "names", nargs="*", type=candidate_name, metavar="N|Tn", help="issues, or TODO notes"
    )
    parser.add_argument("--all", action="store_true", help="go on after a check that disqualifies")
    parser.add_argument(
        "--judged",
        type=Path,
        metavar="FILE.json",
        help="instead, compare the claimed check with outcomes that a person judged",
    )
    add_case_flags(parser)


def run(args: argparse.Namespace) -> int:
    if bool(args.names) == bool(args.judged):
        raise TrackRecordError("give issue numbers, or --judged FILE.json (see 'gauntlet --help')")
    return _judged(args) if args.judged else _gauntlet(args)


def add_case_flags(parser: argparse.ArgumentParser) -> None:
    """What `gauntlet` and `plan` share."""
    parser.add_argument("--repo", metavar="OWNER/REPO", help="whose issues; by default the pin's")
    parser.add_argument(
        "--now",
        type=_moment,
        metavar="DATE",
        help="count silence up to this day; by default up to the last sync",
    )
    add_common_flags(parser)


def open_cases(args: argparse.Namespace, names: list[str], stack: ExitStack) -> Iterator[Case]:
    """The cases of `names`, with the store and the index held open by `stack`.

    Raises:
        TrackRecordError: there is no store, no index, or no such candidate.
    """
    from trackrecord.pr.gauntlet.case import issue_case, note_case
    from trackrecord.pr.gauntlet.thread import newest
    from trackrecord.upstream.index import Index

    workspace = Workspace.open(args.workspace)
    settings = workspace.settings
    store = stack.enter_context(_store(args, workspace))
    index = stack.enter_context(Index.open(workspace))
    now = args.now or newest(store)
    passed = _passed_in_the_loop(workspace)
    for name in names:
        make = note_case if name.startswith("T") else issue_case
        yield make(store, int(name.lstrip("T#")), index, settings, now, passed)


def _passed_in_the_loop(workspace: Workspace) -> tuple[str, ...]:
    """The areas of the reading map that the person has passed, by `trackrecord loop`."""
    from trackrecord.loop.session.record import runs

    if not runs(workspace):
        return ()
    from trackrecord.loop.marking import grade_runs
    from trackrecord.loop.outcome.passed import passed_areas

    return passed_areas(grade_runs(workspace, simulate=False))


def save_report(workspace: Workspace, report: Report) -> None:
    """Keeps the report for the portfolio, in place of an earlier one on the same candidate."""
    text = json.dumps(report.to_json(), indent=1) + "\n"
    write_whole(workspace.gauntlet_path(report.name.lstrip("#")), text)


def candidate_name(text: str) -> str:
    """`123`, `#123` or `T4`; an argparse type."""
    digits = text.lstrip("#") if text[:1] == "#" else text[1:] if text[:1] in "Tt" else text
    if not (digits.isascii() and digits.isdecimal() and 0 < int(digits[:12]) < 10**9):
        raise argparse.ArgumentTypeError(f"not an issue number or a note (123, T4): {text!r}")
    return f"T{int(digits)}" if text[:1] in "Tt" else f"#{int(digits)}"


def _gauntlet(args: argparse.Namespace) -> int:
    from trackrecord.issues.progress import ProgressLine
    from trackrecord.pr.gauntlet.render import as_text
    from trackrecord.pr.gauntlet.run import run_gauntlet

    reports: list[Report] = []
    with ExitStack() as stack, ProgressLine() as progress:
        for case in open_cases(args, args.names, stack):
            progress("gauntlet", len(reports), len(args.names))
            reports.append(run_gauntlet(case, args.all))
            save_report(Workspace.open(args.workspace), reports[-1])
    if args.json:
        console.emit_json({"reports": [report.to_json() for report in reports]})
    else:
        print("\n\n".join(as_text(report) for report in reports))
    survived = all(report.survives for report in reports)
    return console.EXIT_OK if survived else console.EXIT_NEGATIVE


def _judged(args: argparse.Namespace) -> int:
    from trackrecord.pr.gauntlet.agreement import as_text, compare, read_judgements
    from trackrecord.pr.gauntlet.thread import newest

    judged = read_judgements(args.judged)
    with _store(args, Workspace.open(args.workspace)) as store:
        found = compare(store, judged, args.now or newest(store))
    if args.json:
        console.emit_json(found.to_json())
    else:
        print("\n".join(printable(line) for line in as_text(found).split("\n")))
    return console.EXIT_OK if found.good_enough else console.EXIT_NEGATIVE


def _store(args: argparse.Namespace, workspace: Workspace) -> Store:
    from trackrecord.issues.store import Store
    from trackrecord.upstream.pin import find_pin

    repo = args.repo or find_pin(workspace).repository
    return Store.open(workspace.issues_db(repo), repo)


def _moment(text: str) -> datetime:
    from trackrecord.issues.models import when

    moment = when(text)
    if moment is None:
        raise argparse.ArgumentTypeError(f"not a date: {text!r} (write 2026-01-31)")
    return moment
