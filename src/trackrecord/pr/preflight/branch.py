"""What the checks look at: the branch's commits and changes, its description, what is on record.

Invariant: everything here was read before the first check runs; a check reads and reports, and
changes nothing.
"""

from __future__ import annotations

import ast
import re
import warnings
from collections.abc import Sequence
from copy import copy
from dataclasses import dataclass, field
from datetime import datetime
from functools import cached_property
from typing import TYPE_CHECKING

from trackrecord.pr.gitrepo import Change, Commit, Repository
from trackrecord.pr.journal import Entry
from trackrecord.pr.preflight.rulebook import Rulebook
from trackrecord.pr.statements import Statements
from trackrecord.upstream.index.scan import is_test_path

if TYPE_CHECKING:
    from trackrecord.issues.store import Store

CODE_ENDINGS = (".py", ".pyi", ".cu", ".cuh", ".cpp", ".cc", ".c", ".h", ".hpp", ".rs", ".sh")
_DOC_ENDINGS = (".md", ".rst", ".txt", ".ipynb")
_PROSE_FOLDERS = ("docs/", "doc/")
_COMMENT = re.compile(r"<!--.*?-->", re.DOTALL)


@dataclass(frozen=True)
class Branch:
    """A branch and all that is known of it.

    Attributes:
        base, head: commit ids; `base` is where the branch left upstream's main branch.
        body: the description of the pull request, or None where none was given.
        title: its title, or None where none can be told.
        issue: number of the issue it is for.
        entries: the journal.
        store: upstream's issues and pull requests, where they were synced or imported.
        login: the author's name on GitHub, "" if it is not known.
    """

    repository: Repository
    base: str
    head: str
    commits: Sequence[Commit]
    changes: Sequence[Change]
    book: Rulebook
    statements: Statements
    now: datetime
    name: str = ""
    title: str | None = None
    body: str | None = None
    issue: int | None = None
    entries: Sequence[Entry] = ()
    store: Store | None = None
    login: str = ""
    uncommitted: Sequence[str] = ()
    kinds: dict[tuple[str, str], str] = field(default_factory=dict, repr=False)
    """What `busywork` took the change from one blob to another to be."""
    _parsed: dict[str, ast.Module | None] = field(default_factory=dict, repr=False)

    @cached_property
    def _blobs(self) -> dict[str, bytes]:
        return self.repository.read(b for c in self.changes for b in (c.old_blob, c.new_blob))

    def old_text(self, change: Change) -> str | None:
        """The file before, or None: it was not there, is binary, or is too large."""
        return self._text(change.old_blob)

    def new_text(self, change: Change) -> str | None:
        """The file after, or None: it is gone, is binary, or is too large."""
        return self._text(change.new_blob)

    def new_module(self, change: Change) -> ast.Module | None:
        """The syntax tree of a Python file after the change, or None if it has none."""
        return self._module(change.new_blob)

    def touched(self, change: Change) -> tuple[ast.Module | None, ast.Module | None]:
        """The syntax trees before and after, cut down to what the change touches."""
        before, after = self._module(change.old_blob), self._module(change.new_blob)
        old = [(h.old_start, len(h.removed)) for h in change.hunks]
        new = [(h.new_start, len(h.added)) for h in change.hunks]
        return (
            before and cut_down(before, old),
            after and cut_down(after, new),
        )

    @property
    def paths(self) -> list[str]:
        """Every path that the branch touches, old names of renamed files among them."""
        return sorted({path for c in self.changes for path in (c.path, c.old_path)})

    @property
    def is_ai_assisted(self) -> bool:
        """Whether the rules for AI assistance apply: they do unless a person said otherwise."""
        return self.statements.ai != "none"

    @cached_property
    def visible_body(self) -> str:
        """The description without HTML comments, which nobody sees."""
        return _COMMENT.sub("", self.body or "").replace("\r\n", "\n")

    @property
    def evidence(self) -> list[Entry]:
        """Commands that were run at the branch's last commit, with nothing uncommitted."""
        return [
            entry
            for entry in self.entries
            if entry.kind == "run"
            and entry.data.get("commit") == self.head
            and not entry.data.get("dirty")
        ]

    @property
    def benchmarks(self) -> list[Entry]:
        """Comparisons whose "after" side is the branch's last commit."""
        return [
            entry
            for entry in self.entries
            if entry.kind == "bench" and entry.data.get("after", {}).get("commit") == self.head
        ]

    def _text(self, blob: str) -> str | None:
        content = self._blobs.get(blob)
        if content is None or b"\0" in content[:8000]:
            return None
        return content.decode("utf-8", errors="replace")

    def _module(self, blob: str) -> ast.Module | None:
        if blob not in self._parsed:
            self._parsed[blob] = parse_python(self._text(blob))
        return self._parsed[blob]


def parse_python(text: str | None) -> ast.Module | None:
    """The syntax tree of a source text, or None where it is none."""
    if text is None:
        return None
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", SyntaxWarning)
            return ast.parse(text)
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return None


def cut_down(tree: ast.Module, regions: Sequence[tuple[int, int]]) -> ast.Module:
    """A module with those statements, and those members of classes, that `regions` touch.

    Args:
        regions: (first line, number of lines) of one side of a diff without context. A line above
            and a line below count too, so that both sides of a hunk keep the same neighbours.
    """
    spans = [
        (start if count == 0 else start - 1, start + max(count, 1)) for start, count in regions
    ]
    return ast.Module(_touched(tree.body, spans), [])


def _touched(body: list[ast.stmt], spans: Sequence[tuple[int, int]]) -> list[ast.stmt]:
    kept: list[ast.stmt] = []
    for node in body:
        first = min([node.lineno, *(mark.lineno for mark in getattr(node, "decorator_list", ()))])
        last = node.end_lineno or node.lineno
        if not any(start <= last and first <= end for start, end in spans):
            continue
        if isinstance(node, ast.ClassDef):
            members = _touched(node.body, spans)
            node = copy(node)
            node.body = members
        kept.append(node)
    return kept


def is_code(path: str) -> bool:
    """Whether a file is source code that is no test."""
    return path.endswith(CODE_ENDINGS) and not is_test_path(path) and not is_doc(path)


def is_doc(path: str) -> bool:
    """Whether a file is documentation."""
    return path.startswith(_PROSE_FOLDERS) or path.endswith(_DOC_ENDINGS[:2])


def is_product(path: str) -> bool:
    """Whether a file is code that ships: no test, document, benchmark, example or tool."""
    aside = ("benchmarks/", "examples/", "tools/", ".buildkite/", ".github/", "docker/", "scripts/")
    return is_code(path) and not path.startswith(aside)
