"""One repository's threads in one SQLite file: what `sync` and `import` write and all else reads.

Invariants: everything written inside one `transaction` is there together or not at all; writing the
same record twice leaves the store as writing it once; an older record never replaces a newer one.
Reading needs no right to write. What SQLite cannot do with the file is said as one `IssuesError`,
by `open` or at the end of the `with` that the store is used in. Text is stored as it came and is
untrusted.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import os
import sqlite3
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import Any

from trackrecord.issues.errors import IssuesError
from trackrecord.issues.models import Comment, Event, Issue, Link, LinkKind, Note, Pull
from trackrecord.issues.records import CommentRecord
from trackrecord.issues.references import references
from trackrecord.issues.schema import TABLES, VERSION

_EVENT_COLUMNS = (
    "kind, created_at, actor, source_number, source_is_pull, source_repo, commit_id, detail"
)
_KIND_ORDER: tuple[LinkKind, ...] = ("closes", "connected", "cross-referenced", "mentions")


class Store:
    """The threads of `repo`. Not safe for use by several threads of a program at once."""

    def __init__(
        self, connection: sqlite3.Connection, repo: str, path: Path, read_only: bool = False
    ) -> None:
        self.connection = connection
        self.repo = repo
        self.path = path
        self.read_only = read_only

    @classmethod
    def open(cls, path: Path, repo: str, *, create: bool = False) -> Store:
        """The store in the file `path`.

        Args:
            repo: "owner/name" whose threads it holds.
            create: make the file where there is none, else that is an error.

        Raises:
            IssuesError: there is no store, it is damaged, or it belongs to another repository.
        """
        if not path.exists() and not create:
            raise IssuesError(
                f"no issues of {repo} here: run `trackrecord issues sync {repo}` "
                "or `trackrecord issues import FILE.jsonl`"
            )
        read_only = not create and not _is_writable(path)
        try:
            if create:
                path.parent.mkdir(parents=True, exist_ok=True)
            connection = _connect(path, read_only)
            try:
                _prepare(connection, repo, path, read_only)
            except BaseException:
                connection.close()
                raise
        except sqlite3.Error as error:
            raise _unusable(path, error) from None
        except OSError as error:
            raise IssuesError(f"{path}: cannot be written: {error.strerror}") from None
        return cls(connection, repo, path, read_only)

    def close(self) -> None:
        self.connection.close()

    def __enter__(self) -> Store:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()
        if isinstance(error, sqlite3.Error):
            raise _unusable(self.path, error) from None

    @contextmanager
    def transaction(self) -> Iterator[None]:
        """All writes inside, or none of them.

        Raises:
            IssuesError: the store was opened where it cannot be written.
        """
        if self.read_only:
            raise IssuesError(
                f"{self.path} has changes to make and is not writable: make it so, or use a copy "
                f"of the workspace"
            )
        self.connection.execute("BEGIN IMMEDIATE")
        try:
            yield
        except BaseException:
            self.connection.execute("ROLLBACK")
            raise
        self.connection.execute("COMMIT")

    # Reading

    def issue(self, number: int) -> Issue | None:
        """The issue `number`, or the pull request of that number as a thread; None if unknown."""
        return next(iter(self._threads("number = ?", (_stored(number),))), None)

    def is_gone(self, number: int) -> bool:
        """Whether GitHub has said that it holds thread `number` no longer."""
        query = "SELECT gone FROM threads WHERE number = ?"
        return (self.connection.execute(query, (_stored(number),)).fetchone() or (0,))[0] == 1

    def pull(self, number: int) -> Pull | None:
        """The pull request `number`; None if unknown or an issue."""
        found = self.issue(number)
        return found if isinstance(found, Pull) else None

    def all_issues(self, state: str | None = None) -> Iterator[Issue]:
        """Every issue (no pull requests) by number, of one state if given."""
        where, values = ("AND state = ?", (state,)) if state else ("", ())
        return self._threads(f"NOT is_pull AND NOT gone {where} ORDER BY number", values)

    def all_pulls(self, state: str | None = None) -> Iterator[Pull]:
        """Every pull request by number, of one state if given."""
        where, values = ("AND state = ?", (state,)) if state else ("", ())
        found = self._threads(f"is_pull AND NOT gone {where} ORDER BY number", values)
        return (thread for thread in found if isinstance(thread, Pull))

    def pulls_changing(self, path: str) -> list[Pull]:
        """The pull requests that are known to change the file `path`."""
        where = "is_pull AND number IN (SELECT number FROM files WHERE path = ?) ORDER BY number"
        return [p for p in self._threads(where, (path,)) if isinstance(p, Pull)]

    def comments(self, number: int) -> list[Comment]:
        """The comments of a thread, oldest first; one without a time keeps its place."""
        rows = self.connection.execute(
            "SELECT id, number, author, created_at, updated_at, body, author_association, is_bot "
            "FROM comments WHERE number = ? ORDER BY position, id",
            (_stored(number),),
        )
        return [
            Comment(id_, thread, author, created, updated, body, association, bool(bot))
            for id_, thread, author, created, updated, body, association, bot in rows
        ]

    def timeline(self, number: int) -> list[Event]:
        """The events of a thread, oldest first."""
        rows = self.connection.execute(
            f"SELECT {_EVENT_COLUMNS} FROM events WHERE number = ? ORDER BY position",  # noqa: S608
            (_stored(number),),
        )
        return [_event(row) for row in rows]

    def links_to(self, number: int) -> list[Link]:
        """Every other thread that names `number`, the strongest kind of each place first."""
        rows = self.connection.execute(
            "SELECT l.number, l.target, l.kind, l.place, coalesce(t.is_pull, 0) FROM links l "
            "LEFT JOIN threads t ON t.number = l.number WHERE l.target = ?1 AND l.number != ?1 "
            "UNION SELECT e.source_number, e.number, CASE e.kind WHEN 'connected' THEN 'connected' "
            "ELSE 'cross-referenced' END, 'timeline', coalesce(e.source_is_pull, t.is_pull, 0) "
            "FROM events e LEFT JOIN threads t ON t.number = e.source_number "
            "WHERE e.number = ?1 AND e.source_number IS NOT NULL AND e.source_repo IS NULL "
            "AND e.kind IN ('cross-referenced', 'connected')",
            (_stored(number),),
        )
        return _links(rows)

    def links_from(self, number: int) -> list[Link]:
        """Every other thread that `number` names in its title, body or comments."""
        rows = self.connection.execute(
            "SELECT l.number, l.target, l.kind, l.place, coalesce(t.is_pull, 0) FROM links l "
            "LEFT JOIN threads t ON t.number = l.number WHERE l.number = ?1 AND l.target != ?1",
            (_stored(number),),
        )
        return _links(rows)

    def pulls_mentioning(self, number: int) -> list[Link]:
        """The links to `number` that come from pull requests."""
        return [link for link in self.links_to(number) if link.is_pull]

    @property
    def last_sync(self) -> str | None:
        """When the last complete sync began: all that changed before is here. None without one."""
        return self.meta("last_sync")

    def counts(self) -> dict[str, int]:
        """How many issues, pulls, comments and events are stored."""
        query = (
            "SELECT (SELECT count(*) FROM threads WHERE NOT is_pull AND NOT gone), "
            "(SELECT count(*) FROM threads WHERE is_pull AND NOT gone), "
            "(SELECT count(*) FROM comments), (SELECT count(*) FROM events)"
        )
        row = self.connection.execute(query).fetchone()
        return dict(zip(("issues", "pulls", "comments", "events"), row, strict=True))

    def notes(self) -> list[Note]:
        """The harvested TODO notes that the tree still has, the best first."""
        return self._notes("present ORDER BY score DESC, number", ())

    def note(self, number: int) -> Note | None:
        """The note `Tnumber`, also one that the tree no longer has; None if there never was one."""
        return next(iter(self._notes("number = ?", (number,))), None)

    # Writing

    def put_thread(self, columns: Mapping[str, Any]) -> bool:
        """Stores what `records.thread` knows of a thread; False if a newer record is here."""
        number = columns["number"]
        known = self.connection.execute(
            "SELECT updated_at FROM threads WHERE number = ?", (number,)
        ).fetchone()
        new = columns.get("updated_at")
        if known and known[0] and new and known[0] > new:
            return False
        given = {k: v for k, v in columns.items() if v is not None or k in _NULLABLE}
        names = ", ".join(given)
        marks = ", ".join("?" * len(given))
        changes = ", ".join(f"{name} = excluded.{name}" for name in given if name != "number")
        self.connection.execute(
            f"INSERT INTO threads ({names}) VALUES ({marks}) "  # noqa: S608
            f"ON CONFLICT (number) DO UPDATE SET {changes}, gone = 0",
            tuple(given.values()),
        )
        title, body = self.connection.execute(
            "SELECT title, body FROM threads WHERE number = ?", (number,)
        ).fetchone()
        self._link(number, "title", title)
        self._link(number, "body", body)
        self._stale(number)
        return True

    def put_files(self, number: int, paths: Iterable[str]) -> None:
        """The files of a pull request, all of them."""
        self.connection.execute("DELETE FROM files WHERE number = ?", (number,))
        self.connection.executemany(
            "INSERT INTO files VALUES (?, ?)", ((number, path) for path in paths)
        )
        self.connection.execute("UPDATE threads SET files_known = 1 WHERE number = ?", (number,))

    def put_comment(self, record: CommentRecord, occurrence: int = 0) -> None:
        """Stores a comment.

        Args:
            occurrence: how many equal comments without an id came before it in the same source;
                with it, reading that source again finds the same comments.
        """
        known = self.connection.execute(
            "SELECT updated_at FROM comments WHERE id = ?", (record.id,)
        ).fetchone()
        if known and known[0] and record.updated_at and known[0] > record.updated_at:
            return
        identity = record.id or _content_id(record, occurrence)
        self.connection.execute(
            "INSERT INTO comments VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?) ON CONFLICT (id) DO UPDATE "
            "SET author = excluded.author, is_bot = excluded.is_bot, body = excluded.body, "
            "author_association = excluded.author_association, updated_at = excluded.updated_at",
            (
                identity,
                record.number,
                self._position(record),
                record.author,
                record.is_bot,
                record.author_association,
                record.created_at,
                record.updated_at,
                record.body,
            ),
        )
        self._link(record.number, f"comment {identity}", record.body)
        self._stale(record.number)

    def put_events(self, number: int, events: Sequence[Event]) -> None:
        """The timeline of a thread, all of it."""
        self.connection.execute("DELETE FROM events WHERE number = ?", (number,))
        self.connection.executemany(
            f"INSERT INTO events (number, position, {_EVENT_COLUMNS}) "  # noqa: S608
            "VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
            (
                (number, position, *dataclasses.astuple(event))
                for position, event in enumerate(events)
            ),
        )

    def mark_details(self, number: int) -> None:
        """Timeline and files of `number` are at least as new as the thread."""
        self.connection.execute(
            "UPDATE threads SET details_of = coalesce(updated_at, '') WHERE number = ?", (number,)
        )

    def mark_gone(self, number: int) -> None:
        """GitHub has the thread no longer (deleted, or moved to another repository)."""
        self.connection.execute("UPDATE threads SET gone = 1 WHERE number = ?", (number,))
        self._stale(number)

    def put_notes(self, notes: Iterable[tuple[str, Note]]) -> None:
        """Replaces which TODO notes the tree has. A key that was seen before keeps its number.

        Args:
            notes: key and note; the note's own number is not used.
        """
        self.connection.execute("UPDATE notes SET present = 0")
        self.connection.executemany(
            "INSERT INTO notes (key, path, line, text, symbol, cause, evidence, score, present) "
            "VALUES (?, ?, ?, ?, ?, ?, ?, ?, 1) ON CONFLICT (key) DO UPDATE SET "
            "path = excluded.path, line = excluded.line, text = excluded.text, "
            "symbol = excluded.symbol, cause = excluded.cause, evidence = excluded.evidence, "
            "score = excluded.score, present = 1",
            (
                (key, n.path, n.line, n.text, n.symbol, n.cause, n.evidence, n.score)
                for key, n in notes
            ),
        )

    def meta(self, key: str) -> str | None:
        row = self.connection.execute("SELECT value FROM meta WHERE key = ?", (key,)).fetchone()
        return None if row is None else str(row[0])

    def set_meta(self, key: str, value: str) -> None:
        self.connection.execute("INSERT OR REPLACE INTO meta VALUES (?, ?)", (key, value))

    # Inside

    def _threads(self, where: str, values: Sequence[Any]) -> Iterator[Issue]:
        query = f"SELECT {', '.join(_THREAD_COLUMNS)} FROM threads WHERE {where}"  # noqa: S608
        for row in self.connection.execute(query, values):
            yield self._thread(dict(zip(_THREAD_COLUMNS, row, strict=True)))

    def _thread(self, row: dict[str, Any]) -> Issue:
        row["user"] = row.pop("author")
        row["labels"] = _names(row["labels"])
        row["assignees"] = _names(row["assignees"])
        row["is_pull"] = bool(row["is_pull"])
        known = row.pop("files_known")
        pull = {key: row.pop(key) for key in _PULL_COLUMNS}
        if not row["is_pull"]:
            return Issue(**row)
        pull["merged"] = None if pull["merged"] is None else bool(pull["merged"])
        pull["draft"] = bool(pull["draft"])
        return Pull(**row, **pull, files=self._files(row["number"]) if known else None)

    def _files(self, number: int) -> tuple[str, ...]:
        rows = self.connection.execute(
            "SELECT path FROM files WHERE number = ? ORDER BY path", (number,)
        )
        return tuple(path for (path,) in rows)

    def _notes(self, where: str, values: Sequence[Any]) -> list[Note]:
        columns = "number, path, line, text, symbol, cause, evidence, score, present"
        query = f"SELECT {columns} FROM notes WHERE {where}"  # noqa: S608
        rows = self.connection.execute(query, values)
        return [
            Note(n, path, line, text, symbol, cause, evidence, score, bool(present))
            for n, path, line, text, symbol, cause, evidence, score, present in rows
        ]

    def _link(self, number: int, place: str, text: str) -> None:
        self.connection.execute("DELETE FROM links WHERE number = ? AND place = ?", (number, place))
        strongest: dict[int, str] = {}
        for found in references(text, self.repo) if _may_refer(text) else ():
            if found.repo is None and not found.quoted and found.form != "discussion":
                kind = "closes" if found.closes else "mentions"
                strongest[found.number] = min(kind, strongest.get(found.number, kind))
        self.connection.executemany(
            "INSERT INTO links VALUES (?, ?, ?, ?)",
            ((number, target, place, kind) for target, kind in strongest.items()),
        )

    def _stale(self, number: int) -> None:
        self.connection.execute("INSERT OR IGNORE INTO stale_terms VALUES (?)", (number,))

    def _position(self, record: CommentRecord) -> int:
        """Where a comment stands in its thread: GitHub's ids grow with time, else as they come."""
        if record.id is not None and record.id.isascii() and record.id.isdigit():
            return min(int(record.id), 2**62)
        row = self.connection.execute(
            "SELECT coalesce(max(position), 0) + 1 FROM comments WHERE number = ?",
            (record.number,),
        ).fetchone()
        return int(row[0])


