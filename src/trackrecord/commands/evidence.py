"""`trackrecord evidence`: run and keep, compare two revisions, list, show, verify."""

from __future__ import annotations

import argparse
import shlex
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, TextIO

from mini_vllm import console
from mini_vllm.console import printable
from trackrecord.commands.flags import add_common_flags
from trackrecord.errors import TrackRecordError
from trackrecord.pr.gitrepo import GitError, Repository
from trackrecord.workspace import Workspace

if TYPE_CHECKING:
    from trackrecord.pr.journal import Entry, Journal

_MOST_RUNS = 1000


def configure(parser: argparse.ArgumentParser) -> None:
    actions = parser.add_subparsers(dest="action", required=True, metavar="ACTION")

    def action(name: str, summary: str) -> argparse.ArgumentParser:
        added = actions.add_parser(name, help=summary, description=summary)
        add_common_flags(added)
        return added

    from trackrecord.pr.evidence import ROLES

    run_ = action("run", "run a command and record what came of it")
    run_.add_argument("--as", dest="role", choices=ROLES, help="what it is for; told by its words")
    bench = action("bench", "measure a command on two revisions, in turn")
    bench.add_argument("--before", required=True, metavar="REV", help="revision to compare with")
    bench.add_argument("--after", default="HEAD", metavar="REV", help="revision to judge")
    bench.add_argument("--runs", type=_count, default=5, metavar="N", help="runs of each side")
    bench.add_argument(
        "--metric", metavar="REGEX", help="take the number in this group from the output, not time"
    )
    bench.add_argument("--unit", default="", metavar="NAME", help="unit of --metric")
    bench.add_argument(
        "--higher-is-better", action="store_true", help="what --metric finds should grow"
    )
    bench.add_argument(
        "--setup", default="", metavar="COMMAND", help="run once in each tree first, as a build"
    )
    for added in (run_, bench):
        added.add_argument("--repo", type=Path, metavar="DIR", help="a folder of the clone")
        added.add_argument("--note", default="", metavar="TEXT", help="what it shows")
        added.add_argument(
            "--timeout", type=_seconds, metavar="S", help="stop a run after S seconds"
        )
        added.add_argument("words", nargs=argparse.REMAINDER, metavar="-- COMMAND")
    action("list", "list what is recorded")
    show = action("show", "show one entry whole")
    show.add_argument("entry", metavar="ENTRY", help="its number, as 3 or E3")
    action("verify", "check that nothing recorded was changed")


def run(args: argparse.Namespace) -> int:
    from trackrecord.pr.journal import Journal

    journal = Journal(Workspace.open(args.workspace))
    if args.action == "run":
        return _run(args, journal)
    if args.action == "bench":
        return _bench(args, journal)
    if args.action == "list":
        return _list(args, journal)
    if args.action == "show":
        return _show(args, journal)
    return _verify(args, journal)


def _run(args: argparse.Namespace, journal: Journal) -> int:
    from trackrecord.pr.evidence import record_run

    entry = record_run(
        journal,
        _command(args),
        repository=_repository(args.repo),
        role=args.role,
        note=args.note,
        seconds=args.timeout,
        show=_passed_on_to(sys.stderr if args.json else sys.stdout),
    )
    if args.json:
        _emit(entry)
    else:
        console.say(_line(entry))
    return console.EXIT_NEGATIVE if entry.data["exit_code"] else console.EXIT_OK


def _bench(args: argparse.Namespace, journal: Journal) -> int:
    from trackrecord.pr.bench import Effect, Metric, check_pattern, record_bench

    metric = Metric()
    if args.metric:
        metric = Metric(check_pattern(args.metric), args.unit or "units", args.higher_is_better)
    elif args.higher_is_better or args.unit:
        raise TrackRecordError("--unit and --higher-is-better speak of --metric: give it")
    entry = record_bench(
        journal,
        Repository.open(args.repo),
        _command(args),
        before=args.before,
        after=args.after,
        runs=args.runs,
        metric=metric,
        setup=_words_of(args.setup),
        seconds=args.timeout,
        note=args.note,
        progress=console.say if sys.stderr.isatty() else lambda _: None,
    )
    result = Effect(**entry.data["effect"])
    if args.json:
        _emit(entry)
    else:
        for side in ("before", "after"):
            found = entry.data[side]
            print(
                f"{side}: {found['median']:.4g} {metric.unit} (median of {len(found['samples'])}) "
                f"at {found['commit'][:10]}"
            )
        print(f"{entry.name}: {printable(result.sentence(metric.unit))}")
    return console.EXIT_NEGATIVE if result.verdict == "worse" else console.EXIT_OK


