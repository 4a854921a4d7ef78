"""What users of a file can name: command-line flags, settings, environment variables, routes.

Read from the syntax tree before and after; nothing is imported. A name that stands for itself in
both is no change, so that moving code inside a file says nothing.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator
from dataclasses import dataclass

from trackrecord.pr.gitrepo import Change
from trackrecord.pr.preflight.branch import Branch, is_product

_HTTP = {"get", "post", "put", "delete", "patch", "websocket", "api_route"}
_ENVIRONMENT_TABLES = {"environment_variables"}


@dataclass(frozen=True, order=True)
class Name:
    """Something a user can write: `kind` is flag, setting, environment variable or route."""

    kind: str
    name: str


@dataclass(frozen=True)
class SurfaceChange:
    """What a file's change adds to, and takes from, what users can name."""

    change: Change
    added: dict[Name, int]
    """With the line in the new file."""
    removed: dict[Name, int]
    """With the line in the old file."""


def surface_changes(branch: Branch) -> list[SurfaceChange]:
    """The changed files that add or remove names. A name that moved to another file is neither."""
    found = []
    for change in branch.changes:
        if not is_product(change.path) or not change.path.endswith(".py"):
            continue
        before, after = map(names_in, branch.touched(change))
        added = {name: line for name, line in after.items() if name not in before}
        removed = {name: line for name, line in before.items() if name not in after}
        if added or removed:
            found.append(SurfaceChange(change, added, removed))
    everything_added = {name for item in found for name in item.added}
    everything_removed = {name for item in found for name in item.removed}
    moved = everything_added & everything_removed
    return [
        SurfaceChange(
            item.change,
            {name: line for name, line in item.added.items() if name not in moved},
            {name: line for name, line in item.removed.items() if name not in moved},
        )
        for item in found
    ]


def names_in(tree: ast.Module | None) -> dict[Name, int]:
    """Every name in a module that users can write, and the first line of it."""
    found: dict[Name, int] = {}
    for node in ast.walk(tree) if tree else ():
        for name, line in _names(node):
            found.setdefault(name, line)
    return found


def _names(node: ast.AST) -> Iterator[tuple[Name, int]]:
    if isinstance(node, ast.Call):
        yield from _flags(node)
    elif isinstance(node, ast.ClassDef):
        yield from _settings(node)
    elif isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
        yield from _routes(node)
    elif isinstance(node, ast.Assign | ast.AnnAssign):
        yield from _variables(node)


def _flags(node: ast.Call) -> Iterator[tuple[Name, int]]:
    if not (isinstance(node.func, ast.Attribute) and node.func.attr == "add_argument"):
        return
    for argument in node.args:
        value = getattr(argument, "value", None)
        if isinstance(value, str) and value.startswith("--"):
            yield Name("flag", value), argument.lineno


def _settings(node: ast.ClassDef) -> Iterator[tuple[Name, int]]:
    """Fields of a class decorated as a configuration, or named as one and made a dataclass."""
    marks = {_last_name(mark) for mark in node.decorator_list}
    is_config = "config" in marks or (
        "dataclass" in marks and node.name.endswith(("Config", "Args", "Params"))
    )
    for statement in node.body if is_config else ():
        if isinstance(statement, ast.AnnAssign) and isinstance(statement.target, ast.Name):
            name = statement.target.id
            if not name.startswith("_"):
                yield Name("setting", f"{node.name}.{name}"), statement.lineno


def _routes(node: ast.FunctionDef | ast.AsyncFunctionDef) -> Iterator[tuple[Name, int]]:
    for mark in node.decorator_list:
        if (
            isinstance(mark, ast.Call)
            and isinstance(mark.func, ast.Attribute)
            and mark.func.attr in _HTTP
            and mark.args
        ):
            path = getattr(mark.args[0], "value", None)
            if isinstance(path, str) and path.startswith("/"):
                yield Name("route", f"{mark.func.attr.upper()} {path}"), mark.lineno


def _variables(node: ast.Assign | ast.AnnAssign) -> Iterator[tuple[Name, int]]:
    targets = node.targets if isinstance(node, ast.Assign) else [node.target]
    names = {target.id for target in targets if isinstance(target, ast.Name)}
    if names & _ENVIRONMENT_TABLES and isinstance(node.value, ast.Dict):
        for key in node.value.keys:
            value = getattr(key, "value", None)
            if key is not None and isinstance(value, str):
                yield Name("environment variable", value), key.lineno


def _last_name(mark: ast.expr) -> str:
    node = mark.func if isinstance(mark, ast.Call) else mark
    if isinstance(node, ast.Attribute):
        return node.attr
    return node.id if isinstance(node, ast.Name) else ""
