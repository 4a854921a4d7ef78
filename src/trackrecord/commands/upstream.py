"""`trackrecord upstream`: bring a version of upstream here, index it, ask it, read it."""

from __future__ import annotations

import argparse
import re
import shutil
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mini_vllm import console
from trackrecord.commands.flags import add_common_flags
from trackrecord.errors import UpstreamError
from trackrecord.workspace import Workspace

if TYPE_CHECKING:
    from trackrecord.upstream.impact import Target
    from trackrecord.upstream.index.query import Index
    from trackrecord.upstream.pin import Pin, Tree

MAX_DIFF_BYTES = 50_000_000
_FALLBACK_COLUMNS = 100
_DEFAULT_LIMIT = 12
_NO_LINE = re.compile(r"[^:]:0*$")


def configure(parser: argparse.ArgumentParser) -> None:
    actions = parser.add_subparsers(dest="action", required=True, metavar="ACTION")

    def action(name: str, summary: str) -> argparse.ArgumentParser:
        sub = actions.add_parser(name, help=summary, description=summary)
        _add_common(sub)
        return sub

    _configure_pin(action("pin", "bring the tree of a pinned version to this machine"))
    action("status", "show which version is pinned and whether its tree and index are here")
    index = action("index", "read the tree into the index, or what changed in it")
    index.add_argument("--force", action="store_true", help="build it anew")
    index.add_argument(
        "--processes", type=_count, metavar="N", help="how many read files; by default what pays"
    )
    where = action("where", "find a definition, its uses, tests, CI steps and owners")
    where.add_argument(
        "question", metavar="SYMBOL|PATH[:LINE]", help="Class.method, or a path or the end of one"
    )
    _add_limit(where)
    _configure_impact(action("impact", "what a change reaches and sets off"))
    read = action("read", "show what to read of an area; without one, which areas there are")
    read.add_argument("area", nargs="?", metavar="AREA", help="scheduler, kv-cache, ...")
    read.add_argument(
        "--code", type=_count, default=0, metavar="N", help="show N lines of source with each place"
    )
    anchors = actions.add_parser(
        "anchors", help="check the reading map", description="check the reading map"
    )
    checks = anchors.add_subparsers(dest="anchors_action", required=True, metavar="ACTION")
    summary = "check that every place of the reading map is where it says"
    check = checks.add_parser("check", help=summary, description=summary)
    _add_common(check)
    check.add_argument(
        "--against", type=Path, metavar="DIR", help="another version: say what moved where"
    )


def run(args: argparse.Namespace) -> int:
    return _ACTIONS[args.action](args)


def _add_common(parser: argparse.ArgumentParser) -> None:
    add_common_flags(parser)
    parser.add_argument("--pin", metavar="NAME", help="another pinned version than the default")


def _add_limit(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--limit",
        type=_count,
        default=_DEFAULT_LIMIT,
        metavar="K",
        help="how many rows of each section to show, 0 for all; JSON always has all",
    )


def _configure_pin(pin: argparse.ArgumentParser) -> None:
    pin.add_argument(
        "--version", metavar="V", help="pin another version of upstream beside the default one"
    )
    pin.add_argument("--commit", default="", metavar="C", help="which commit that version must be")
    pin.add_argument(
        "--from",
        dest="source",
        nargs="+",
        metavar=("DIR|FILE.tar.gz|git", "URL|DIR"),
        help="a folder, a source distribution, or `git` and a repository; by default the source "
        "distribution from the package index that pip uses",
    )
    pin.add_argument("--force", action="store_true", help="bring it again")


def _configure_impact(impact: argparse.ArgumentParser) -> None:
    impact.add_argument(
        "targets", nargs="*", metavar="PATH[:LINE]", help="what would change; a name will do"
    )
    impact.add_argument("--diff", type=Path, metavar="FILE", help="a unified diff")
    impact.add_argument("--repo", type=Path, metavar="DIR", help="a clone with the change in it")
    impact.add_argument(
        "--base", metavar="REV", help="with --repo: what the change started from; origin/main"
    )
    impact.add_argument(
        "--title", default="", metavar="TEXT", help="of the pull request, for labels that go by it"
    )
    _add_limit(impact)


def _count(text: str) -> int:
    if not text.isascii() or not text.isdigit() or len(text) > 9:
        raise argparse.ArgumentTypeError(f"not a whole number: {text!r}")
    return int(text)


# Bringing and indexing.


