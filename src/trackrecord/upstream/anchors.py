"""Checking that every anchor of the reading map is where it says, here or in another version.

Another version is searched by symbol: an anchor is in place, moved within its file, moved to
another file, or gone. Only the files of the tree are read, never the index, so that a plain folder
will do.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from trackrecord.upstream.areas import Anchor
from trackrecord.upstream.index.reader import read_source
from trackrecord.upstream.index.scan import SKIPPED_FOLDERS
from trackrecord.upstream.policy import sections

State = Literal["in place", "moved", "gone"]


@dataclass(frozen=True)
class AnchorCheck:
    """Where an anchor was found; `path` and `line` are empty and 0 where it was not."""

    anchor: Anchor
    state: State
    path: str
    line: int

    @property
    def words(self) -> str:
        """What happened, in words."""
        anchor = self.anchor
        was = f"{anchor.path}:{anchor.line}"
        if self.state == "gone":
            return f"{was}: {anchor.symbol} is gone"
        if self.state == "moved":
            return f"{was}: {anchor.symbol} is now at {self.path}:{self.line}"
        return f"{was}: {anchor.symbol} is in place"


def check_anchors(anchors: Sequence[Anchor], root: Path) -> list[AnchorCheck]:
    """Looks every anchor up in the tree at `root`, in the order given."""
    files = _Files(root)
    return [_check(anchor, files) for anchor in anchors]


def _check(anchor: Anchor, files: _Files) -> AnchorCheck:
    lines = files.symbols(anchor.path).get(anchor.symbol, [])
    if not lines and not anchor.path.endswith((".py", ".md")):
        lines = files.lines_with(anchor.path, anchor.symbol)
    if anchor.line in lines:
        return AnchorCheck(anchor, "in place", anchor.path, anchor.line)
    if lines:
        nearest = min(lines, key=lambda line: abs(line - anchor.line))
        return AnchorCheck(anchor, "moved", anchor.path, nearest)
    if anchor.path.endswith(".py"):
        for path in files.python_naming(anchor.symbol.rpartition(".")[2]):
            found = files.symbols(path).get(anchor.symbol)
            if found:
                return AnchorCheck(anchor, "moved", path, found[0])
    return AnchorCheck(anchor, "gone", "", 0)


class _Files:
    """The files of a tree, each read once."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self._symbols: dict[str, dict[str, list[int]]] = {}
        self._python: list[tuple[str, bytes]] | None = None

    def symbols(self, path: str) -> dict[str, list[int]]:
        """The lines on which a Python file defines a name, or a Markdown file has a heading."""
        if path not in self._symbols:
            found: dict[str, list[int]] = {}
            source = self._read(path)
            if path.endswith(".md"):
                for section in sections(source.decode("utf-8", errors="replace"), path):
                    found.setdefault(section.heading, []).append(section.line)
            elif path.endswith(".py"):
                for definition in read_source(source, "tree", False, frozenset()).definitions:
                    found.setdefault(definition.qualname, []).append(definition.line)
            self._symbols[path] = found
        return self._symbols[path]

    def lines_with(self, path: str, text: str) -> list[int]:
        lines = self._read(path).decode("utf-8", errors="replace").split("\n")
        return [number for number, line in enumerate(lines, 1) if text in line]

    def python_naming(self, name: str) -> Iterator[str]:
        """The Python files that define something called `name`, tests last."""
        if self._python is None:
            self._python = sorted(self._read_python(), key=lambda file: ("test" in file[0], file))
        wanted = re.compile(rb"(?:def|class)\s+%b\b|^\s*%b\s*[:=]" % ((name.encode(),) * 2), re.M)
        for path, source in self._python:
            if wanted.search(source):
                yield path

    def _read_python(self) -> Iterator[tuple[str, bytes]]:
        for folder, names, files in os.walk(self.root):
            names[:] = [n for n in names if n not in SKIPPED_FOLDERS]
            for name in files:
                if name.endswith(".py"):
                    path = Path(folder, name).relative_to(self.root).as_posix()
                    yield path, self._read(path)

    def _read(self, path: str) -> bytes:
        file = self.root / path
        if file.is_symlink():
            return b""
        try:
            return file.read_bytes()
        except OSError:
            return b""
