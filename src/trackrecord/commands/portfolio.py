"""`trackrecord portfolio build`: measure, write the pages, put the folder in place."""

from __future__ import annotations

import argparse
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

from mini_vllm import console
from mini_vllm.commands.bench import seconds
from mini_vllm.commands.engine_flags import add_engine_flags, engine_config
from trackrecord.commands.flags import add_common_flags
from trackrecord.errors import TrackRecordError
from trackrecord.workspace import Workspace

if TYPE_CHECKING:
    from mini_vllm.bench.load import Slo
    from mini_vllm.bench.report import Report
    from trackrecord.portfolio.page import Page

DEFAULT_BUDGET_SECONDS = 150.0
RENDER_SECONDS = 6.0
"""Left of the budget for drawing and writing."""
LOAD_SHARES = (0.3, 0.6, 0.9)
"""Arrival rates of the load test, as shares of the measured capacity."""


def configure(parser: argparse.ArgumentParser) -> None:
    actions = parser.add_subparsers(dest="action", required=True, metavar="ACTION")
    summary = "measure the engine here and write the portfolio"
    build = actions.add_parser("build", help=summary, description=summary)
    build.add_argument(
        "--out", type=Path, default=Path("portfolio"), metavar="FOLDER", help="where"
    )
    build.add_argument("--author", metavar="NAME", help="whose track record it is")
    source = build.add_mutually_exclusive_group()
    source.add_argument(
        "--budget-seconds",
        type=seconds,
        default=DEFAULT_BUDGET_SECONDS,
        metavar="S",
        help="about how long to measure; each workload is run once at least",
    )
    source.add_argument(
        "--from",
        dest="report",
        type=Path,
        metavar="benchmark.json",
        help="write the pages of this earlier measurement instead of measuring",
    )
    build.add_argument(
        "--goodput",
        nargs="+",
        type=_objective,
        metavar="NAME:MS",
        help="service level objectives (ttft, tpot, e2el) in milliseconds, as ttft:500 tpot:100",
    )
    add_common_flags(build)
    add_engine_flags(build)


def run(args: argparse.Namespace) -> int:
    from mini_vllm.bench.report import read_report
    from trackrecord.portfolio.folder import portfolio_folder, write_files

    workspace = Workspace.open(args.workspace)
    _ = workspace.settings  # a mistake in them is told before anything is measured
    report = read_report(args.report) if args.report else None
    with portfolio_folder(args.out) as folder:
        report = report or _measure(args)
        console.say("writing the pages")
        # Imported only now: plotting would count in the peak memory of the measurement.
        from trackrecord.portfolio.benchmark import benchmark_page
        from trackrecord.portfolio.contributions import contributions_page
        from trackrecord.portfolio.index import index_files

        pages, problems = [benchmark_page(report)], []
        made_of = {
            "contributions": contributions_page,
            "loop": _loop_page,
            "venture": _venture_page,
        }
        for name, made in made_of.items():
            try:
                page = made(workspace)
                pages += [page] if page else []
            except TrackRecordError as error:  # what was measured for minutes is not thrown away
                problems.append(f"without the page of {name}: {error}")
        for files in (index_files(pages, args.author), *(page.files for page in pages)):
            write_files(folder, files)
    if args.json:
        written = [
            {"title": p.title, "summary": p.summary, "files": sorted(p.files)} for p in pages
        ]
        console.emit_json({"out": str(args.out), "pages": written})
    else:
        for page in pages:
            print(f"{args.out / f'{page.slug}.html'}: {console.printable(page.summary)}")
        print(f"{args.out / 'index.html'}: start here")
    for problem in problems:
        console.say(console.printable(f"trackrecord: {problem}"))
    return console.EXIT_NEGATIVE if problems else console.EXIT_OK


def _loop_page(workspace: Workspace) -> Page | None:
    """The page of what was chosen with `trackrecord loop publish`."""
    from trackrecord.loop.outcome.published import read_published

    published = read_published(workspace)
    if not published.runs:
        return None
    from trackrecord.loop.marking import grade_runs
    from trackrecord.loop.outcome.report import build_report
    from trackrecord.portfolio.loop_page import loop_page

    runs = grade_runs(workspace, say=console.say)
    return loop_page(build_report(runs, datetime.now(tz=UTC).date()), published)


def _venture_page(workspace: Workspace) -> Page | None:
    """The page of the last `trackrecord venture report` in this workspace."""
    from trackrecord.venture.page import venture_page
    from trackrecord.venture.report import read_report

    saved = workspace.venture_path
    return venture_page(read_report(saved)) if saved.is_file() else None


def _measure(args: argparse.Namespace) -> Report:
    from mini_vllm.bench.report import engine_words
    from mini_vllm.bench.suite import Plan, run_plan

    config = engine_config(args)
    goodput = [f"{name}:{1000 * bound:g}" for name, bound in args.goodput or ()]
    plan = Plan(
        config=config,
        command=[
            *("trackrecord", "portfolio", "build"),
            *("--budget-seconds", f"{args.budget_seconds:g}"),
            *(["--goodput", *goodput] if goodput else []),
            *engine_words(config),
        ],
        budget_seconds=max(1.0, args.budget_seconds - RENDER_SECONDS),
        load_shares=LOAD_SHARES,
        slo=_slo(args.goodput),
    )
    return run_plan(plan, console.say)


def _objective(text: str) -> tuple[str, float]:
    """`ttft:500` as ("ttft", 0.5); names and form of `vllm bench serve --goodput`."""
    name, colon, bound = text.partition(":")
    if name not in ("ttft", "tpot", "e2el") or not colon:
        raise argparse.ArgumentTypeError(f"must be ttft:MS, tpot:MS or e2el:MS, got {text!r}")
    return name, seconds(bound) / 1000


def _slo(objectives: list[tuple[str, float]] | None) -> Slo | None:
    from mini_vllm.bench.load import Slo

    bounds = dict(objectives or ())
    if not bounds:
        return None
    return Slo(ttft=bounds.get("ttft"), tpot=bounds.get("tpot"), e2e=bounds.get("e2el"))