def _pin(args: argparse.Namespace) -> int:
    from trackrecord.issues.progress import ProgressLine
    from trackrecord.upstream.pin import Tree, add_pin, known_pins

    workspace = Workspace.open(args.workspace)
    pins = known_pins(workspace)[1].values()
    named = [p for p in pins if args.version and args.version in (p.version, p.tag, p.name)]
    new = bool(args.version) and not named
    pin = named[0] if named else _chosen_pin(args, workspace)
    if args.commit and not new and not _same_commit(args.commit, pin.commit):
        raise UpstreamError(f"{pin.name} is pinned to {pin.commit}, not to {args.commit}")
    fetched = args.force or new or bool(args.source) or not _is_here(pin)
    try:
        with ProgressLine() as line:
            tree = _bring(pin, args, new, line) if fetched else Tree.open(pin)
    except OSError as error:
        raise UpstreamError(f"cannot bring the tree here: {error.strerror or error}") from None
    if new:
        add_pin(workspace, tree.pin)
    if args.json:
        console.emit_json(_tree_json(tree) | {"fetched": fetched})
    else:
        _print([f"{_pin_title(tree.pin)}: {'here' if fetched else 'was here already'}"])
        _print(_tree_lines(tree))
    return console.EXIT_OK


def _bring(pin: Pin, args: argparse.Namespace, new: bool, progress: Callable[..., None]) -> Tree:
    from trackrecord.upstream import fetch
    from trackrecord.upstream.pin import new_pin

    kind, *more = args.source or ["index"]
    if more and (kind != "git" or len(more) > 1):
        raise UpstreamError("--from takes DIR, FILE.tar.gz, or git URL|DIR")
    if new and kind == "index":
        return fetch.bring_version(pin, args.version, args.commit, progress)
    if new and not args.commit:
        raise UpstreamError(f"--version {args.version} --from {kind} needs --commit")
    if new:
        pin = new_pin(pin, args.version, args.commit)
    if kind == "index":
        return fetch.bring_release(pin, progress)
    if kind == "git" and more:
        return fetch.bring_git(pin, more[0], progress)
    path = Path(kind).expanduser()
    if path.is_dir():
        return fetch.bring_folder(pin, path, progress)
    return fetch.bring_archive(pin, path, progress)


def _index(args: argparse.Namespace) -> int:
    from trackrecord.issues.progress import ProgressLine
    from trackrecord.upstream.index.build import build_index
    from trackrecord.upstream.index.query import Index
    from trackrecord.upstream.pin import Tree

    workspace = Workspace.open(args.workspace)
    tree = Tree.open(_chosen_pin(args, workspace))
    workspace.create()
    path = workspace.index_path(tree.pin.name)
    with ProgressLine() as line:
        report = build_index(
            tree.root,
            path,
            tree.pin.name,
            args.processes or None,
            args.force,
            lambda done, total: line("reading", done, total),
        )
    with Index.open_at(path, tree) as index:
        unreadable = index.unreadable()
    if args.json:
        problems = [{"path": p, "problem": problem} for p, problem in unreadable]
        console.emit_json(
            {"pin": tree.pin.name, "index": str(path), **asdict(report), "unreadable": problems}
        )
        return console.EXIT_OK
    what = "read" if report.cold else "changed" if report.read or report.removed else "unchanged"
    lines = [
        f"{tree.pin.name}: {report.files:,} files, {report.symbols:,} definitions, "
        f"{report.references:,} uses",
        f"  {report.read:,} files {what}, {report.removed:,} gone, {report.seconds:.2f} s"
        if report.read or report.removed
        else f"  nothing changed, {report.seconds:.2f} s",
    ]
    if unreadable:
        lines.append(f"  {len(unreadable)} files cannot be read as what they are:")
        lines += [f"    {p}: {problem}" for p, problem in unreadable[:_DEFAULT_LIMIT]]
        more = len(unreadable) - _DEFAULT_LIMIT
        lines += [f"    ... {more} more (--json lists them)"] if more > 0 else []
    _print(lines)
    return console.EXIT_OK