def _list(args: argparse.Namespace, journal: Journal) -> int:
    entries = journal.entries()
    if args.json:
        from trackrecord.pr.preflight.output import clean

        console.emit_json(clean([entry.to_json() for entry in entries]))
    else:
        for entry in entries:
            print(_line(entry))
    return console.EXIT_OK


def _show(args: argparse.Namespace, journal: Journal) -> int:
    number = args.entry.lstrip("Ee")
    entries = journal.entries()
    if not number.isdecimal() or not 1 <= int(number) <= len(entries):
        raise TrackRecordError(f"no entry {args.entry!r}: there are {len(entries)}, see `list`")
    entry = entries[int(number) - 1]
    if args.json:
        _emit(entry)
        return console.EXIT_OK
    print(_line(entry))
    for key, value in entry.data.items():
        if key == "tail":
            continue
        print(f"  {key}: {printable(str(value))}")
    for line in str(entry.data.get("tail", "")).splitlines():
        print(f"  | {printable(line)}")
    print(f"  hash: {entry.hash}")
    return console.EXIT_OK


def _verify(args: argparse.Namespace, journal: Journal) -> int:
    verdict = journal.verify()
    if args.json:
        console.emit_json(
            {
                "intact": verdict.intact,
                "entries": verdict.entries,
                "head": verdict.head,
                "problems": list(verdict.problems),
            }
        )
    elif verdict.intact:
        print(f"{verdict.entries} entries, unchanged; last hash {verdict.head or 'none'}")
    else:
        for problem in verdict.problems:
            print(printable(problem))
    return console.EXIT_OK if verdict.intact else console.EXIT_NEGATIVE


def _line(entry: Entry) -> str:
    """One entry on one line."""
    data, commit = entry.data, str(entry.data.get("commit", ""))[:10]
    if entry.kind == "run":
        seconds = f" in {data['seconds']:.1f} s" if "seconds" in data else ""
        where = f" at {commit}{' with uncommitted changes' if data.get('dirty') else ''}"
        words = shlex.join(data.get("command", []))
        text = f"{data.get('role')}: `{words}` exit {data.get('exit_code')}{seconds}"
        text += where if commit else ""
    elif entry.kind == "bench":
        from trackrecord.pr.bench import Effect

        text = f"bench: {Effect(**data['effect']).sentence(data['unit'])}"
    else:
        value = f" = {data['value']}" if data.get("value") else ""
        rule = f" {data['rule']}" if data.get("rule") else ""
        text = f"statement by {data.get('by')}: {data.get('what')}{rule}{value} at {commit}"
    return printable(f"{entry.name} {entry.at} {text}")


def _emit(entry: Entry) -> None:
    from trackrecord.pr.preflight.output import clean

    console.emit_json(clean(entry.to_json()))


def _command(args: argparse.Namespace) -> list[str]:
    words: list[str] = args.words[1:] if args.words[:1] == ["--"] else args.words
    if not words:
        raise TrackRecordError(f"evidence {args.action}: give the command after --")
    return words


def _words_of(setup: str) -> list[str]:
    try:
        return shlex.split(setup)
    except ValueError as error:
        raise TrackRecordError(f"--setup {setup!r} is no command line: {error}") from None


def _repository(folder: Path | None) -> Repository | None:
    try:
        return Repository.open(folder)
    except GitError:
        if folder is not None:
            raise
        return None


def _passed_on_to(stream: TextIO | None) -> Callable[[bytes], None]:
    """Writes what a command prints to `stream` until nobody reads there any more. The command goes
    on and is recorded all the same."""
    left = stream is None

    def show(chunk: bytes) -> None:
        nonlocal left
        if left or stream is None:
            return
        try:
            stream.buffer.write(chunk)
            stream.flush()
        except OSError:
            left = True
            console.discard(stream)

    return show


def _count(text: str) -> int:
    if not text.isdecimal() or not 1 <= int(text) <= _MOST_RUNS:
        raise argparse.ArgumentTypeError(f"must be from 1 to {_MOST_RUNS}, got {text!r}")
    return int(text)


def _seconds(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = 0.0
    if not 0 < value < float("inf"):
        raise argparse.ArgumentTypeError(f"must be a number of seconds above 0, got {text!r}")
    return value
