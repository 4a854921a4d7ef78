"""`trackrecord issues`: bring a repository's threads here, search them, rank what could be done."""

from __future__ import annotations

import argparse
import dataclasses
import math
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mini_vllm import console
from trackrecord.commands.flags import add_common_flags
from trackrecord.issues.errors import IssuesError, RecordError
from trackrecord.issues.progress import ProgressLine
from trackrecord.issues.token import DEFAULT_API, checked_api_url, find_token
from trackrecord.workspace import Workspace

if TYPE_CHECKING:
    from trackrecord.issues.candidates import Candidate, Judge
    from trackrecord.issues.models import Issue
    from trackrecord.issues.similarity import Kind, Similar
    from trackrecord.issues.store import Store

MAX_WAIT_SECONDS, MAX_WAIT_WITHOUT_TOKEN = 3900.0, 60.0
"""A used-up limit comes back within the hour; without a token that is 60 requests of patience."""
MAX_TEXT_BYTES = 1_000_000
CLAIM_POINTS = {"free": 2.0, "stale-claim": -0.5, "unknown": -1.0}
"""What the gauntlet's outcomes are worth; any other takes the issue out."""
KINDS: tuple[Kind, Kind] = ("issue", "pull")


def configure(parser: argparse.ArgumentParser) -> None:
    actions = parser.add_subparsers(dest="action", required=True, metavar="ACTION")

    def action(name: str, summary: str) -> argparse.ArgumentParser:
        sub = actions.add_parser(name, help=summary, description=summary)
        add_common_flags(sub)
        if name != "sync":
            sub.add_argument(
                "--repo", metavar="OWNER/REPO", help="whose issues; by default the only ones here"
            )
        return sub

    _configure_sync(action("sync", "read a repository's threads from GitHub, or what changed"))
    bring = action("import", "read threads from a file of JSON lines")
    bring.add_argument("file", type=Path, metavar="FILE.jsonl", help="see docs/issues.md")
    search = action("search", "find threads by words, names of code or an error message")
    search.add_argument("text", nargs="+", metavar="TEXT", help="what to look for")
    _add_choice(search, default=20)
    similar = action("similar", "find threads that resemble a thread or a text")
    what = similar.add_mutually_exclusive_group(required=True)
    what.add_argument("number", nargs="?", type=_number, metavar="N", help="a thread's number")
    what.add_argument("--text", metavar="TEXT", help="a report; '@FILE' reads it from a file")
    similar.add_argument(
        "--no-links", action="store_true", help="do not count that one thread names the other"
    )
    _add_choice(similar, default=5)
    show = action("show", "show a thread, or a TODO note of the tree")
    show.add_argument("number", type=_name, metavar="N|Tn", help="its number")
    ranked = action("candidates", "rank what could be worked on, with reasons")
    ranked.add_argument("--limit", type=_count, default=20, metavar="K", help="how many")
    action("harvest-todo", "turn TODO notes of the pinned tree that name a cause into candidates")


def run(args: argparse.Namespace) -> int:
    return _ACTIONS[args.action](args)


def _configure_sync(sync: argparse.ArgumentParser) -> None:
    sync.add_argument("repo", metavar="OWNER/REPO", help="the repository on GitHub")
    sync.add_argument(
        "numbers",
        nargs="*",
        type=_number,
        metavar="N",
        help="only these threads and what they name",
    )
    sync.add_argument(
        "--since", type=_since, metavar="DATE", help="how far back to reach: 2026-01-31 or 90d"
    )
    sync.add_argument(
        "--details",
        choices=("auto", "none", "open", "all"),
        default="auto",
        help="whose timeline and files to read; auto: all with a token, open without",
    )
    sync.add_argument(
        "--api-url", default=DEFAULT_API, metavar="URL", help="the API of an Enterprise server"
    )
    sync.add_argument(
        "--max-wait",
        type=_seconds,
        metavar="S",
        help=f"longest wait for a rate limit; {MAX_WAIT_SECONDS:.0f} s with a token, "
        f"{MAX_WAIT_WITHOUT_TOKEN:.0f} s without",
    )


def _add_choice(parser: argparse.ArgumentParser, default: int) -> None:
    parser.add_argument("-k", "--limit", type=_count, default=default, metavar="K", help="how many")
    parser.add_argument("--kind", choices=("issue", "pull"), help="only these")


# The actions