_PULL_COLUMNS = ("merged", "merged_at", "draft", "head", "base", "additions", "deletions")
_THREAD_COLUMNS = (
    *("number", "title", "body", "state", "state_reason", "labels", "author", "assignees"),
    *("created_at", "updated_at", "closed_at", "is_pull", "author_association", "url"),
    *_PULL_COLUMNS,
    "files_known",
)
_NULLABLE = frozenset({"state_reason", "closed_at", "merged_at"})
"""Columns in which null says something: reopened, not merged."""


_BUSY = (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED)
_DAMAGED = (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB)


def _is_writable(path: Path) -> bool:
    """Whether SQLite can write the file, and the files that it keeps beside it."""
    return os.access(path, os.W_OK) and os.access(path.parent, os.W_OK)


def _connect(path: Path, read_only: bool) -> sqlite3.Connection:
    if not read_only:
        return sqlite3.connect(path, timeout=30, isolation_level=None)
    # Without a log beside it the file is whole as it is; with one, SQLite needs to read that too.
    logged = path.with_name(path.name + "-wal").exists()
    uri = f"{path.absolute().as_uri()}?mode=ro{'' if logged else '&immutable=1'}"
    return sqlite3.connect(uri, uri=True, timeout=30, isolation_level=None)


def _unusable(path: Path, error: sqlite3.Error) -> IssuesError:
    """What to do about it; nobody is told to throw away a store that may be whole."""
    code = getattr(error, "sqlite_errorcode", sqlite3.SQLITE_CORRUPT) & 0xFF
    if code in _BUSY:
        return IssuesError(f"{path}: another program is writing the issue store: try again later")
    if code in _DAMAGED:
        return IssuesError(
            f"{path}: cannot be used as an issue store ({error}): move it away and sync again"
        )
    return IssuesError(f"{path}: the issue store cannot be read or written here: {error}")