def _status(args: argparse.Namespace) -> int:
    from trackrecord.upstream.index.build import count_changes
    from trackrecord.upstream.pin import Tree, known_pins

    workspace = Workspace.open(args.workspace)
    pin = _chosen_pin(args, workspace)
    others = [p for p in known_pins(workspace)[1].values() if p != pin]
    path = workspace.index_path(pin.name)
    tree, changes, problem = None, 0, ""
    try:
        tree = Tree.open(pin)
        tree_lines = _tree_lines(tree)
        changes = count_changes(tree.root, path, pin.name)
    except UpstreamError as error:
        problem = str(error)
    ready = not problem and not changes
    if args.json:
        console.emit_json(
            {
                "pin": asdict(pin),
                "tree": _tree_json(tree) if tree else None,
                "index": None if problem else str(path),
                "changed_files": changes,
                "problem": problem,
                "ready": ready,
                "other_pins": [p.name for p in others],
            }
        )
    else:
        lines = [_pin_title(pin), *(tree_lines if tree else [])]
        if problem:
            lines.append(f"  {problem}")
        elif changes:
            lines.append(f"  {changes} files changed since the index was made: run `index` again")
        else:
            lines.append(f"  index {path}: up to date")
        lines += [f"also pinned: {_pin_title(p)}" for p in others]
        _print(lines)
    return console.EXIT_OK if ready else console.EXIT_NEGATIVE


# Asking.


def _where(args: argparse.Namespace) -> int:
    from trackrecord.upstream.view import where_page
    from trackrecord.upstream.where import where_is

    with _open_index(args) as index:
        answer = where_is(index, args.question)
        if args.json:
            url = index.tree.pin.url(answer.path, answer.line or None)
            console.emit_json({"question": args.question, "url": url, **asdict(answer)})
            return console.EXIT_OK
        source = ""
        if answer.symbol is None and answer.line:
            source = index.tree.read_lines(answer.path)[answer.line - 1]
        _print(where_page(answer, _page(args.limit), source))
    return console.EXIT_OK


def _impact(args: argparse.Namespace) -> int:
    from trackrecord.upstream.impact import impact_of
    from trackrecord.upstream.view import impact_page, pytest_command

    given = [bool(args.targets), args.diff is not None, args.repo is not None]
    if sum(given) != 1:
        raise UpstreamError("give either PATH[:LINE]..., or --diff FILE, or --repo DIR")
    if args.base and args.repo is None:
        raise UpstreamError("--base goes with --repo")
    with _open_index(args) as index:
        targets, remarks = _targets(args, index)
        impact = impact_of(index, targets, args.title, remarks)
        if args.json:
            without = [test for test in impact.tests if test.needs_gpu is False]
            document = asdict(impact) | {"owners": impact.owners}
            console.emit_json(document | {"without_gpu": pytest_command(without)})
        else:
            _print(impact_page(impact, _page(args.limit)))
    return console.EXIT_OK


def _targets(args: argparse.Namespace, index: Index) -> tuple[list[Target], list[str]]:
    from trackrecord.upstream.diffs import diff_of_repository, parse_diff
    from trackrecord.upstream.impact import check_paths, targets_of_diff, targets_of_sources

    if args.diff is not None:
        return targets_of_diff(index, parse_diff(_read_diff(args.diff)))
    if args.repo is not None:
        changes = diff_of_repository(str(args.repo), args.base or "origin/main")
        if not changes:
            raise UpstreamError(f"{args.repo} does not differ from {args.base or 'origin/main'}")
        check_paths(index, changes)
        sources = {}
        for change in changes:
            file = args.repo / change.path
            if file.is_file() and not file.is_symlink():
                sources[change.path] = file.read_bytes()
        return targets_of_sources(index, changes, sources), []
    return [_target(index, words) for words in args.targets], []


def _target(index: Index, words: str) -> Target:
    """What `words` name in the tree. Here a file that it lacks is taken for a slip: an answer about
    it would look as if nothing depended on what was meant."""
    from trackrecord.upstream.impact import close_paths
    from trackrecord.upstream.where import target_of

    index.tree.path(words.strip())
    if _NO_LINE.search(words.strip()):
        raise UpstreamError(f"{words!r} names no line: write PATH, or PATH:LINE with LINE from 1")
    target = target_of(index, words)
    if not index.has_path(target.path):
        close = close_paths(index, target.path)
        meant = f"; did you mean {', '.join(close)}?" if close else ""
        raise UpstreamError(
            f"no file {target.path!r} in {index.tree.pin.name}{meant} (new files: --diff or --repo)"
        )
    return target


def _read_diff(path: Path) -> str:
    try:
        if path.stat().st_size > MAX_DIFF_BYTES:
            raise UpstreamError(f"{path} is larger than {MAX_DIFF_BYTES:,} bytes")
        return path.read_text(encoding="utf-8", errors="replace")
    except OSError as error:
        raise UpstreamError(f"cannot read {str(path)!r}: {error.strerror}") from None


