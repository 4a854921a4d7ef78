"""`trackrecord loop`: sit the mock staff loop, see what came of it, and practise what was weak."""

from __future__ import annotations

import argparse
import sys
from typing import TYPE_CHECKING, TextIO

from mini_vllm import console
from mini_vllm.console import printable
from trackrecord.commands import loop_bank, loop_outcome
from trackrecord.commands.flags import add_common_flags, whole
from trackrecord.workspace import Workspace

if TYPE_CHECKING:
    from trackrecord.loop.session.record import Run


def configure(parser: argparse.ArgumentParser) -> None:
    actions = parser.add_subparsers(dest="action", required=True, metavar="ACTION")

    summary = "begin a run: four timed sessions, or a part of them"
    start = actions.add_parser("start", help=summary, description=summary)
    start.add_argument(
        "--session", type=int, action="append", metavar="N", help="only this, 1 to 4; repeatable"
    )
    start.add_argument("--seed", type=_seed, metavar="N", help="draw the same items again")
    practice = start.add_mutually_exclusive_group()
    practice.add_argument("--only", metavar="AREA", help="practise one area, by number or name")
    practice.add_argument("--item", metavar="NAME", help="practise one, as incident:block-leak")
    practice.add_argument("--due", action="store_true", help="practise what is due today")
    add_common_flags(start)

    summary = "go on with a run, its clock having run on"
    resume = actions.add_parser("resume", help=summary, description=summary)
    resume.add_argument("run", nargs="?", metavar="RUN", help="which, if not the last")
    resume.add_argument(
        "--salvage", action="store_true", help="of a damaged journal, go on with what is intact"
    )
    add_common_flags(resume)

    summary = "give your own scores beside the model answers"
    score = actions.add_parser("score", help=summary, description=summary)
    score.add_argument("run", nargs="?", metavar="RUN", help="which, if not the last")
    add_common_flags(score)

    loop_outcome.configure(actions)
    loop_bank.configure(actions)


def run(args: argparse.Namespace) -> int:
    sitting = {"start": _start, "resume": _resume, "score": _score}
    if args.action in sitting:
        return _told(sitting[args.action](args), args)
    others = loop_outcome.ACTIONS | loop_bank.ACTIONS
    return others[args.action](args)


def _start(args: argparse.Namespace) -> Run:
    from trackrecord.errors import TrackRecordError
    from trackrecord.loop.catalogue import catalogue, find_area, make_item
    from trackrecord.loop.session import sit
    from trackrecord.loop.session.choose import choose_ui
    from trackrecord.loop.session.plan import SESSIONS

    workspace = Workspace.open(args.workspace)
    if args.session and (args.only or args.item or args.due):
        raise TrackRecordError("--session is for the loop; --only, --item and --due are practice")
    items: tuple[str, ...] = ()
    if args.item:
        items = (make_item(args.item).name,)
    elif args.due:
        items = loop_outcome.due_items(workspace)
        if not items:
            raise TrackRecordError("nothing is due today: `trackrecord loop due` says what is next")
    return sit.start(
        workspace,
        catalogue(),
        choose_ui(_screen(args)),
        seed=args.seed,
        sessions=args.session or SESSIONS,
        only=find_area(args.only).number if args.only else None,
        items=items,
    )


def _resume(args: argparse.Namespace) -> Run:
    from trackrecord.loop.catalogue import catalogue
    from trackrecord.loop.session import sit
    from trackrecord.loop.session.choose import choose_ui

    workspace = Workspace.open(args.workspace)
    ui = choose_ui(_screen(args))
    return sit.resume(workspace, catalogue(), ui, args.run, salvage=args.salvage)


def _score(args: argparse.Namespace) -> Run:
    from trackrecord.loop.catalogue import catalogue
    from trackrecord.loop.session import sit
    from trackrecord.loop.session.choose import choose_ui

    workspace = Workspace.open(args.workspace)
    run_id = args.run or loop_outcome.last_run(workspace)
    return sit.score(workspace, catalogue(), choose_ui(_screen(args)), run_id)


def _told(run: Run, args: argparse.Namespace) -> int:
    """The result of a sitting on standard output; exit 1 where it is not done."""
    answered = sum(bool(answer.text.strip()) for answer in run.answers)
    if args.json:
        console.emit_json(
            {"run": run.id, "seed": run.seed, "practice": run.practice}
            | {"started": run.started, "ended": run.ended or None, "answered": answered}
        )
    for line in (*run.problems, *run.notes):
        console.say(printable(f"trackrecord: {line}"))
    return console.EXIT_OK if run.ended else console.EXIT_NEGATIVE


def _screen(args: argparse.Namespace) -> TextIO:
    """Where the session is drawn: not where the JSON document goes."""
    return sys.stderr if args.json else sys.stdout


def _seed(text: str) -> int:
    return whole(text, 0, 2**32 - 1)
