"""`trackrecord trust LOGIN`: where someone stands in the project, with the figures."""

from __future__ import annotations

import argparse
import re
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

from mini_vllm import console
from mini_vllm.console import printable
from trackrecord.commands.flags import add_common_flags
from trackrecord.errors import TrackRecordError
from trackrecord.workspace import Workspace

if TYPE_CHECKING:
    from trackrecord.pr.trust import Standing

_LOGIN = re.compile(r"@?([A-Za-z0-9](?:[A-Za-z0-9-]{0,38})(?:\[bot\])?)")


def configure(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "login", nargs="?", metavar="LOGIN", help="on GitHub; by default yours, from the settings"
    )
    parser.add_argument("--repo", type=Path, metavar="DIR", help="a clone, not the pinned tree")
    add_common_flags(parser)


def run(args: argparse.Namespace) -> int:
    from trackrecord.pr.preflight.output import clean
    from trackrecord.pr.preflight.rulebook import open_rulebook
    from trackrecord.pr.preflight.run import issue_store
    from trackrecord.pr.trust import standing
    from trackrecord.upstream.pin import find_pin

    workspace = Workspace.open(args.workspace)
    login = args.login or workspace.settings.user.github_login
    found = _LOGIN.fullmatch(login or "")
    if not found:
        raise TrackRecordError(
            f"not a GitHub login: {login!r}" if login else "whose standing? Give a GitHub login"
        )
    store = issue_store(workspace, find_pin(workspace))
    if store is None:
        raise TrackRecordError("no pull requests are stored: run `trackrecord issues sync`")
    with store:
        result = standing(store, open_rulebook(workspace, args.repo), found[1])
    if args.json:
        console.emit_json(clean(asdict(result)))
    else:
        for line in _lines(result):
            print(printable(line))
    return console.EXIT_OK if result.rung else console.EXIT_NEGATIVE


def _lines(result: Standing) -> list[str]:
    figures = result.figures
    lines = [f"{result.login}: {result.rung or 'no merged pull request in the store'}"]
    for rung in result.rungs:
        listed = f" (listed in {rung.listed})" if rung.listed else ""
        lines.append(f"{'✓' if rung.reached else '·'} {rung.name}{listed}")
        lines += [f"    {n.what}: {n.have} of {n.need} ({n.says})" for n in rung.needs]
        lines += [f"    {source}: {source.quote}" for source in rung.sources[:1]]
    areas = ", ".join(f"{name} {count}" for name, count in figures.areas.items())
    lines += [
        f"merged {len(figures.merged)}, open {len(figures.open)}, closed {len(figures.closed)} "
        f"over {figures.days} days; areas: {areas or 'none known'}",
        f"reviewed {len(figures.reviewed)}, issues answered {len(figures.issues_answered)}, "
        f"RFCs {len(figures.rfcs)}, owns {len(figures.owns)} lines of CODEOWNERS",
    ]
    lines += ["Next:", *(f"  {step}" for step in result.next_steps)] if result.next_steps else []
    lines += [f"Note: {remark}" for remark in result.remarks]
    lines += [f"As of {result.as_of}"] if result.as_of else []
    return lines
