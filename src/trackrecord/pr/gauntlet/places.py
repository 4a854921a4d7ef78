"""The load-bearing places of a report: where in the pinned tree the code stands that it speaks of.

In order of evidence: frames of a trace (the innermost own frame raised), files and lines that are
named, names of code, and last the words of the title against the names of files. A guess is marked
as one.

Invariant: every place exists in the index; what a report names and the tree lacks is in `missing`.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Literal

from trackrecord.issues.models import Note
from trackrecord.issues.text import Frame, PathRef, Signals
from trackrecord.upstream.index import Index
from trackrecord.upstream.index.records import Symbol

MAX_PLACES = 8
MAX_NAMESAKES = 3
"""A name that more definitions share than this points nowhere."""
RAREST = 1 / 8
"""A word of a title points at a file only if few files have it in their name."""
_PACKAGE = "vllm/"
_ARGUMENTS = "vllm/engine/arg_utils.py"
_PLUMBING = re.compile(
    r"(?:^|/)(?:tracing/|utils/|logger\.py|multiprocessing/|entrypoints/cli/|_ipc|executor/)"
)
"""Code that every trace passes through; it is where the error arrived, not where it arose."""
_WORD = re.compile(r"[a-z][a-z0-9]{2,}")
_COMMON = frozenset(
    "bug feature usage misc model models new support vllm error when with from the and for not "
    "does doc performance rfc add using use fails failed crash crashes issue server request "
    "requests after before enable enabled cannot wrong output outputs value none type test "
    "tests base utils init core common main run runner python file config version import code "
    "line memory gpu cuda engine data size batch cache token tokens input inputs parameter "
    "parameters caching prefix prompt tensor parallel size decoding triton kernels layer layers "
    "during between inside same different only multiple call calls tool loading".split()
)

Evidence = Literal["note", "frame", "path", "name", "guess"]


@dataclass(frozen=True, slots=True)
class Place:
    """A definition, or a file where `symbol` is None, that a report points at.

    Attributes:
        line: the line that is meant: the frame's where the tree has the same function, else the
            first line of the definition.
        evidence: what kind of pointer it is; `says` is the pointer itself, as written.
    """

    path: str
    line: int
    symbol: Symbol | None
    evidence: Evidence
    says: str

    @property
    def name(self) -> str:
        return self.symbol.qualname if self.symbol else self.path

    @property
    def where(self) -> str:
        return f"{self.path}:{self.line}"

    @classmethod
    def of_note(cls, index: Index, note: Note) -> Place:
        symbol = index.symbol_at(note.path, note.line)
        return cls(note.path, note.line, symbol, "note", note.text)


def find_places(index: Index, title: str, body: Signals, comments: Signals) -> list[Place]:
    """The places that a report points at, the best evidence first, each definition once."""
    found: dict[tuple[str, str], Place] = {}
    for place in _pointers(index, title, body, comments):
        found.setdefault((place.path, place.name), place)
        if len(found) >= MAX_PLACES:
            break
    return list(found.values()) or list(_by_title(index, title))


def frame_place(index: Index, frame: Frame) -> Place | None:
    """Where the tree has the function of `frame`; None if it has not.

    A line alone proves nothing: lines move with every version, so without the function's name only
    a file that is there gives a place, and the line is kept only inside the same function.
    """
    if not index.has_path(frame.path):
        return None
    says = f"{frame.path}:{frame.line}" + (f", in {frame.function}" if frame.function else "")
    if not frame.function or frame.function.startswith("<"):
        return Place(frame.path, 1, None, "frame", says)
    name = frame.function.rpartition(".")[2]
    named = [s for s in index.symbols_in(frame.path) if s.name == name]
    if not named:
        return None
    line = frame.line or named[0].line
    symbol = min(named, key=lambda s: (not s.line <= line <= s.end_line, abs(s.line - line)))
    inside = symbol.line <= line <= symbol.end_line
    return Place(frame.path, line if inside else symbol.line, symbol, "frame", says)


def own_frames(signals: Signals) -> list[Frame]:
    """The frames inside the package, in the order of the trace."""
    return [frame for frame in signals.frames if frame.path.startswith(_PACKAGE)]


def _pointers(index: Index, title: str, body: Signals, comments: Signals) -> Iterator[Place]:
    for signals in (body, comments):
        yield from _frame_places(index, own_frames(signals))
    for signals in (body, comments):
        yield from _path_places(index, signals.paths)
    spelled = title.lower()
    yield from _name_places(index, [name for name in body.symbols if name.lower() in spelled], True)
    yield from _name_places(index, (*body.symbols, *comments.symbols), False)
    yield from _option_places(index, [option for option in body.options if option in spelled])


def _frame_places(index: Index, frames: list[Frame]) -> Iterator[Place]:
    """Innermost first; what only passes calls on comes after the rest."""
    places = [p for frame in reversed(frames) if (p := frame_place(index, frame))]
    yield from (p for p in places if not _PLUMBING.search(p.path) and p.symbol)
    yield from (p for p in places if _PLUMBING.search(p.path) or not p.symbol)


def _path_places(index: Index, refs: Iterable[PathRef]) -> Iterator[Place]:
    for ref in refs:
        paths = [ref.path] if index.has_path(ref.path) else index.paths_like(ref.path)
        paths = [path for path in paths if not path.startswith("tests/")] or paths
        if len(paths) != 1:
            continue
        # The line is of whatever version the author read, and only a hint here.
        symbol = index.symbol_at(paths[0], ref.line) if ref.line else None
        line = symbol.line if symbol else 1
        says = f"{ref.path}:{ref.line}" if ref.line else ref.path
        yield Place(paths[0], line, symbol, "path", says)


def _name_places(index: Index, names: Iterable[str], values: bool) -> Iterator[Place]:
    """Definitions of the names; with `values`, attributes and variables as well."""
    for name in names:
        plain = name.removeprefix("self.").removesuffix("()")
        found = [s for s in index.find_symbols(plain) if not s.is_test]
        own = [s for s in found if s.path.startswith(_PACKAGE)] or found
        if not (values or "." in plain):
            own = [s for s in own if s.kind in ("class", "function", "method")]
        # The engine's arguments repeat the fields of the configuration.
        own = [s for s in own if s.path != _ARGUMENTS] or own
        if 0 < len(own) <= MAX_NAMESAKES:
            for symbol in own:
                yield Place(symbol.path, symbol.line, symbol, "name", name)


def _option_places(index: Index, options: Iterable[str]) -> Iterator[Place]:
    """A command-line option is an argument of the engine and a field of a configuration class."""
    for option in options:
        name = option.lstrip("-").replace("-", "_").replace(".", "_").removeprefix("no_")
        fields = [s for s in index.find_symbols(name) if s.path.startswith("vllm/config/")]
        for symbol in fields[:1]:
            yield Place(symbol.path, symbol.line, symbol, "guess", option)


def _by_title(index: Index, title: str) -> Iterator[Place]:
    """Files of the package whose name holds the rarest words of the title."""
    words = {w for w in _WORD.findall(title.lower()) if w not in _COMMON}
    naming: dict[str, list[str]] = {}
    for path in index.paths_below("vllm") if words else ():
        stem = path.rpartition("/")[2].partition(".")[0].lower()
        for word in words.intersection(_WORD.findall(stem)):
            naming.setdefault(word, []).append(path)
    scores: dict[str, float] = {}
    for paths in naming.values():
        for path in paths:
            scores[path] = scores.get(path, 0.0) + 1.0 / len(paths)
    best = sorted(scores, key=lambda path: (-scores[path], len(path), path))[:2]
    for path in best:
        if scores[path] >= RAREST:
            yield Place(path, 1, None, "guess", f"the title's words: {title}")
