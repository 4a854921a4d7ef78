"""Where something of upstream is, and what one wants to know next about it.

A question is a name, a qualified name, a path, `path:line`, or pytest's `path::name`.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from trackrecord.errors import UpstreamError
from trackrecord.upstream.areas import area_of_path
from trackrecord.upstream.ci import CIStep
from trackrecord.upstream.impact import Owned, Target, ownership
from trackrecord.upstream.index.query import Index
from trackrecord.upstream.index.records import Importer, Reference, Symbol, TestRef

_PLACE = re.compile(r"(?P<path>.+?)(?::(?P<line>\d{1,9}))?(?:::(?P<name>.+))?")
_PATH_SIGNS = ("/", ".py", ".md", ".toml", ".yaml", ".yml", ".cu", ".cpp", ".h", ".rs", ".txt")
_MOST_NAMED = 5


@dataclass(frozen=True)
class Where:
    """The answer; `symbol` is None for a file, or for a line outside of every definition."""

    path: str
    line: int
    symbol: Symbol | None
    contents: tuple[Symbol, ...]
    """What a file defines at its top level, or a class in it."""
    callers: tuple[Reference, ...]
    uncertain: int
    """Uses of the same name that could not be tied to this definition."""
    importers: tuple[Importer, ...]
    tests: tuple[TestRef, ...]
    steps: tuple[CIStep, ...]
    owned: Owned
    areas: tuple[str, ...]
    others: tuple[Symbol, ...]
    """Other definitions that the question can mean."""


def where_is(index: Index, question: str) -> Where:
    """The likeliest meaning of `question`, and the others.

    Raises:
        UpstreamError: the tree has nothing of that name; says what comes close.
    """
    path, line, name = _as_place(index, question)
    others: list[Symbol] = []
    if not path:
        found = index.find_symbols(question)
        if not found:
            raise UpstreamError(f"{question!r} is not in this tree{_suggestion(index, question)}")
        symbol, others = found[0], found[1:]
    elif name:
        named = index.symbol(path, name.replace("::", "."))
        if named is None:
            raise UpstreamError(f"{path} defines no {name!r}{_suggestion(index, name)}")
        symbol = named
    else:
        _check_line(index, path, line)
        at_line = index.symbol_at(path, line) if line else None
        return _answer(index, path, line, at_line, [])
    return _answer(index, symbol.path, symbol.line, symbol, others)


def target_of(index: Index, words: str) -> Target:
    """`PATH[:LINE]`, `PATH::NAME` or a name, as what is to be changed. A path that the tree does
    not have is taken to be a new file.

    Raises:
        UpstreamError: the line or the name is not there.
    """
    path, line, name = _as_place(index, words)
    if path and line:
        _check_line(index, path, line)
    if path and not name:
        return Target(path, line or None)
    if not path and _looks_like_path(words):
        return Target(words.removeprefix("./"))
    answer = where_is(index, words)
    return Target(answer.path, None, answer.symbol.qualname if answer.symbol else "")


def _answer(
    index: Index, path: str, line: int, symbol: Symbol | None, others: list[Symbol]
) -> Where:
    tests = index.tests_near(path, symbol)
    callers = index.callers(symbol) if symbol else []
    inside = index.symbols_in(path)
    holder = symbol.qualname if symbol else ""
    return Where(
        path=path,
        line=line,
        symbol=symbol,
        contents=tuple(s for s in inside if s.parent == holder and _is_listed(s)),
        callers=tuple(callers),
        uncertain=max(0, index.count_uses(symbol.name) - len(callers)) if symbol else 0,
        importers=() if symbol else tuple(index.importers(path)),
        tests=tuple(tests),
        steps=tuple(index.ci_steps_for([path], tests)),
        owned=ownership(index, path),
        areas=tuple(area_of_path(path)),
        others=tuple(others),
    )


def _is_listed(symbol: Symbol) -> bool:
    return symbol.kind in ("class", "function", "method", "constant")


def _as_place(index: Index, words: str) -> tuple[str, int, str]:
    """(path, line, name) if `words` name a file of the tree, by its whole path or the end of it;
    path is "" if they do not.

    Raises:
        UpstreamError: they name several files, or a folder.
    """
    found = _PLACE.fullmatch(words.strip())
    if not found:
        return "", 0, ""
    path, line, name = found["path"].removeprefix("./"), int(found["line"] or 0), found["name"]
    module = path.replace(".", "/")
    for candidate in (path, f"{module}.py", f"{module}/__init__.py"):
        if index.has_path(candidate):
            return candidate, line, name or ""
    if index.has_folder(path):
        raise UpstreamError(f"{path} is a folder: name a file in it")
    ending = index.paths_like(path) if _looks_like_path(path) else []
    if len(ending) > 1:
        shown = ", ".join(ending[:_MOST_NAMED]) + (", ..." if len(ending) > _MOST_NAMED else "")
        raise UpstreamError(f"{len(ending)} files are called {path}: {shown}")
    return (ending[0], line, name or "") if ending else ("", 0, "")


def _looks_like_path(words: str) -> bool:
    path = words.partition(":")[0]
    return "/" in path or path.endswith(_PATH_SIGNS)


def _check_line(index: Index, path: str, line: int) -> None:
    if line and line > (last := len(index.tree.read_lines(path))):
        raise UpstreamError(f"{path} has only {last} lines, not {line}")


def _suggestion(index: Index, question: str) -> str:
    close = index.similar_names(question)
    return f"; did you mean {', '.join(close)}?" if close else ""