# Reading.


def _read(args: argparse.Namespace) -> int:
    from trackrecord.upstream.areas import AREAS, load_area
    from trackrecord.upstream.pin import Tree
    from trackrecord.upstream.view import area_page, areas_page

    workspace = Workspace.open(args.workspace)
    if not args.area:
        areas = [load_area(name) for name in AREAS]
        known = workspace.settings.areas
        if args.json:
            keys = ("name", "title", "summary", "paths")
            rows = [{k: getattr(a, k) for k in keys} | {"places": len(a.anchors)} for a in areas]
            console.emit_json({"areas": rows, **asdict(known)})
        else:
            _print(areas_page(areas, known.read, known.declared, _page(0)))
        return console.EXIT_OK
    area = load_area(args.area)
    code: list[list[str]] = []
    if args.code:
        tree = Tree.open(_chosen_pin(args, workspace))
        code = [tree.read_lines(a.path)[a.line - 1 : a.line - 1 + args.code] for a in area.anchors]
    if args.json:
        document = asdict(area)
        for anchor, lines in zip(document["anchors"], code, strict=False):
            anchor["code"] = lines
        console.emit_json(document)
        return console.EXIT_OK
    _print(area_page(area, _page(0), code))
    if args.area not in workspace.settings.areas.read:
        _print(["", f'read it? add "{area.name}" to `read` below [areas] in trackrecord.toml'])
    return console.EXIT_OK


def _anchors(args: argparse.Namespace) -> int:
    from trackrecord.upstream.anchors import check_anchors
    from trackrecord.upstream.areas import all_anchors
    from trackrecord.upstream.pin import Tree
    from trackrecord.upstream.view import anchors_page

    if args.against is not None and not args.against.is_dir():
        raise UpstreamError(f"no folder {str(args.against)!r}")
    tree = Tree.open(_chosen_pin(args, Workspace.open(args.workspace)))
    checks = check_anchors(all_anchors(), args.against or tree.root)
    if args.json:
        rows = [asdict(check) | {"words": check.words} for check in checks]
        console.emit_json({"against": str(args.against or tree.pin.name), "anchors": rows})
    else:
        _print(anchors_page(checks, str(args.against or tree.pin.name), _page(0)))
    fine = all(check.state == "in place" for check in checks)
    return console.EXIT_OK if fine else console.EXIT_NEGATIVE


# What the actions share.


def _chosen_pin(args: argparse.Namespace, workspace: Workspace) -> Pin:
    from trackrecord.upstream.pin import find_pin

    return find_pin(workspace, args.pin)


def _open_index(args: argparse.Namespace) -> Index:
    from trackrecord.upstream.index.query import Index

    workspace = Workspace.open(args.workspace)
    return Index.open(workspace, _chosen_pin(args, workspace))


def _is_here(pin: Pin) -> bool:
    from trackrecord.upstream.pin import Tree

    try:
        return bool(Tree.open(pin).manifest)
    except UpstreamError:
        return False


def _same_commit(one: str, other: str) -> bool:
    return one.startswith(other) or other.startswith(one)


def _pin_title(pin: Pin) -> str:
    return f"{pin.name}  {pin.project} {pin.version} @ {pin.commit}"


def _tree_json(tree: Tree) -> dict[str, Any]:
    return {"pin": tree.pin.name, "root": str(tree.root), **tree.manifest}


def _tree_lines(tree: Tree) -> list[str]:
    told = tree.manifest
    size, links = told.get("bytes", 0), told.get("links_left_out", 0)
    lines = [
        f"  tree  {tree.root}",
        f"        {told.get('files', 0):,} files, {size / 1e6:,.1f} MB, from {told.get('source')}"
        + (f", {links} links left out" if links else ""),
        f"        commit confirmed by {told.get('confirmed_by')}",
    ]
    if told.get("sha256"):
        lines.append(f"        sha256 {told['sha256']}")
    return lines


def _page(limit: int) -> Any:
    from trackrecord.upstream.view import Page

    return Page(shutil.get_terminal_size((_FALLBACK_COLUMNS, 24)).columns, limit)


def _print(lines: Sequence[str]) -> None:
    for line in lines:
        print(console.printable(line))


_ACTIONS: dict[str, Callable[[argparse.Namespace], int]] = {
    "pin": _pin,
    "status": _status,
    "index": _index,
    "where": _where,
    "impact": _impact,
    "read": _read,
    "anchors": _anchors,
}
