"""Reading a unified diff: which files it changes, and which lines of each.

A diff is text from outside: nothing of it is run, its paths are only ever compared, and what does
not parse raises instead of being guessed.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from trackrecord.errors import UpstreamError
from trackrecord.upstream import clone

_HUNK = re.compile(r"@@ -(\d+)(?:,(\d+))? \+(\d+)(?:,(\d+))? @@")
_GIT_HEADER = re.compile(r'diff --git "?a/(.*?)"? "?b/(.*?)"?')
_NOTHING = "/dev/null"


@dataclass
class Hunk:
    """One stretch of a change. `old` and `new` are its lines before and after, context included;
    `removed` and `added` count from 0 into them."""

    old_start: int
    new_start: int
    old: list[str] = field(default_factory=list)
    new: list[str] = field(default_factory=list)
    removed: list[int] = field(default_factory=list)
    added: list[int] = field(default_factory=list)

    @property
    def old_lines(self) -> list[int]:
        """Lines of the old file that the hunk removes; where it only adds, the line before."""
        if self.removed:
            return [self.old_start + i for i in self.removed]
        before = self.added[0] if self.added else 0
        return [max(1, self.old_start + before - (1 if self.old else 0))]

    @property
    def new_lines(self) -> list[int]:
        """Lines of the new file that the hunk adds; where it only removes, the line after."""
        if self.added:
            return [self.new_start + i for i in self.added]
        return [max(1, self.new_start + (self.removed[0] if self.removed else 0))]


@dataclass
class FileChange:
    """A changed file: `path` as it is called after the change, `old_path` before; "" for none."""

    path: str
    old_path: str
    hunks: list[Hunk] = field(default_factory=list)

    @property
    def is_new(self) -> bool:
        return not self.old_path


def parse_diff(text: str) -> list[FileChange]:
    """The files that a unified diff changes, as `git diff` or `diff -u` writes it.

    Raises:
        UpstreamError: there is no change in it, a hunk is malformed or cut off, or a path leads out
            of the tree.
    """
    changes: list[FileChange] = []
    # Only these end a line of a diff: a form feed or a lone carriage return is part of one.
    lines = [line.removesuffix("\r") for line in text.removesuffix("\n").split("\n")]
    position = 0
    while position < len(lines):
        line = lines[position]
        header = _GIT_HEADER.fullmatch(line)
        if header:
            changes.append(FileChange(header[2], header[1]))
        elif line.startswith("rename to ") and changes:
            changes[-1].path = line.removeprefix("rename to ")
        elif line.startswith("new file") and changes:
            changes[-1].old_path = ""
        elif line.startswith("--- ") and position + 1 < len(lines):
            position += 1
            old, new = _name(line), _name(lines[position])
            if not changes or changes[-1].hunks or (new or old) != changes[-1].path:
                changes.append(FileChange(new or old, old))
            changes[-1].old_path = old
        elif found := _HUNK.match(line):
            if not changes:
                raise UpstreamError(f"line {position + 1} of the diff belongs to no file")
            position = _read_hunk(lines, position, found, changes[-1])
            continue
        elif line.startswith("@@ -"):
            raise UpstreamError(f"line {position + 1} of the diff is no header of a hunk: {line!r}")
        position += 1
    if not changes:
        raise UpstreamError("not a unified diff: it names no file")
    for change in changes:
        _check_name(change.path)
        _check_name(change.old_path or change.path)
    return changes


def diff_of_repository(folder: str, base: str) -> list[FileChange]:
    """What the files of a clone changed since they left `base`, uncommitted changes included.

    Raises:
        UpstreamError: not a repository, no such revision, or one without a common commit.
    """
    if base.startswith("-"):
        raise UpstreamError(f"not a revision: {base!r}")
    root = Path(folder)
    settings = clone.disarmed(root)
    common = clone.merge_base(root, base, "HEAD", settings)
    words = ["diff", *clone.PLAIN_DIFF, "-U0", "--inter-hunk-context=0", common, "--"]
    done = clone.ask(root, words, settings)
    if done.returncode:
        raise UpstreamError(f"git diff failed: {clone.reason(done)}")
    text = done.stdout.decode("utf-8", errors="replace")
    return parse_diff(text) if text.strip() else []


def place_hunk(hunk: Hunk, lines: Sequence[str]) -> int | None:
    """By how many lines a hunk is off in a file that may differ from the one it was made for.

    Returns:
        0 if it applies where it says, the shift to the nearest place where its old lines stand,
        None if they stand nowhere.
    """
    if not hunk.old:
        return 0
    start = hunk.old_start - 1
    last = len(lines) - len(hunk.old)
    places = sorted(range(last + 1), key=lambda at: abs(at - start))
    for at in places:
        if lines[at] == hunk.old[0] and list(lines[at : at + len(hunk.old)]) == hunk.old:
            return at - start
    return None


def _read_hunk(lines: list[str], position: int, found: re.Match[str], change: FileChange) -> int:
    """Reads the hunk whose header is at `position`; the position after it."""
    old_left = int(found[2] if found[2] is not None else 1)
    new_left = int(found[4] if found[4] is not None else 1)
    # For an empty side the header names the line before.
    hunk = Hunk(int(found[1]) + (old_left == 0), int(found[3]) + (new_left == 0))
    position += 1
    while old_left > 0 or new_left > 0:
        if position >= len(lines):
            raise UpstreamError(f"the diff is cut off in {change.path}")
        mark, rest = lines[position][:1], lines[position][1:]
        if mark == "-":
            hunk.removed.append(len(hunk.old))
        elif mark == "+":
            hunk.added.append(len(hunk.new))
        elif mark not in (" ", "", "\\"):
            raise UpstreamError(f"line {position + 1} of the diff does not belong into a hunk")
        if mark in ("-", " ", ""):
            hunk.old.append(rest)
            old_left -= 1
        if mark in ("+", " ", ""):
            hunk.new.append(rest)
            new_left -= 1
        position += 1
    change.hunks.append(hunk)
    return position


def _name(line: str) -> str:
    """The path of a `---` or `+++` line, "" for none."""
    path = line[4:].split("\t")[0].strip().strip('"')
    if path == _NOTHING:
        return ""
    return path[2:] if path[:2] in ("a/", "b/") else path


def _check_name(path: str) -> None:
    if not path or path.startswith("/") or ".." in path.split("/") or "\0" in path:
        raise UpstreamError(f"not a path inside the tree: {path!r}")
