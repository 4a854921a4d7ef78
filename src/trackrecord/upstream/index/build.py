"""Building the index of a tree, and bringing it up to date when files changed.

Invariant: who opens the index finds a complete one. A new one is written beside its place and
renamed; an old one is changed in one transaction. Files that did not change are not read again.
"""

from __future__ import annotations

import json
import os
import sqlite3
from collections.abc import Callable, Iterable, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from time import perf_counter

from trackrecord.errors import UpstreamError
from trackrecord.upstream.index import schema
from trackrecord.upstream.index.documents import concerns_documents, read_documents
from trackrecord.upstream.index.scan import (
    FileStamp,
    is_test_path,
    module_roots,
    scan_tree,
)
from trackrecord.upstream.index.workers import FileFacts, Sign, read_files

Progress = Callable[[int, int], None]
"""Called with the number of files read, and how many there are to read."""

_EDGE_STRENGTH = {"module": 0, "function": 1, "typing": 2, "string": 3}
_NO_SIGN: Sign = (0, "")


@dataclass(frozen=True)
class BuildReport:
    """What was done, and what the index holds now."""

    cold: bool
    read: int
    """Files that were new or had changed, of every kind."""
    removed: int
    files: int
    symbols: int
    references: int
    problems: int
    """Files that could not be read, by every reader there is."""
    seconds: float


def build_index(
    root: Path,
    path: Path,
    pin_id: str,
    processes: int | None = None,
    force: bool = False,
    progress: Progress | None = None,
) -> BuildReport:
    """Makes the index at `path` say what the tree at `root` says.

    Args:
        pin_id: what the tree is; an index of something else is built anew.
        processes: how many read files at once; by default as many as pays.
        force: build anew whatever is there.

    Raises:
        UpstreamError: the tree or the index cannot be read or written.
    """
    began = perf_counter()
    try:
        scan = scan_tree(root)
    except OSError as error:
        raise UpstreamError(f"cannot read the tree at {str(root)!r}: {error.strerror}") from None
    job = _Job(root, *scan, pin_id, processes, progress)
    try:
        report = (None if force else _update_if_sound(path, job)) or _build(path, job)
    except sqlite3.Error as error:
        raise UpstreamError(f"cannot write the index at {path}: {error}") from None
    except OSError as error:
        raise UpstreamError(f"cannot write the index at {path}: {error.strerror}") from None
    return BuildReport(*report, seconds=perf_counter() - began)


def count_changes(root: Path, path: Path, pin_id: str) -> int:
    """In how many files the tree at `root` differs from what the index at `path` was made of.

    Raises:
        UpstreamError: there is no whole index of `pin_id`, or no tree.
    """
    try:
        stamps, misnamed = scan_tree(root)
    except OSError as error:
        raise UpstreamError(f"cannot read the tree at {str(root)!r}: {error.strerror}") from None
    with closing(schema.open_complete(path)) as connection:
        known = _known_files(connection, pin_id)
        left_out = _known_misnamed(connection)
    if known is None:
        raise UpstreamError(f"the index at {path} is not of {pin_id}")
    changed = sum(known.get(p, (0,))[1:] != s for p, s in stamps.items())
    return changed + len(known.keys() - stamps) + len(left_out.symmetric_difference(misnamed))


@dataclass(frozen=True)
class _Job:
    root: Path
    stamps: dict[str, FileStamp]
    misnamed: tuple[str, ...]
    pin_id: str
    processes: int | None
    progress: Progress | None


_Report = tuple[bool, int, int, int, int, int, int]


def _build(path: Path, job: _Job) -> _Report:
    """Everything, into a file beside `path` that takes its place."""
    path.parent.mkdir(parents=True, exist_ok=True)
    draft = path.with_name(f".{path.name}.{os.getpid()}.new")
    draft.unlink(missing_ok=True)
    try:
        with closing(sqlite3.connect(draft, isolation_level=None)) as connection:
            # Nobody else sees the draft, and a draft that breaks off is thrown away.
            connection.execute("PRAGMA journal_mode = OFF")
            connection.execute("PRAGMA synchronous = OFF")
            connection.executescript(schema.TABLES)
            connection.execute("BEGIN")
            writer = _Writer(connection, job)
            writer.write_files(job.stamps)
            writer.write_edges()
            writer.write_documents()
            connection.execute("COMMIT")
            connection.executescript(schema.INDEXES)
            schema.mark_complete(connection)
            report = (True, len(job.stamps), 0, *writer.counts())
        draft.replace(path)
    finally:
        draft.unlink(missing_ok=True)
    return report


