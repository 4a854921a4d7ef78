"""The tables of an issue store.

`threads`, `files`, `comments` and `events` are what GitHub said; `links` and `terms` are derived
from them; `cursors` and `etags` are how far a sync has come; `notes` are the tree's own TODOs.

Invariants: a thread is in `stale_terms` exactly while `terms` does not reflect it; an ETag is
written in the transaction that writes the page it belongs to.
"""

from __future__ import annotations

VERSION = 1

TABLES = """
CREATE TABLE meta (key TEXT PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID;

CREATE TABLE threads (
    number INTEGER PRIMARY KEY,
    is_pull INTEGER NOT NULL,
    title TEXT NOT NULL DEFAULT '',
    body TEXT NOT NULL DEFAULT '',
    state TEXT NOT NULL DEFAULT 'open',
    state_reason TEXT,
    author TEXT NOT NULL DEFAULT '',
    author_association TEXT,
    labels TEXT NOT NULL DEFAULT '[]',
    assignees TEXT NOT NULL DEFAULT '[]',
    created_at TEXT,
    updated_at TEXT,
    closed_at TEXT,
    url TEXT NOT NULL DEFAULT '',
    merged INTEGER,
    merged_at TEXT,
    draft INTEGER NOT NULL DEFAULT 0,
    head TEXT,
    base TEXT,
    additions INTEGER,
    deletions INTEGER,
    files_known INTEGER NOT NULL DEFAULT 0,
    details_of TEXT,
    gone INTEGER NOT NULL DEFAULT 0
);
CREATE INDEX threads_by_kind ON threads (is_pull, state, updated_at);

CREATE TABLE files (
    number INTEGER NOT NULL,
    path TEXT NOT NULL,
    PRIMARY KEY (number, path)
) WITHOUT ROWID;
CREATE INDEX files_by_path ON files (path);

CREATE TABLE comments (
    id TEXT PRIMARY KEY,
    number INTEGER NOT NULL,
    position INTEGER NOT NULL,
    author TEXT NOT NULL,
    is_bot INTEGER NOT NULL,
    author_association TEXT,
    created_at TEXT,
    updated_at TEXT,
    body TEXT NOT NULL
);
CREATE INDEX comments_by_thread ON comments (number, position);

CREATE TABLE events (
    number INTEGER NOT NULL,
    position INTEGER NOT NULL,
    kind TEXT NOT NULL,
    created_at TEXT,
    actor TEXT NOT NULL,
    source_number INTEGER,
    source_is_pull INTEGER,
    source_repo TEXT,
    commit_id TEXT,
    detail TEXT,
    PRIMARY KEY (number, position)
) WITHOUT ROWID;
CREATE INDEX events_by_source ON events (source_number);

CREATE TABLE links (
    number INTEGER NOT NULL,
    target INTEGER NOT NULL,
    place TEXT NOT NULL,
    kind TEXT NOT NULL,
    PRIMARY KEY (number, place, target)
) WITHOUT ROWID;
CREATE INDEX links_by_target ON links (target);

CREATE VIRTUAL TABLE terms USING fts5 (
    title, errors, frames, symbols, words, talk,
    tokenize = "ascii tokenchars '_'"
);
CREATE VIRTUAL TABLE vocabulary USING fts5vocab (terms, 'row');
CREATE TABLE stale_terms (number INTEGER PRIMARY KEY);

CREATE TABLE cursors (
    stream TEXT PRIMARY KEY,
    since TEXT,
    page INTEGER NOT NULL
) WITHOUT ROWID;
CREATE TABLE etags (url TEXT PRIMARY KEY, etag TEXT NOT NULL) WITHOUT ROWID;

CREATE TABLE notes (
    number INTEGER PRIMARY KEY,
    key TEXT NOT NULL UNIQUE,
    path TEXT NOT NULL,
    line INTEGER NOT NULL,
    text TEXT NOT NULL,
    symbol TEXT,
    cause TEXT NOT NULL,
    evidence TEXT NOT NULL,
    score REAL NOT NULL,
    present INTEGER NOT NULL
);
"""
