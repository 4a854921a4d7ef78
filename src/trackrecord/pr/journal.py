"""What was done and what was said, in an order that cannot be changed unnoticed.

A journal is a file of JSON lines in the workspace. Each entry carries the hash of the one before
it and its own, so that an entry altered, removed or put in between shows; a second file holds the
number of entries and the last hash, so that entries cut off the end are missed too. It is there
before the first entry is.

Invariant: `append` returns only when the entry is on disk, and adds nothing to a journal that is
not what was written: that would make it look whole. A last line without its end was never
acknowledged to anyone, and the next `append` drops it.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal

from trackrecord.errors import WorkspaceError
from trackrecord.pr.entry_shape import checked
from trackrecord.workspace import Workspace

Kind = Literal["run", "bench", "statement"]
FOLDER = "evidence"
FILE = "journal.jsonl"
HEAD_FILE = "head.json"
_START = "0" * 64


@dataclass(frozen=True)
class Entry:
    """One entry: `number` counts from 1, `at` is ISO 8601 in UTC, `data` depends on `kind`."""

    number: int
    kind: Kind
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
class Journal:
    """The journal of a workspace."""

    workspace: Workspace

    @property
    def path(self) -> Path:
        return self.workspace.root / FOLDER / FILE

    def entries(self) -> list[Entry]:
        """Every entry, oldest first; none if there is no journal.

        Raises:
            WorkspaceError: a line is no entry, does not follow the one before, or holds what no
                command writes.
        """
        found: list[Entry] = []
        for number, line in enumerate(self._lines(), 1):
            entry = _parse(line)
            last = found[-1].hash if found else _START
            if entry is None or _problem(entry, number, last):
                raise WorkspaceError(
                    f"{self.path}, line {number}: not what was written there: run `trackrecord "
                    f"evidence verify`"
                )
            found.append(entry)
        return list(checked(found))

    def append(self, kind: Kind, data: dict[str, Any]) -> Entry:
        """Adds an entry, stamped with the time.

        Raises:
            WorkspaceError: the workspace cannot be written, or the journal is damaged.
        """
        with self._open_whole() as before:
            last = before[-1].hash if before else _START
            number = len(before) + 1
            at = datetime.now(UTC).isoformat(timespec="seconds").replace("+00:00", "Z")
            body = {"number": number, "kind": kind, "at": at, "data": data, "previous": last}
            entry = Entry(number, kind, at, data, last, _hash(body))
            self._write(entry)
        return entry

    def check_writable(self) -> None:
        """Says at once what would keep `append` from recording, before anything is done for it.

        Raises:
            WorkspaceError: as `append`.
        """
        with self._open_whole(), self.path.open("ab"):
            pass

    @contextmanager
    def _open_whole(self) -> Iterator[list[Entry]]:
        """The entries so far, with other writers kept out, if they are all that was written."""
        self.workspace.create()
        try:
            self.path.parent.mkdir(exist_ok=True)
            with _locked(self.path.with_name("lock")):
                self._drop_unfinished()
                before = self.entries()
                if not before and self._noted_head() is None:
                    self._write_head(0, _START)
                if problem := self._problem_at_end([_START, *(entry.hash for entry in before)]):
                    raise WorkspaceError(
                        f"{self.path}: {problem}, so nothing is added to it: put the file back as "
                        f"it was, or move {str(self.path.parent)!r} away to begin a new journal"
                    )
                yield before
        except OSError as error:
            raise WorkspaceError(
                f"cannot write the journal {str(self.path)!r}: {error.strerror}"
            ) from None

    def verify(self) -> Verdict:
        """Checks every entry, and that none is missing at the end."""
        problems: list[str] = []
        hashes = [_START]
        for number, line in enumerate(self._lines(), 1):
            entry = _parse(line)
            if entry is None:
                problems.append(f"line {number} is not an entry")
            elif problem := _problem(entry, number, hashes[-1]):
                problems.append(f"line {number}: {problem}")
            hashes.append(entry.hash if entry else hashes[-1])
        if problem := self._problem_at_end(hashes):
            problems.append(problem)
        return Verdict(len(hashes) - 1, hashes[-1] if hashes[1:] else "", tuple(problems))

    def _problem_at_end(self, hashes: list[str]) -> str:
        """What the head says is wrong about a journal whose entries have `hashes`, after the one
        that stands for none. The head may be an entry behind: it is written second."""
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

    def _write(self, entry: Entry) -> None:
        line = json.dumps(entry.to_json(), ensure_ascii=True, allow_nan=False)
        with self.path.open("ab") as file:
            file.write(line.encode() + b"\n")
            file.flush()
            os.fsync(file.fileno())
        self._write_head(entry.number, entry.hash)

    def _write_head(self, entries: int, last: str) -> None:
        head = self.path.with_name(HEAD_FILE)
        draft = head.with_suffix(".new")
        with draft.open("w", encoding="utf-8") as file:
            file.write(json.dumps({"entries": entries, "hash": last}) + "\n")
            file.flush()
            os.fsync(file.fileno())
        draft.replace(head)

    def _noted_head(self) -> tuple[int, str] | None:
        try:
            noted = json.loads(self.path.with_name(HEAD_FILE).read_text(encoding="utf-8"))
            count, last = noted["entries"], noted["hash"]
        except (OSError, ValueError, KeyError, TypeError, RecursionError):
            return None
        known = type(count) is int and count >= 0 and isinstance(last, str)
        return (count, last) if known else None


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


@contextmanager
def _locked(path: Path) -> Iterator[None]:
    """Keeps other processes out while the block runs."""
    with path.open("ab") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield
