"""`trackrecord plan`: one page from an issue, and a check of the page."""

from __future__ import annotations

import argparse
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING

from mini_vllm import console
from mini_vllm.console import printable
from trackrecord.commands.gauntlet import add_case_flags, candidate_name, open_cases, save_report
from trackrecord.errors import TrackRecordError
from trackrecord.workspace import Workspace, write_whole

if TYPE_CHECKING:
    from trackrecord.pr.gauntlet.case import Case
    from trackrecord.pr.plan_lint import Linted

MAX_BYTES = 1_000_000
_BESIDE = Path()
"""What `--skeleton` without a folder means."""


def configure(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("what", metavar="N|Tn|lint", help="an issue, a TODO note, or 'lint'")
    parser.add_argument("file", nargs="?", type=Path, metavar="FILE", help="the plan to lint")
    parser.add_argument(
        "--out", type=Path, metavar="FILE", help="where the plan goes; by default the workspace"
    )
    parser.add_argument(
        "--skeleton",
        nargs="?",
        type=Path,
        const=_BESIDE,
        metavar="DIR",
        help="also write the regression test's file, below DIR (a clone) or beside the plan",
    )
    parser.add_argument("--force", action="store_true", help="replace files that are there")
    add_case_flags(parser)


def run(args: argparse.Namespace) -> int:
    return _lint(args) if args.what == "lint" else _plan(args)


def _plan(args: argparse.Namespace) -> int:
    from trackrecord.pr.gauntlet.run import run_gauntlet
    from trackrecord.pr.plan import build_plan

    if args.file is not None:
        raise TrackRecordError(f"only 'lint' takes a file, got {str(args.file)!r}")
    try:
        name = candidate_name(args.what)
    except argparse.ArgumentTypeError as error:
        raise TrackRecordError(str(error)) from None
    workspace = Workspace.open(args.workspace)
    with ExitStack() as stack:
        (case,) = open_cases(args, [name], stack)
        report = run_gauntlet(case, run_all=True)
        text = build_plan(case, report).render()
        path: Path = args.out or workspace.plan_path(name.lstrip("#"))
        skeleton = _skeleton(args, case, path) if args.skeleton is not None else None
    files = {path: text, **({skeleton[0]: skeleton[1]} if skeleton else {})}
    workspace.create()
    _write(files, args.force)
    save_report(workspace, report)
    if args.json:
        document = {"name": name, "file": str(path), "plan": text, "gauntlet": report.to_json()}
        console.emit_json(document | {"skeleton": str(skeleton[0]) if skeleton else None})
        return console.EXIT_OK
    print("\n".join(printable(line) for line in text.split("\n")))
    for written in files:
        console.say(f"wrote {printable(str(written))}")
    if not report.survives:
        console.say(f"{name} has not passed the gauntlet: {report.verdict}")
    return console.EXIT_OK


def _skeleton(args: argparse.Namespace, case: Case, plan: Path) -> tuple[Path, str]:
    from trackrecord.pr.regression import propose_test, skeleton

    test = propose_test(case)
    if test is None:
        raise TrackRecordError(f"{case.name}: no test comes near, so there is no style to follow")
    root = plan.parent / plan.stem if args.skeleton == _BESIDE else args.skeleton
    return root / test.own_file, skeleton(case, test)


def _write(files: dict[Path, str], force: bool) -> None:
    """Writes each file whole or not at all; one that a person may have changed is kept."""
    for path in files:
        if path.exists() and not force:
            raise TrackRecordError(f"{str(path)!r} is there already: --force replaces it")
    for path, text in files.items():
        write_whole(path, text)


def _lint(args: argparse.Namespace) -> int:
    from trackrecord.pr.plan_lint import lint_plan
    from trackrecord.upstream.index import Index

    if args.file is None:
        raise TrackRecordError("plan lint needs the FILE of a plan")
    try:
        with args.file.open("rb") as file:
            text = file.read(MAX_BYTES).decode("utf-8", "replace")
    except OSError as error:
        raise TrackRecordError(f"cannot read {str(args.file)!r}: {error.strerror}") from None
    with Index.open(Workspace.open(args.workspace)) as index:
        found = lint_plan(text, index)
    if args.json:
        problems = [{"rule": p.rule, "line": p.line, "text": p.text} for p in found.problems]
        document = {"file": str(args.file), "passes": found.passes, "problems": problems}
        counts = {"anchors": found.anchors, "open_questions": found.open_questions}
        console.emit_json(document | counts)
    else:
        _print_lint(str(args.file), found)
    return console.EXIT_OK if found.passes else console.EXIT_NEGATIVE


def _print_lint(file: str, found: Linted) -> None:
    for problem in found.problems:
        where = f"{file}:{problem.line}" if problem.line else file
        print(printable(f"{where}: {problem.rule}: {problem.text}"))
    count = len(found.problems)
    verdict = "a plan" if found.passes else f"not yet a plan, {count} to settle"
    asked = f", {found.open_questions} questions open" if found.open_questions else ""
    print(printable(f"{file}: {verdict} ({found.anchors} anchors{asked})"))