def _update_if_sound(path: Path, job: _Job) -> _Report | None:
    try:
        return _update(path, job)
    except sqlite3.OperationalError:  # locked, or no room: nothing that a new index would mend
        raise
    except sqlite3.DatabaseError:
        return None


def _update(path: Path, job: _Job) -> _Report | None:
    """Only what changed, in place; None if that cannot be done."""
    try:
        connection = schema.open_complete(path)
    except UpstreamError:
        return None
    with closing(connection):
        connection.isolation_level = None
        known = _known_files(connection, job.pin_id)
        if known is None:
            return None
        changed = {p: s for p, s in job.stamps.items() if known.get(p, (0,))[1:] != s}
        gone = [p for p in known if p not in job.stamps]
        renamed = _known_misnamed(connection).symmetric_difference(job.misnamed)
        if not changed and not gone and not renamed:
            return (False, 0, 0, *_counts(connection))
        connection.execute("BEGIN IMMEDIATE")
        try:
            writer = _Writer(connection, job)
            writer.forget(known[p][0] for p in [*gone, *changed] if p in known)
            writer.write_files(changed)
            writer.write_edges()
            if renamed or any(map(concerns_documents, [*changed, *gone])):
                writer.write_documents()
            connection.execute("COMMIT")
        except BaseException:
            connection.execute("ROLLBACK")
            raise
        return (False, len(changed), len(gone), *writer.counts())


def _known_files(
    connection: sqlite3.Connection, pin_id: str
) -> dict[str, tuple[int, int, int]] | None:
    """(number, size, time) of every file of an index; None if it is damaged or another pin's."""
    try:
        of = connection.execute("SELECT value FROM meta WHERE key = 'pin'").fetchone()
        if of != (pin_id,):
            return None
        rows = connection.execute("SELECT path, id, size, mtime_ns FROM file").fetchall()
    except sqlite3.DatabaseError:
        return None
    return {row[0]: row[1:] for row in rows}


def _known_misnamed(connection: sqlite3.Connection) -> set[str]:
    """The files that were left out for their names."""
    rows = schema.fetch(connection, "SELECT value FROM meta WHERE key = 'misnamed'")
    return set(json.loads(rows[0][0])) if rows else set()


