"""Which tests a CI command runs: its `pytest` words, read without a shell.

Only what is written out is understood: paths, `--ignore` and `-m`. A command that finds its tests
otherwise (`find ... -exec pytest`) runs none as far as this module can tell.
"""

from __future__ import annotations

import ast
import re
import shlex
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase

_INVOCATION = re.compile(r"\bpytest\s+([^\n;|&]+)")
_TAKES_VALUE = {
    "-m",
    "-k",
    "-n",
    "-c",
    "-p",
    "-o",
    "-r",
    "-W",
    "--ignore",
    "--deselect",
    "--durations",
}
_WORKSPACE = "/vllm-workspace"


@dataclass(frozen=True)
class PytestRun:
    """One invocation: paths from the root of the tree, what it leaves out, and its `-m`."""

    paths: tuple[str, ...]
    ignored: tuple[str, ...]
    marks: str

    def runs(self, path: str, marks: Collection[str] | None = ()) -> bool:
        """Whether it runs the tests of the file `path` that carry exactly `marks`; whether it
        runs any that the file could hold, with None."""
        if not any(_below(path, place) for place in self.paths):
            return False
        if any(_below(path, place) for place in self.ignored):
            return False
        return marks is None or marks_select(self.marks, marks)


def pytest_runs(commands: Sequence[str], working_folder: str) -> Iterator[PytestRun]:
    """The invocations of pytest in a step's commands."""
    folder = working_folder.removeprefix(_WORKSPACE).strip("/")
    for command in commands:
        for found in _INVOCATION.finditer(command):
            run = _parse(found[1], folder)
            if run.paths:
                yield run


def marks_select(expression: str, marks: Collection[str]) -> bool:
    """Whether pytest's `-m expression` keeps a test with `marks`; true if it cannot be read."""
    if not expression:
        return True
    try:
        return _evaluate(ast.parse(expression, mode="eval").body, marks)
    except (SyntaxError, ValueError, RecursionError):
        return True


def _parse(text: str, folder: str) -> PytestRun:
    try:
        words = shlex.split(text)
    except ValueError:  # the closing quote is outside of what was cut out
        words = text.replace('"', " ").replace("'", " ").split()
    paths, ignored, marks = [], [], ""
    position = 0
    while position < len(words):
        name, equals, value = words[position].partition("=")
        position += 1
        if name in _TAKES_VALUE and not equals and position < len(words):
            value = words[position]
            position += 1
        if name == "-m":
            marks = value
        elif name == "--ignore":
            ignored.append(_place(value, folder))
        elif not name.startswith("-") and not equals and _is_path(name):
            paths.append(_place(name.partition("::")[0], folder))
    return PytestRun(tuple(paths), tuple(ignored), marks)


def _is_path(word: str) -> bool:
    return "/" in word or word.partition("::")[0].endswith(".py") or word.isidentifier()


def _place(path: str, folder: str) -> str:
    path = path.removeprefix(_WORKSPACE).strip("/").removeprefix("./")
    if not folder or path.startswith(folder + "/"):
        return path
    return f"{folder}/{path}"


def _below(path: str, place: str) -> bool:
    if "*" in place:  # what a shell would expand, which stops at no "/" here
        return fnmatchcase(path, place)
    return path == place or path.startswith(place + "/")


def _evaluate(node: ast.expr, marks: Collection[str]) -> bool:
    if isinstance(node, ast.Name):
        return node.id in marks
    if isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.Not):
        return not _evaluate(node.operand, marks)
    if isinstance(node, ast.BoolOp):
        results = [_evaluate(value, marks) for value in node.values]
        return all(results) if isinstance(node.op, ast.And) else any(results)
    raise ValueError
