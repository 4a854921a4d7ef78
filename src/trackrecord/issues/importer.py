"""Threads from a file of JSON lines, for those without a token, and for threads kept elsewhere.

One object a line: `{"type": "issue", "data": {REST issue}}`, `{"type": "pull", "data": {REST pull,
plus "files": [{"filename"}]}}`, `{"type": "comment", "issue": N, "data": {REST comment}}`,
`{"type": "timeline", "issue": N, "data": [REST events]}`.

A line that cannot be used is reported with its number and changes nothing; the others are kept.
Importing a file twice leaves the store as importing it once.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any

from trackrecord.issues import records
from trackrecord.issues.errors import IssuesError, RecordError
from trackrecord.issues.store import Store

MAX_LINE_BYTES = 64 * 2**20
"""A longer line is refused unread: no thread is that large."""
BATCH = 500
"""Lines of one transaction."""


@dataclass(slots=True)
class Imported:
    """What became of a file.

    Attributes:
        records: how many lines of each type were kept.
        problems: the lines that were not, as "line 3: what was wrong".
    """

    records: Counter[str] = field(default_factory=Counter)
    problems: list[str] = field(default_factory=list)


def import_file(
    store: Store, path: Path, progress: Callable[[int, int], None] | None = None
) -> Imported:
    """Reads the JSON lines in `path` into `store`.

    Args:
        progress: is told how many bytes are read, and of how many.

    Raises:
        IssuesError: the file cannot be read.
    """
    done = Imported()
    seen: Counter[tuple[object, ...]] = Counter()
    try:
        size = path.stat().st_size
        with path.open("rb") as file:
            lines = _lines(file)
            while batch := list(islice(lines, BATCH)):
                with store.transaction():
                    for number, line in batch:
                        _keep(store, number, line, done, seen)
                if progress:
                    progress(file.tell(), size)
        # What a later sync asks for "if changed" may have been changed here.
        with store.transaction():
            store.connection.execute("DELETE FROM etags")
    except OSError as error:
        raise IssuesError(f"cannot read {str(path)!r}: {error.strerror}") from None
    return done


def repository_of(path: Path) -> str | None:
    """The "owner/name" that the first threads in `path` carry in their addresses, None if none do.

    Raises:
        IssuesError: the file cannot be read.
    """
    try:
        with path.open("rb") as file:
            for _, line in islice(_lines(file), 200):
                try:
                    url = json.loads(line or b"0")["data"]["html_url"].split("/")
                except (ValueError, TypeError, KeyError, AttributeError, RecursionError):
                    continue
                if len(url) == 7 and url[5] in ("issues", "pull"):
                    return f"{url[3]}/{url[4]}"
    except OSError as error:
        raise IssuesError(f"cannot read {str(path)!r}: {error.strerror}") from None
    return None


def _lines(file: Any) -> Iterator[tuple[int, bytes | None]]:
    """Number and content of each line that is not empty; None for one that is too long."""
    number = 0
    while line := file.readline(MAX_LINE_BYTES):
        number += 1
        whole = len(line) < MAX_LINE_BYTES
        while len(line) == MAX_LINE_BYTES and not line.endswith(b"\n"):
            line = file.readline(MAX_LINE_BYTES)
        if not whole:
            yield number, None
        elif line.strip():
            yield number, line


def _keep(
    store: Store,
    number: int,
    line: bytes | None,
    done: Imported,
    seen: Counter[tuple[object, ...]],
) -> None:
    try:
        if line is None:
            raise RecordError(f"longer than {MAX_LINE_BYTES} bytes")
        done.records[_put(store, _parsed(line), seen)] += 1
    except RecordError as error:
        done.problems.append(f"line {number}: {error}")


def _parsed(line: bytes) -> Mapping[str, Any]:
    try:
        entry = json.loads(line.decode().removeprefix("\ufeff"))
    except UnicodeDecodeError as error:
        raise RecordError(f"not UTF-8 at byte {error.start + 1}") from None
    except json.JSONDecodeError as error:
        raise RecordError(f"not JSON at column {error.colno}: {error.msg}") from None
    except (RecursionError, ValueError):
        raise RecordError("not usable JSON: nested too deep or a number too long") from None
    if not isinstance(entry, dict):
        raise RecordError("not an object")
    return entry


def _put(store: Store, entry: Mapping[str, Any], seen: Counter[tuple[object, ...]]) -> str:
    kind, data = entry.get("type"), entry.get("data")
    if kind == "timeline":
        issue = records.number(entry.get("issue"), "issue")
        store.put_events(issue, records.events(data, store.repo))
        return "timeline"
    if kind not in ("issue", "pull", "comment"):
        raise RecordError(f"type must be issue, pull, comment or timeline, got {kind!r:.60}")
    if not isinstance(data, Mapping):
        raise RecordError(f"data must be an object, got {data!r:.60}")
    if kind == "comment":
        record = records.comment(data, records.number(entry.get("issue"), "issue"))
        same = (record.number, record.author, record.created_at, record.body)
        store.put_comment(record, seen[same])
        seen[same] += record.id is None
        return "comment"
    paths = records.files(data)
    columns = records.thread(data, is_pull=True if kind == "pull" else None)
    if store.put_thread(columns) and paths is not None:
        store.put_files(columns["number"], paths)
    return str(kind)