def _sync(args: argparse.Namespace) -> int:
    from trackrecord.issues.github import GitHub, RateLimitedError
    from trackrecord.issues.store import Store
    from trackrecord.issues.sync import DetailScope, Synced, canonical_name, sync, sync_numbers
    from trackrecord.issues.terms import refresh

    workspace = Workspace.open(args.workspace)
    workspace.issues_db(args.repo)  # a name that is none fails before anything is asked
    url = checked_api_url(args.api_url)
    token = find_token(url)
    patience = MAX_WAIT_SECONDS if token else MAX_WAIT_WITHOUT_TOKEN
    wait = patience if args.max_wait is None else args.max_wait
    details: DetailScope = args.details
    if args.details == "auto":
        details = "all" if token else "open"
    stopped: RateLimitedError | None = None
    with ProgressLine() as line:
        client = GitHub(token, url, max_wait=wait, say=line.say)
        repo = canonical_name(client, args.repo)
        workspace.create()
        with Store.open(workspace.issues_db(repo), repo, create=True) as store:
            done = Synced()
            try:
                if args.numbers:
                    sync_numbers(store, client, args.numbers, done=done, progress=line)
                else:
                    sync(store, client, since=args.since, details=details, done=done, progress=line)
            except RateLimitedError as error:
                stopped = error
            refresh(store, lambda n, total: line("indexing", n, total))
            stored = store.counts()
    report = {
        "repo": repo,
        "complete": stopped is None,
        "read": {"threads": done.threads, "comments": done.comments, "details": done.details},
        "unchanged_pages": done.unchanged,
        "missing": done.missing,
        "requests": client.requests,
        "stored": stored,
        "again_at": _iso(stopped.until) if stopped else None,
    }
    if args.json:
        console.emit_json(report)
    else:
        print(f"{repo}: {_counted(stored)}; read {done.threads} threads, {done.comments} comments")
        if done.missing:
            print(f"not on GitHub: {', '.join(f'#{n}' for n in done.missing)}")
    if stopped:
        console.say(f"trackrecord: {stopped}")
    return console.EXIT_NEGATIVE if stopped or done.missing else console.EXIT_OK


def _import(args: argparse.Namespace) -> int:
    from trackrecord.issues.importer import import_file, repository_of
    from trackrecord.issues.store import Store
    from trackrecord.issues.terms import refresh

    workspace = Workspace.open(args.workspace)
    repo = args.repo or repository_of(args.file) or _default_repo(workspace)
    path = workspace.issues_db(repo)
    workspace.create()
    with Store.open(path, repo, create=True) as store, ProgressLine() as line:
        done = import_file(store, args.file, lambda n, size: line("reading", n, size))
        refresh(store, lambda n, total: line("indexing", n, total))
        stored = store.counts()
    if args.json:
        console.emit_json(
            {
                "repo": repo,
                "imported": dict(sorted(done.records.items())),
                "problems": done.problems,
                "stored": stored,
            }
        )
    else:
        for problem in done.problems[:20]:
            console.say(console.printable(f"{args.file}, {problem}"))
        if len(done.problems) > 20:
            console.say(f"... and {len(done.problems) - 20} more lines that cannot be used")
        print(f"{repo}: {_counted(stored)}; {sum(done.records.values())} lines read")
    return console.EXIT_NEGATIVE if done.problems else console.EXIT_OK


def _search(args: argparse.Namespace) -> int:
    from trackrecord.issues.similarity import search

    text = " ".join(args.text)
    with _open(args) as store:
        found = search(store, text, args.limit, kind=args.kind)
        if args.json:
            console.emit_json({"repo": store.repo, "query": text, "found": _as_json(store, found)})
        else:
            _print_similar(store, found)
    return console.EXIT_OK if found else console.EXIT_NEGATIVE


def _similar(args: argparse.Namespace) -> int:
    from trackrecord.issues.similarity import similar

    query: int | str = args.number if args.text is None else _text(args.text)
    with _open(args) as store:
        issues, pulls = (
            similar(store, query, args.limit, kind=kind, links=not args.no_links)
            if args.kind in (None, kind)
            else []
            for kind in KINDS
        )
        missing = _not_stored(store, query) if isinstance(query, int) else []
        if args.json:
            console.emit_json(
                {
                    "repo": store.repo,
                    "query": query,
                    "similar": _as_json(store, issues),
                    "pulls": _as_json(store, pulls),
                    "named_but_not_stored": missing,
                }
            )
        else:
            _print_similar(store, issues)
            _print_similar(store, pulls)
            for number in missing:
                print(f"   -   #{number} is named by the thread and not stored")
    return console.EXIT_OK if issues or pulls else console.EXIT_NEGATIVE


