"""`trackrecord review`: what to look at in someone's pull request, the riskiest first."""

from __future__ import annotations

import argparse
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

from mini_vllm import console
from mini_vllm.console import printable
from trackrecord.commands.flags import add_common_flags
from trackrecord.commands.preflight import read_text
from trackrecord.errors import TrackRecordError
from trackrecord.workspace import Workspace

if TYPE_CHECKING:
    from trackrecord.pr.review import Review
    from trackrecord.upstream.diffs import FileChange

_SHOWN = 12


def configure(parser: argparse.ArgumentParser) -> None:
    what = parser.add_mutually_exclusive_group(required=True)
    what.add_argument("pull", nargs="?", type=int, metavar="PR", help="its number, in the store")
    what.add_argument("--diff", type=Path, metavar="FILE", help="a unified diff ('-': stdin)")
    what.add_argument("--repo", type=Path, metavar="DIR", help="a clone; compares with --base")
    parser.add_argument("--base", metavar="REV", help="revision that --repo is compared with")
    parser.add_argument("--title", default="", metavar="TEXT", help="title of the pull request")
    add_common_flags(parser)


def run(args: argparse.Namespace) -> int:
    from trackrecord.pr.preflight.output import clean
    from trackrecord.pr.preflight.rulebook import Rulebook
    from trackrecord.pr.review import prepare
    from trackrecord.upstream.index.query import Index

    if args.base and args.repo is None:
        raise TrackRecordError("--base goes with --repo: give both")
    workspace = Workspace.open(args.workspace)
    title, changes, names_only = _changes(args, workspace)
    with Index.open(workspace) as index:
        book = Rulebook.of_tree(index.tree)
        review = prepare(index, book, title, changes, names_only=names_only)
    if args.json:
        console.emit_json(clean(asdict(review)))
    else:
        for line in _lines(review):
            print(printable(line))
    return console.EXIT_OK


def _changes(args: argparse.Namespace, workspace: Workspace) -> tuple[str, list[FileChange], bool]:
    """(title, changed files, whether only their names are known)."""
    from trackrecord.pr.review import changes_from_names
    from trackrecord.upstream.diffs import diff_of_repository, parse_diff

    if args.diff is not None:
        return args.title, parse_diff(read_text(args.diff)), False
    if args.repo is not None:
        from trackrecord.pr.gitrepo import Repository

        repository = Repository.open(args.repo)
        base = args.base or repository.default_base()
        changes = diff_of_repository(str(repository.root), base)
        if not changes:
            raise TrackRecordError(f"nothing differs from {base}: give another --base")
        return args.title, changes, False
    from trackrecord.pr.preflight.run import issue_store
    from trackrecord.upstream.pin import find_pin

    store = issue_store(workspace, find_pin(workspace))
    if store is None:
        raise TrackRecordError("no pull requests are stored: run `trackrecord issues sync`")
    with store:
        pull = store.pull(args.pull)
    if pull is None:
        raise TrackRecordError(f"no pull request #{args.pull} is stored: sync, or give --diff FILE")
    if not pull.files:
        raise TrackRecordError(f"the files of #{args.pull} are not stored: give --diff FILE")
    return args.title or pull.title, changes_from_names(pull.files), True


def _lines(review: Review) -> list[str]:
    lines = [review.title] if review.title else []
    lines += [f"{len(review.files)} files, riskiest first:"]
    for item in review.reading[:_SHOWN]:
        reasons = "; ".join(f"{reason} (+{points:g})" for points, reason in item.reasons)
        lines.append(f"  {item.risk:5.1f}  {item.path}: {reasons or 'nothing counted'}")
    if len(review.reading) > _SHOWN:
        lines.append(f"  and {len(review.reading) - _SHOWN} more")
    lines += ["Invariants touched:"] if review.invariants else []
    lines += [
        f"  {i['name']}: {i['statement']} ({', '.join(i['kept_by'][:2])})"
        for i in review.invariants
    ]
    lines += ["Tests missing:"] if review.missing_tests else []
    lines += [
        f"  {m['path']}: changed, near tests are not ({', '.join(m['near']) or 'there are none'})"
        for m in review.missing_tests
    ]
    lines += ["Features reached:"] if review.features else []
    lines += [f"  {f['feature']}: {f['at']} {f['evidence']}" for f in review.features]
    running = [step for step in review.steps if step["runs"] == "runs"]
    lines.append(f"CI: {len(running)} of {len(review.steps)} steps concerned run by themselves")
    shown = ", ".join(f"{o['owner']} ({len(o['paths'])})" for o in review.owners[:_SHOWN])
    lines.append(f"Owners: {shown or 'none'}")
    lines.append("Keep in mind:")
    lines += [f"  {source}: {source.quote}" for source in review.etiquette]
    lines += [f"Note: {remark}" for remark in review.remarks]
    return lines
