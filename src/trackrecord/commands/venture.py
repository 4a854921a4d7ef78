"""`trackrecord venture`: a sheet of assumptions in, unit economics and a thesis out."""

from __future__ import annotations

import argparse
import json
from datetime import UTC, datetime
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING

from mini_vllm import console
from mini_vllm.console import printable
from trackrecord.commands.flags import add_common_flags, whole
from trackrecord.errors import TrackRecordError
from trackrecord.venture.uncertainty import DRAWS
from trackrecord.workspace import Workspace, write_whole

if TYPE_CHECKING:
    from trackrecord.venture.lint import Problem
    from trackrecord.venture.report import VentureReport

_FEWEST_DRAWS, _MOST_DRAWS = 100, 200_000
_SHIPPED_SCENARIO = "../simulations/70b-chat.toml"
"""As the shipped sheet names it; a new one names its own copy."""


def configure(parser: argparse.ArgumentParser) -> None:
    actions = parser.add_subparsers(dest="action", required=True, metavar="ACTION")

    summary = "write a commented sheet to fill in, with a scenario beside it"
    new = actions.add_parser("new", help=summary, description=summary)
    new.add_argument(
        "file", nargs="?", type=Path, default=Path("venture.toml"), metavar="FILE", help="where"
    )
    new.add_argument("--json", action="store_true", help="print one JSON document")

    summary = "simulate the sheet's scenario and compute cost, margin, options and their ranges"
    report = actions.add_parser("report", help=summary, description=summary)
    report.add_argument("sheet", type=Path, metavar="SHEET.toml", help="what is assumed")
    report.add_argument(
        "--out", type=Path, metavar="DIR", help="also write the page, its plots and data there"
    )
    report.add_argument(
        "--draws", type=_draws, default=DRAWS, metavar="N", help="Monte Carlo draws"
    )
    report.add_argument("--seed", type=_seed, default=0, metavar="N", help="of the draws")
    add_common_flags(report)

    summary = "check that every number of a sheet can be checked"
    linter = actions.add_parser("lint", help=summary, description=summary)
    linter.add_argument("sheet", type=Path, metavar="SHEET.toml", help="what to check")
    linter.add_argument("--json", action="store_true", help="print one JSON document")


def run(args: argparse.Namespace) -> int:
    return {"new": _new, "report": _report, "lint": _lint}[args.action](args)


def _new(args: argparse.Namespace) -> int:
    path: Path = args.file
    scenario = path.with_name(f"{path.stem}-scenario.toml")
    for there in (path, scenario):
        if there.exists() or there.is_symlink():
            raise TrackRecordError(f"{str(there)!r} is there already: give another name")
    if '"' in scenario.name or "\\" in scenario.name or not scenario.name.isprintable():
        raise TrackRecordError(f"{str(path)!r} cannot be named in a sheet: give a plainer name")
    shipped = resources.files("trackrecord.venture")
    sheet = shipped.joinpath("example.toml").read_text(encoding="utf-8")
    write_whole(scenario, shipped.joinpath("example_scenario.toml").read_text(encoding="utf-8"))
    write_whole(path, sheet.replace(_SHIPPED_SCENARIO, scenario.name))
    if args.json:
        console.emit_json({"sheet": str(path), "scenario": str(scenario)})
        return console.EXIT_OK
    print(printable(f"{path}: a sheet to fill in: put your values, each with date and source"))
    print(printable(f"{scenario}: what is served, on what, to whom"))
    return console.EXIT_OK


def _report(args: argparse.Namespace) -> int:
    from trackrecord.venture.page import venture_page
    from trackrecord.venture.report import build_report
    from trackrecord.venture.sheet import load_sheet

    workspace = Workspace.open(args.workspace)
    sheet = load_sheet(args.sheet)
    today = datetime.now(tz=UTC).date()
    report = build_report(sheet, today, draws=args.draws, seed=args.seed, say=console.say)
    workspace.create()
    text = json.dumps(report.to_json(), indent=1, allow_nan=False)
    write_whole(workspace.venture_path, f"{text}\n")
    if args.out is not None:
        from trackrecord.portfolio.folder import write_files

        try:
            write_files(args.out, venture_page(report).files)
        except OSError as error:
            words = f"cannot write {str(args.out)!r}: {error.strerror}"
            raise TrackRecordError(words) from None
    if args.json:
        console.emit_json(report.to_json())
    else:
        for line in lines_of(report):
            print(printable(line))
    if args.out is not None:
        console.say(printable(f"wrote {args.out / 'venture.html'}"))
    return console.EXIT_OK if report.is_positive else console.EXIT_NEGATIVE


def lines_of(report: VentureReport) -> list[str]:
    """The report for a person at a terminal; the derivations are in the page and the JSON."""
    from trackrecord.venture.page import summary

    found = report.simulation
    lines = [
        report.title,
        f"{found.title}: {found.devices} devices, step times by {found.cost_model}",
        summary(report),
        "",
        f"{'':<52}{'value':>30}   5th to 95th percentile",
    ]
    lines += [f"{f.name:<52}{f.shown:>30}   {f.range}" for f in report.figures]
    lines.append("")
    for flip in report.flips[:5]:
        lines.append(
            f"{flip.to} would cost less than {report.best} from {flip.key} = {flip.at:.4g} on "
            f"(believed: {flip.value:.4g})"
        )
    errors = sum(problem.is_error for problem in report.problems)
    if report.problems:
        lines.append(
            f"{errors} errors and {len(report.problems) - errors} warnings: see "
            "`trackrecord venture lint`"
        )
    if not found.meets_slo:
        lines.append(
            f"the scenario's objective is broken: {found.attained:.1%} of the requests keep it"
        )
    return lines


def _lint(args: argparse.Namespace) -> int:
    from trackrecord.venture.lint import lint
    from trackrecord.venture.sheet import load_sheet

    problems = lint(load_sheet(args.sheet), datetime.now(tz=UTC).date())
    errors = sum(problem.is_error for problem in problems)
    if args.json:
        listed = [_described(problem) for problem in problems]
        document = {"sheet": str(args.sheet), "passes": not errors, "problems": listed}
        console.emit_json(document)
    else:
        for problem in problems:
            print(printable(str(problem)))
        verdict = f"{errors} errors" if errors else "passes"
        print(printable(f"{args.sheet}: {verdict}, {len(problems) - errors} warnings"))
    return console.EXIT_NEGATIVE if errors else console.EXIT_OK


def _described(problem: Problem) -> dict[str, str]:
    return {
        "rule": problem.rule,
        "level": "error" if problem.is_error else "warning",
        "where": problem.where,
        "text": problem.text,
    }


def _draws(text: str) -> int:
    return whole(text, _FEWEST_DRAWS, _MOST_DRAWS)


def _seed(text: str) -> int:
    return whole(text, 0, 1 << 40)