def _not_stored(store: Store, number: int) -> list[int]:
    named = {link.target for link in store.links_from(number)}
    return sorted(n for n in named if store.issue(n) is None)


def _show(args: argparse.Namespace) -> int:
    from trackrecord.issues import show

    with _open(args) as store:
        if args.number.startswith("T"):
            note = store.note(int(args.number[1:]))
            if note is None:
                raise IssuesError(f"no note {args.number}: run `trackrecord issues harvest-todo`")
            if args.json:
                console.emit_json({"name": args.number, **dataclasses.asdict(note)})
            else:
                place = f"{note.path}:{note.line}" + (f" in {note.symbol}" if note.symbol else "")
                print(console.printable(f"{args.number} {place}"))
                print(console.printable(note.text))
                print(console.printable(f"waits for ({note.cause}): {note.evidence}"))
                if not note.present:
                    print("the tree has it no longer")
            return console.EXIT_OK
        thread = store.issue(int(args.number))
        if thread is None:
            raise IssuesError(
                f"#{args.number} is not in the store of {store.repo}: run "
                f"`trackrecord issues sync {store.repo} {args.number}`"
            )
        if args.json:
            console.emit_json(show.as_json(store, thread))
        else:
            print(show.as_text(store, thread))
    return console.EXIT_OK


def _candidates(args: argparse.Namespace) -> int:
    from trackrecord.issues.candidates import candidates
    from trackrecord.pr.gauntlet.thread import newest

    hardware = Workspace.open(args.workspace).settings.hardware
    gpus = (hardware.count or 1) if hardware.has_gpu else (0 if hardware.gpus else None)
    with _open(args) as store:
        now = newest(store)
        judge = _claimed_check(store, now)
        found = candidates(store, args.limit, now=now, gpus=gpus, judge=judge)
        return _print_candidates(store, found, args.json)


def _claimed_check(store: Store, now: datetime) -> Judge:
    """The gauntlet's first check, which needs the store alone, as a judge of candidates."""
    from trackrecord.issues.candidates import Judgement
    from trackrecord.pr.gauntlet.claimed import judge
    from trackrecord.pr.gauntlet.thread import Thread

    def judged(issue: Issue) -> Judgement:
        found = judge(Thread(store, issue, now))
        points = CLAIM_POINTS.get(found.outcome)
        said = f"{found.outcome}: {found.summary}"
        return Judgement(points is None, points or 0.0, said)

    return judged


def _harvest(args: argparse.Namespace) -> int:
    from trackrecord.issues.harvest import harvest
    from trackrecord.issues.store import Store
    from trackrecord.upstream.index.query import Index
    from trackrecord.upstream.pin import find_pin

    workspace = Workspace.open(args.workspace)
    pin = find_pin(workspace)
    repo = args.repo or pin.repository
    with Index.open(workspace, pin) as index:
        notes = list(index.todo_notes())
        required = _required(index.tree, pin)
    workspace.create()
    with Store.open(workspace.issues_db(repo), repo, create=True) as store:
        kept = harvest(store, notes, required)
    if args.json:
        console.emit_json(
            {
                "pin": pin.name,
                "notes": len(notes),
                "candidates": [{"name": f"T{n.number}", **dataclasses.asdict(n)} for n in kept],
            }
        )
    else:
        for note in kept[:20]:
            print(
                console.printable(f"T{note.number:<4} {note.score:4.1f}  {note.path}:{note.line}")
            )
            print(console.printable(f"      {note.evidence}"[:110]))
        print(f"{len(kept)} of {len(notes)} notes in {pin.name} name what they wait for")
    return console.EXIT_OK if kept else console.EXIT_NEGATIVE


_ACTIONS: dict[str, Callable[[argparse.Namespace], int]] = {
    "sync": _sync,
    "import": _import,
    "search": _search,
    "similar": _similar,
    "show": _show,
    "candidates": _candidates,
    "harvest-todo": _harvest,
}

# What they share


