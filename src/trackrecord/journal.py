"""A file of entries that cannot be changed unnoticed: what was done, said or written, in order.

A journal is a file of JSON lines. Each entry carries the hash of the one before it and its own, so
that an entry altered, removed or put in between shows; a second file, the head, holds a number of
entries and the hash of the last of them, so that entries cut off the end are missed too. It is
there before the first entry is. A writer that stays open writes the head when told to, and when it
closes: entries after the one in the head count if they follow it, and of those alone a cut does
not show.

Invariant: `Writer.append` returns only when the entry is on disk, and nothing is added to a journal
that is not what was written: that would make it look whole. A last line without its end was never
acknowledged to anyone, and the next writer drops it.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, NamedTuple

from trackrecord.errors import WorkspaceError

HEAD_FILE = "head.json"
START = "0" * 64
"""What the first entry has for the hash of the one before it."""


class BusyError(WorkspaceError):
    """Somebody else holds the lock."""


@dataclass(frozen=True)
class Entry:
    """One entry: `number` counts from 1, `at` is ISO 8601 in UTC, `data` depends on `kind`."""

    number: int
    kind: str
    at: str
    data: dict[str, Any]
    previous: str
    hash: str

    @property
    def name(self) -> str:
        """How a person refers to it: `E3`."""
        return f"E{self.number}"

    def to_json(self) -> dict[str, Any]:
        return {"number": self.number, "kind": self.kind, "at": self.at} | {
            "data": self.data,
            "previous": self.previous,
            "hash": self.hash,
        }


@dataclass(frozen=True)
class Verdict:
    """Whether a journal is what was written; `problems` says where it is not, a line each."""

    entries: int
    head: str
    problems: tuple[str, ...]

    @property
    def intact(self) -> bool:
        return not self.problems


@dataclass(frozen=True)
class Content:
    """What a journal holds: the entries up to the first that is not what was written, the number
    of that line or 0, and the verdict on the whole."""

    entries: tuple[Entry, ...]
    damaged_line: int
    verdict: Verdict


class _End(NamedTuple):
    """Where a journal ends: so many entries, the last hash, so many bytes."""

    entries: int
    hash: str
    size: int


class Writer:
    """An open journal: remembers the end of its chain, so that an entry costs one write."""

    def __init__(self, journal: JournalFile, file: int, entries: tuple[Entry, ...]) -> None:
        self.entries = entries
        """Those that were there when it was opened."""
        self._journal = journal
        self._file = file
        last = entries[-1].hash if entries else START
        self._end = _End(len(entries), last, os.fstat(file).st_size)

    def append(self, kind: str, data: dict[str, Any], at: str = "") -> Entry:
        """Adds an entry, stamped with the time unless `at` is given.

        Raises:
            WorkspaceError: it cannot be written; the journal is as it was.
        """
        stamp = at or datetime.now(UTC).isoformat(timespec="seconds").replace("+00:00", "Z")
        return self.append_all([(kind, data, stamp)])[0]

    def append_all(self, contents: Iterable[tuple[str, dict[str, Any], str]]) -> list[Entry]:
        """Adds an entry for each (kind, data, time), in one write.

        Raises:
            WorkspaceError: as `append`.
        """
        added: list[Entry] = []
        number, last, _ = self._end
        for kind, data, at in contents:
            number += 1
            body = {"number": number, "kind": kind, "at": at, "data": data, "previous": last}
            added.append(Entry(number, kind, at, data, last, _hash(body)))
            last = added[-1].hash
        lines = "".join(
            json.dumps(entry.to_json(), ensure_ascii=True, allow_nan=False) + "\n"
            for entry in added
        ).encode()
        rest = memoryview(lines)
        with self._journal.reported():
            try:
                while rest:
                    rest = rest[os.write(self._file, rest) :]
                os.fsync(self._file)
                self._end = _End(number, last, self._end.size + len(lines))
            except BaseException:  # a signal too: nothing is to follow half an entry
                with suppress(OSError):
                    os.ftruncate(self._file, self._end.size)
                raise
        return added

    def seal(self) -> None:
        """Writes the head: from now on it shows if what was added so far is cut off.

        Raises:
            WorkspaceError: it cannot be written.
        """
        with self._journal.reported():
            self._journal.write_head(self._end.entries, self._end.hash)


@dataclass(frozen=True)
class JournalFile:
    """The journal at `path`; its head lies beside it."""

    path: Path

    def read(self) -> Content:
        """The entries as far as they are what was written, and whether that is all of them.

        Raises:
            WorkspaceError: the file is there and cannot be read.
        """
        intact: list[Entry] = []
        problems: list[str] = []
        hashes, damaged = [START], 0
        for number, line in enumerate(self._lines(), 1):
            entry = _parse(line)
            if entry is None:
                problems.append(f"line {number} is not an entry")
            elif problem := _problem(entry, number, hashes[-1]):
                problems.append(f"line {number}: {problem}")
            if problems:
                damaged = damaged or number
            elif entry is not None:
                intact.append(entry)
            hashes.append(entry.hash if entry else hashes[-1])
        if problem := self._problem_at_end(hashes):
            problems.append(problem)
        head = hashes[-1] if hashes[1:] else ""
        return Content(tuple(intact), damaged, Verdict(len(hashes) - 1, head, tuple(problems)))

    @contextmanager
    def writer(self) -> Iterator[Writer]:
        """Opens the journal to add to it; the caller keeps other writers out (`locked`).

        Raises:
            WorkspaceError: it cannot be written, or is not all that was written.
        """
        with self.reported():
            self.path.parent.mkdir(parents=True, exist_ok=True)
            self._drop_unfinished()
            content = self.read()
            if not content.verdict.entries and self._noted_head() is None:
                self.write_head(0, START)
                content = self.read()
            if problems := content.verdict.problems:
                raise WorkspaceError(
                    f"{self.path}: {problems[0]}, so nothing is added to it: put the file back as "
                    f"it was, or move {str(self.path.parent)!r} away to begin a new journal"
                )
            file = self.path.open("ab")
        with file:
            writer = Writer(self, file.fileno(), content.entries)
            try:
                yield writer
            finally:
                writer.seal()

    @contextmanager
    def reported(self) -> Iterator[None]:
        """Turns what the system says about the files into one line."""
        try:
            yield
        except OSError as error:
            raise WorkspaceError(
                f"cannot write the journal {str(self.path)!r}: {error.strerror}"
            ) from None

    def write_head(self, entries: int, last: str) -> None:
        head = self.path.with_name(HEAD_FILE)
        draft = head.with_suffix(".new")
        with draft.open("w", encoding="utf-8") as file:
            file.write(json.dumps({"entries": entries, "hash": last}) + "\n")
            file.flush()
            os.fsync(file.fileno())
        draft.replace(head)

    def _problem_at_end(self, hashes: list[str]) -> str:
        """What the head says is wrong about a journal whose entries have `hashes`, after the one
        that stands for none. The head may be behind: it is written after the entries."""
        noted, count = self._noted_head(), len(hashes) - 1
        if noted is None:
            missing = f"{HEAD_FILE} is missing or damaged"
            return f"{missing}, so entries cut off the end would not show" if count else ""
        if noted[0] > count:
            return f"{noted[0] - count} entries are missing at the end"
        if hashes[noted[0]] != noted[1]:
            return "the last entry is not the one that was written last"
        return ""

    def _lines(self) -> Iterator[str]:
        try:
            content = self.path.read_bytes()
        except FileNotFoundError:
            return
        except OSError as error:
            raise WorkspaceError(f"cannot read {str(self.path)!r}: {error.strerror}") from None
        for line in content.split(b"\n")[:-1]:
            yield line.decode("utf-8", errors="replace")

    def _drop_unfinished(self) -> None:
        if not self.path.exists():
            return
        with self.path.open("r+b") as file:
            content = file.read()
            if content and not content.endswith(b"\n"):
                file.truncate(content.rfind(b"\n") + 1)

    def _noted_head(self) -> tuple[int, str] | None:
        try:
            noted = json.loads(self.path.with_name(HEAD_FILE).read_text(encoding="utf-8"))
            count, last = noted["entries"], noted["hash"]
        except (OSError, ValueError, KeyError, TypeError, RecursionError):
            return None
        known = type(count) is int and count >= 0 and isinstance(last, str)
        return (count, last) if known else None


@contextmanager
def locked(path: Path, wait: bool = True) -> Iterator[None]:
    """Keeps other processes out while the block runs; the system ends it with the process.

    Raises:
        BusyError: another holds it, and `wait` is off.
        WorkspaceError: the file cannot be made.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        file = path.open("ab")
    except OSError as error:
        raise WorkspaceError(f"cannot write {str(path)!r}: {error.strerror}") from None
    with file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX if wait else fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise BusyError(f"{str(path)!r} is held by another process") from None
        except OSError as error:
            raise WorkspaceError(f"cannot lock {str(path)!r}: {error.strerror}") from None
        yield


def _parse(line: str) -> Entry | None:
    try:
        value = json.loads(line)
        return Entry(**value) if isinstance(value["data"], dict) else None
    except (ValueError, TypeError, KeyError, RecursionError):
        return None


def _problem(entry: Entry, number: int, last: str) -> str:
    body = entry.to_json()
    del body["hash"]
    if entry.hash != _hash(body):
        return "the entry was altered"
    if entry.number != number or entry.previous != last:
        return "entries before it were removed, added or put in another order"
    return ""


def _hash(body: dict[str, Any]) -> str:
    text = json.dumps(body, sort_keys=True, ensure_ascii=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()