class _Writer:
    """Puts what files say into the tables; holds the numbers that words and files have."""

    def __init__(self, connection: sqlite3.Connection, job: _Job) -> None:
        self.connection = connection
        self.job = job
        self.words = dict(connection.execute("SELECT text, id FROM word"))
        self.new_words: list[tuple[int, str]] = []
        if not self.words:
            self.word("")
        self.next_file = self._next("file")
        self.next_symbol = self._next("symbol")

    def _next(self, table: str) -> int:
        query = f"SELECT coalesce(max(id), 0) + 1 FROM {table}"  # noqa: S608 - a constant
        return int(self.connection.execute(query).fetchone()[0])

    def word(self, text: str) -> int:
        number = self.words.get(text)
        if number is None:
            number = self.words[text] = len(self.words)
            self.new_words.append((number, text))
        return number

    def forget(self, files: Iterable[int]) -> None:
        for file in files:
            for table in schema.PER_FILE_TABLES:
                self.connection.execute(f"DELETE FROM {table} WHERE file = ?", (file,))  # noqa: S608
            self.connection.execute("DELETE FROM file WHERE id = ?", (file,))

    def write_files(self, stamps: dict[str, FileStamp]) -> None:
        python = {path: stamp.size for path, stamp in stamps.items() if path.endswith(".py")}
        other = [path for path in stamps if path not in python]
        rows = [self._file_row(path, 0) for path in other]
        self._insert("file", rows)
        roots = module_roots(list(self.job.stamps))
        done = 0
        for batch in read_files(self.job.root, python, roots, self.job.processes):
            self._write_batch(batch)
            done += len(batch)
            if self.job.progress:
                self.job.progress(done, len(python))

    def _file_row(
        self, path: str, module: int, facts: FileFacts | None = None
    ) -> tuple[object, ...]:
        number = self.next_file
        self.next_file += 1
        stamp = self.job.stamps[path]
        sign = facts.file_sign if facts else _NO_SIGN
        mark, problem = (facts.facts.pytestmark, facts.facts.problem) if facts else ("", "")
        return (number, path, *stamp, module, is_test_path(path), mark, *sign, problem)

    def _write_batch(self, batch: list[FileFacts]) -> None:
        tables: dict[str, list[tuple[object, ...]]] = {
            table: [] for table in ("file", *schema.PER_FILE_TABLES)
        }
        for entry in batch:
            file = self.next_file
            tables["file"].append(self._file_row(entry.path, self.word(entry.module), entry))
            self._add_symbols(file, entry, tables)
            self._add_uses(file, entry, tables)
        for table, rows in tables.items():
            self._insert(table, rows)
        self._insert("word", self.new_words)
        self.new_words = []

    def _add_symbols(
        self, file: int, entry: FileFacts, tables: dict[str, list[tuple[object, ...]]]
    ) -> None:
        word, base = self.word, self.next_symbol
        for index, item in enumerate(entry.facts.definitions):
            name = item.qualname[item.qualname.rfind(".") + 1 :]
            sign = entry.test_signs.get(index, _NO_SIGN)
            where = (item.qualname, item.kind, item.line, item.end_line)
            what = (item.signature, item.doc, item.marks)
            tables["symbol"].append((base + index, file, word(name), *where, *what, *sign))
            for path in item.bases:
                tables["base"].append((file, base + index, word(path)))

    def _add_uses(
        self, file: int, entry: FileFacts, tables: dict[str, list[tuple[object, ...]]]
    ) -> None:
        word, base, facts = self.word, self.next_symbol, entry.facts
        tables["import"] += [
            (file, line, word(module), word(name), word(bound), kind)
            for line, module, name, bound, kind in facts.imports
        ]
        tables["reference"] += [
            (file, word(name), word(owner), base + symbol if symbol >= 0 else 0, line)
            for name, owner, symbol, line in facts.references
        ]
        tables["sign"] += [(file, word(name), line) for name, line in facts.signs]
        tables["note"] += [(file, line, text) for line, text in facts.notes]
        for name in facts.identifiers:
            word(name)
        self.next_symbol += len(facts.definitions)

    def _insert(self, table: str, rows: Sequence[tuple[object, ...]]) -> None:
        if rows:
            holes = ", ".join("?" * len(rows[0]))
            self.connection.executemany(f"INSERT INTO {table} VALUES ({holes})", rows)  # noqa: S608

    def write_edges(self) -> None:
        """Which file imports which, from what each of them says it imports."""
        texts = {number: text for text, number in self.words.items()}
        files = self.connection.execute("SELECT module, id FROM file WHERE module > 0")
        modules = {texts[module]: file for module, file in files}
        found: dict[tuple[int, int], tuple[int, int]] = {}
        kinds = list(_EDGE_STRENGTH)
        known: dict[tuple[int, int], list[int]] = {}
        imports = self.connection.execute("SELECT file, line, module, name, kind FROM import")
        for file, line, module, name, kind in imports:
            targets = known.get((module, name))
            if targets is None:
                targets = _import_targets(texts[module], texts[name], modules)
                known[module, name] = targets
            for target in targets:
                strength = (_EDGE_STRENGTH[kind], line)
                key = (file, target)
                if target != file and (key not in found or strength < found[key]):
                    found[key] = strength
        self.connection.execute("DELETE FROM edge")
        rows = [(*key, line, kinds[kind]) for key, (kind, line) in found.items()]
        self._insert("edge", rows)

    def write_documents(self) -> None:
        self.connection.execute("DELETE FROM document")
        documents = read_documents(self.job.root, self.job.stamps)
        documents["problems"] += [
            {"path": path, "problem": "its name is not UTF-8"} for path in self.job.misnamed
        ]
        self._insert("document", [(name, json.dumps(value)) for name, value in documents.items()])
        self.connection.execute("DELETE FROM meta")
        misnamed = json.dumps(self.job.misnamed)
        facts = [("pin", self.job.pin_id), ("root", str(self.job.root)), ("misnamed", misnamed)]
        self._insert("meta", facts)

    def counts(self) -> tuple[int, int, int, int]:
        return _counts(self.connection)


def _counts(connection: sqlite3.Connection) -> tuple[int, int, int, int]:
    """Files, symbols, references and problems."""
    return tuple(
        connection.execute(query).fetchone()[0]
        for query in (
            "SELECT count(*) FROM file",
            "SELECT count(*) FROM symbol",
            "SELECT count(*) FROM reference",
            "SELECT (SELECT count(*) FROM file WHERE problem != '') + "
            "(SELECT json_array_length(content) FROM document WHERE name = 'problems')",
        )
    )


def _import_targets(module: str, name: str, modules: dict[str, int]) -> list[int]:
    """The files that `from module import name`, or `import module`, reaches.

    `from package import submodule` reaches both; a path in a string, which may go on to a class
    and a method, the longest module at its beginning.
    """
    if name:
        found = [f"{module}.{name}", module]
        return [modules[target] for target in found if target in modules]
    while module:
        if module in modules:
            return [modules[module]]
        module = module.rpartition(".")[0]
    return []