def _open(args: argparse.Namespace) -> Store:
    """The store that was asked for, or the only one that is here."""
    from trackrecord.issues.store import Store

    workspace = Workspace.open(args.workspace)
    repo = args.repo or _default_repo(workspace)
    return Store.open(workspace.issues_db(repo), repo)


def _default_repo(workspace: Workspace) -> str:
    from trackrecord.upstream.pin import find_pin

    pinned = find_pin(workspace).repository
    stores = sorted((workspace.root / "issues").glob("*--*.sqlite"))
    names = [path.stem.replace("--", "/", 1) for path in stores]
    return names[0] if len(names) == 1 and pinned not in names else pinned


def _required(tree: Any, pin: Any) -> dict[str, Any]:
    """The versions that the tree requires, and its own."""
    from trackrecord.issues.harvest import REQUIREMENT_FILES, Required, required_versions

    files = {name: tree.read_text(name) for name in REQUIREMENT_FILES if tree.path(name).is_file()}
    own = tuple(int(part) for part in pin.version.split(".") if part.isdecimal())
    return {pin.project: Required(own, "the tree", 0), **required_versions(files)}


def _as_json(store: Store, found: list[Similar]) -> list[dict[str, Any]]:
    listed = []
    for each in found:
        thread = store.issue(each.number)
        assert thread is not None  # it was found in the same store
        facts = {key: getattr(thread, key) for key in ("title", "state", "is_pull", "url")}
        listed.append({**dataclasses.asdict(each), **facts})
    return listed


def _print_similar(store: Store, found: list[Similar]) -> None:
    from trackrecord.issues import show

    for each in found:
        thread = store.issue(each.number)
        assert thread is not None  # it was found in the same store
        print(f"{each.score:5.2f}  {show.headline(thread)}")
        print(console.printable(f"       shared: {'; '.join(each.shared)}")[:200])


def _print_candidates(store: Store, found: list[Candidate], as_json: bool) -> int:
    if as_json:
        listed = [dataclasses.asdict(each) for each in found]
        console.emit_json({"repo": store.repo, "last_sync": store.last_sync, "candidates": listed})
    else:
        for each in found:
            print(console.printable(f"{each.score:5.2f}  {each.name}  {each.title}")[:160])
            print(console.printable(f"       for: {'; '.join(each.reasons) or 'nothing'}")[:300])
            if each.against:
                print(console.printable(f"       against: {'; '.join(each.against)}")[:300])
    return console.EXIT_OK if found else console.EXIT_NEGATIVE


def _counted(stored: dict[str, int]) -> str:
    return ", ".join(f"{count:,} {name}" for name, count in stored.items())


def _iso(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def _text(given: str) -> str:
    """The text itself, or that of the file after "@"."""
    if not given.startswith("@"):
        return given
    try:
        with open(given[1:], "rb") as file:
            return file.read(MAX_TEXT_BYTES).decode("utf-8", "replace")
    except OSError as error:
        raise IssuesError(f"cannot read {given[1:]!r}: {error.strerror}") from None


def _number(text: str) -> int:
    digits = text.removeprefix("#")
    if not (digits.isascii() and digits.isdecimal() and 0 < int(digits[:20]) < 2**53):
        raise argparse.ArgumentTypeError(f"not an issue number: {text!r}")
    return int(digits)


def _name(text: str) -> str:
    note = text[:1] in ("T", "t")
    return f"T{_number(text[1:])}" if note else str(_number(text))


def _count(text: str) -> int:
    if not (text.isascii() and text.isdecimal() and 0 < int(text[:9]) <= 1000):
        raise argparse.ArgumentTypeError(f"must be a number from 1 to 1000, got {text!r}")
    return int(text)


def _seconds(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not 0 <= value < math.inf:
        raise argparse.ArgumentTypeError(f"must be seconds, 0 or more, got {text!r}")
    return value


def _since(text: str) -> str:
    """A date, a time, or `90d` for so many days ago; as an ISO 8601 time."""
    from trackrecord.issues import records

    if text.endswith("d") and text[:-1].isdecimal() and len(text) <= 6:
        moment = datetime.now(UTC) - timedelta(days=int(text[:-1]))
        return moment.strftime("%Y-%m-%dT00:00:00Z")
    try:
        return records.time(text, "since") or ""
    except RecordError:
        raise argparse.ArgumentTypeError(
            f"not a date: {text!r} (write 2026-01-31, or 90d for days back)"
        ) from None