def _stored(number: int) -> int:
    """A thread's number as SQLite can look it up; what it cannot hold is the number of none."""
    return number if 0 < number < 2**63 else 0


def _names(text: str) -> tuple[str, ...]:
    try:
        return tuple(json.loads(text))
    except (ValueError, TypeError):
        raise sqlite3.DatabaseError(f"not a list of names: {text!r:.40}") from None


def _prepare(connection: sqlite3.Connection, repo: str, path: Path, read_only: bool) -> None:
    if not read_only:
        connection.execute("PRAGMA journal_mode = WAL")
        connection.execute("PRAGMA synchronous = NORMAL")
    connection.execute("PRAGMA cache_size = -65536")  # KiB
    (version,) = connection.execute("PRAGMA user_version").fetchone()
    if version == 0 and not read_only:
        connection.executescript(f"BEGIN;{TABLES}PRAGMA user_version = {VERSION};COMMIT;")
        connection.execute("INSERT OR REPLACE INTO meta VALUES ('repo', ?)", (repo,))
    elif version != VERSION:
        raise IssuesError(f"{path}: written by another version: move it away and sync again")
    (held,) = connection.execute("SELECT value FROM meta WHERE key = 'repo'").fetchone()
    if held.lower() != repo.lower():
        raise IssuesError(f"{path}: holds the issues of {held}, not of {repo}")


def _event(row: tuple[Any, ...]) -> Event:
    kind, created_at, actor, number, is_pull, repo, commit, detail = row
    known = None if is_pull is None else bool(is_pull)
    return Event(kind, created_at, actor, number, known, repo, commit, detail)


def _links(rows: Iterable[tuple[Any, ...]]) -> list[Link]:
    links = [Link(n, target, kind, place, bool(pull)) for n, target, kind, place, pull in rows]
    return sorted(links, key=lambda link: (_KIND_ORDER.index(link.kind), link.number, link.where))


def _content_id(record: CommentRecord, occurrence: int) -> str:
    content = (record.number, record.author, record.created_at, record.body, occurrence)
    return "x" + hashlib.sha256(json.dumps(content).encode()).hexdigest()[:20]


def _may_refer(text: str) -> bool:
    return "#" in text or "github.com/" in text or "GH-" in text
