"""The files of a tree, as the index sees them: which there are, and whether they changed.

Invariant: links are never followed, so nothing outside the root is read; a file is taken to be
unchanged exactly if its size and its time of change are. Every path is text that can be stored and
printed: what has another name is left out and named.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from trackrecord.upstream.pin import MANIFEST

SKIPPED_FOLDERS = frozenset({".git", ".hg", ".venv", "venv", "__pycache__", "node_modules"})
_SOURCE_FOLDER = "src/"


class FileStamp(NamedTuple):
    """A file's size in bytes and its time of change in nanoseconds."""

    size: int
    mtime_ns: int


class Scan(NamedTuple):
    """What there is: `stamps` by path with forward slashes, and, with the bytes that are no UTF-8
    escaped, the paths in `misnamed` that were left out."""

    stamps: dict[str, FileStamp]
    misnamed: tuple[str, ...]


def scan_tree(root: Path) -> Scan:
    """Every regular file below `root`."""
    misnamed: list[str] = []
    found = dict(_scan(str(root), "", misnamed))
    found.pop(MANIFEST, None)
    return Scan(found, tuple(sorted(misnamed)))


def _scan(folder: str, prefix: str, misnamed: list[str]) -> Iterator[tuple[str, FileStamp]]:
    with os.scandir(folder) as entries:
        for entry in entries:
            is_file = entry.is_file(follow_symlinks=False)
            if not is_file and not entry.is_dir(follow_symlinks=False):
                continue
            name = os.fsencode(entry.name).decode("utf-8", errors="backslashreplace")
            if name != entry.name:
                misnamed.append(prefix + name)
            elif is_file:
                stat = entry.stat(follow_symlinks=False)
                yield prefix + name, FileStamp(stat.st_size, stat.st_mtime_ns)
            elif name not in SKIPPED_FOLDERS:
                yield from _scan(entry.path, f"{prefix}{name}/", misnamed)


def module_of(path: str) -> tuple[str, bool]:
    """The dotted name of a Python file, and whether it is a package's `__init__`."""
    name = path.removeprefix(_SOURCE_FOLDER).removesuffix(".py").replace("/", ".")
    if name.endswith(".__init__"):
        return name.removesuffix(".__init__"), True
    return name, False


def module_roots(paths: list[str]) -> frozenset[str]:
    """First components of the modules that a tree's Python files make."""
    return frozenset(module_of(path)[0].split(".", 1)[0] for path in paths if path.endswith(".py"))


def is_test_path(path: str) -> bool:
    """Whether a file belongs to the tests: below a `tests` folder, or named as pytest asks for."""
    *folders, name = path.split("/")
    return "tests" in folders or is_test_module(name)


def is_test_module(path: str) -> bool:
    """Whether pytest would collect the file."""
    name = path.rpartition("/")[2]
    return name.endswith(".py") and (name.startswith("test_") or name.endswith("_test.py"))
