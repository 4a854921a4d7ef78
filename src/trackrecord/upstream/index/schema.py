"""The index as SQLite keeps it.

Names and dotted paths are words, so that the two big tables hold numbers only. The identifiers of
one file's definitions follow each other, which is what lets a changed file be replaced alone.

Invariant: a database with this application id and version is complete. The version is written in
the same transaction, or before the same rename, as the last of the content.
"""

from __future__ import annotations

import sqlite3
from pathlib import Path
from typing import Any

from trackrecord.errors import UpstreamError

APPLICATION_ID = 0x74726B72
VERSION = 3

TABLES = """
CREATE TABLE meta (key TEXT PRIMARY KEY, value TEXT NOT NULL);
CREATE TABLE word (id INTEGER PRIMARY KEY, text TEXT NOT NULL);
CREATE TABLE file (
    id INTEGER PRIMARY KEY, path TEXT NOT NULL, size INTEGER NOT NULL, mtime_ns INTEGER NOT NULL,
    module INTEGER NOT NULL, is_test INTEGER NOT NULL, pytestmark TEXT NOT NULL,
    gpu_line INTEGER NOT NULL, gpu_sign TEXT NOT NULL, problem TEXT NOT NULL);
CREATE TABLE symbol (
    id INTEGER PRIMARY KEY, file INTEGER NOT NULL, name INTEGER NOT NULL, qualname TEXT NOT NULL,
    kind TEXT NOT NULL, line INTEGER NOT NULL, end_line INTEGER NOT NULL, signature TEXT NOT NULL,
    doc TEXT NOT NULL, marks TEXT NOT NULL, gpu_line INTEGER NOT NULL, gpu_sign TEXT NOT NULL);
CREATE TABLE base (file INTEGER NOT NULL, symbol INTEGER NOT NULL, word INTEGER NOT NULL);
CREATE TABLE import (
    file INTEGER NOT NULL, line INTEGER NOT NULL, module INTEGER NOT NULL, name INTEGER NOT NULL,
    bound INTEGER NOT NULL, kind TEXT NOT NULL);
CREATE TABLE edge (
    importer INTEGER NOT NULL, imported INTEGER NOT NULL, line INTEGER NOT NULL,
    kind TEXT NOT NULL);
CREATE TABLE reference (
    file INTEGER NOT NULL, name INTEGER NOT NULL, owner INTEGER NOT NULL, symbol INTEGER NOT NULL,
    line INTEGER NOT NULL);
CREATE TABLE sign (file INTEGER NOT NULL, word INTEGER NOT NULL, line INTEGER NOT NULL);
CREATE TABLE note (file INTEGER NOT NULL, line INTEGER NOT NULL, text TEXT NOT NULL);
CREATE TABLE document (name TEXT PRIMARY KEY, content TEXT NOT NULL);
"""
"""`file.module` is 0 for what is not Python; `reference.symbol` is 0 at module level; `edge` is
derived from `import`; `document` holds what `documents` reads, as JSON."""

INDEXES = """
CREATE UNIQUE INDEX word_text ON word (text);
CREATE UNIQUE INDEX file_path ON file (path);
CREATE INDEX file_module ON file (module);
CREATE INDEX symbol_name ON symbol (name);
CREATE INDEX symbol_file ON symbol (file, line);
CREATE INDEX base_word ON base (word);
CREATE INDEX base_symbol ON base (symbol);
CREATE INDEX import_target ON import (module, name);
CREATE INDEX import_file ON import (file);
CREATE INDEX edge_imported ON edge (imported);
CREATE INDEX reference_name ON reference (name, owner);
CREATE INDEX reference_file ON reference (file);
CREATE INDEX sign_file ON sign (file, line);
CREATE INDEX note_file ON note (file);
"""

PER_FILE_TABLES = ("symbol", "base", "import", "reference", "sign", "note")


def open_complete(path: Path) -> sqlite3.Connection:
    """A connection to a complete index.

    Raises:
        UpstreamError: it is missing, half-written, damaged, or of another version.
    """
    if not path.is_file():
        raise UpstreamError(f"there is no index at {path}: run `trackrecord upstream index`")
    connection: sqlite3.Connection | None = None
    try:
        connection = sqlite3.connect(path, timeout=30)
        found = (
            connection.execute("PRAGMA application_id").fetchone()[0],
            connection.execute("PRAGMA user_version").fetchone()[0],
        )
        if found == (APPLICATION_ID, VERSION):
            connection.execute("SELECT value FROM meta LIMIT 1").fetchone()
            return connection
        reason = "is of another version" if found[0] == APPLICATION_ID else "is not whole"
    except sqlite3.Error as error:
        reason = f"cannot be read ({error})"
    if connection is not None:
        connection.close()
    raise UpstreamError(f"the index at {path} {reason}: run `trackrecord upstream index`")


def fetch(connection: sqlite3.Connection, query: str, *values: object) -> list[Any]:
    """The rows of a query.

    Raises:
        UpstreamError: the file was damaged after it was opened.
    """
    try:
        return connection.execute(query, values).fetchall()
    except UnicodeEncodeError:  # half of a character: no text of a tree holds one
        return []
    except sqlite3.DatabaseError as error:
        raise UpstreamError(
            f"the index is damaged ({error}): run `trackrecord upstream index --force`"
        ) from None


def mark_complete(connection: sqlite3.Connection) -> None:
    """Says that all of the content is there."""
    connection.execute(f"PRAGMA application_id = {APPLICATION_ID}")
    connection.execute(f"PRAGMA user_version = {VERSION}")
