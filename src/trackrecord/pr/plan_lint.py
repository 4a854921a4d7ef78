"""Whether a plan is one: within a page, every anchor true, no section empty, its limits stated.

An anchor is a code span `path:line` (or `path`) whose path looks like a file of the tree. A name in
the code span right behind it belongs to it: the line must lie inside the definition of that name.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, replace
from itertools import zip_longest
from typing import Literal

from trackrecord.pr.plan import MAX_CHARACTERS, MAX_LINES, SECTIONS, page_size
from trackrecord.upstream.index import Index
from trackrecord.upstream.policy import PolicySection, sections

_SPAN = re.compile(r"(?<!`)(`{1,3})(?!`)([^`\n]{1,300})\1(?!`)")
_ANCHOR = re.compile(
    r"((?:[\w.-]{1,80}/){1,12}[\w.-]{1,80}\.(?:py|pyi|cu|cuh|cpp|h|hpp|ya?ml|toml|md|txt|json|sh))"
    r"(?::(\d{1,6}))?"
)
_NAME = re.compile(r"[A-Za-z_]\w*(?:\.[A-Za-z_]\w*)*")
_BETWEEN = re.compile(r"(?:\]\([^)\s]*\))?[ ,:]{1,3}")
"""What may stand between an anchor and its name: the address of a link, then a blank."""
_LIST_MARK = re.compile(r"^\s*(?:[-*+]|\d{1,3}[.)])?\s*(?:\[[ xX]\]\s*)?")
_COMMENT = re.compile(r"<!--.*?(?:-->|\Z)", re.DOTALL)
_PLACEHOLDER = re.compile(r"(?:tbd|todo|fixme|n/a|none|[?.…-]+)\.?", re.IGNORECASE)

RuleName = Literal["page", "anchor", "section", "scope"]


@dataclass(frozen=True, slots=True)
class Problem:
    """One thing that fails a plan; `line` counts from 1, 0 for the page as a whole."""

    rule: RuleName
    line: int
    text: str


@dataclass(frozen=True, slots=True)
class Linted:
    """The outcome. `open_questions` are those that the approach still asks; they fail nothing."""

    problems: tuple[Problem, ...]
    anchors: int
    open_questions: int

    @property
    def passes(self) -> bool:
        return not self.problems


def lint_plan(text: str, index: Index) -> Linted:
    """Checks the plan `text` against the tree of `index`."""
    found = _by_heading(text)
    anchors = list(_anchors(text))
    problems = [*_page(text), *_sections(found)]
    problems += [problem for anchor in anchors if (problem := _check(anchor, index))]
    bearing = found.get("load-bearing lines")
    if bearing and not any(True for _ in _anchors(bearing.text)):
        words = "no load-bearing line is anchored: write it as `path:line`"
        problems.append(Problem("anchor", bearing.line, words))
    approach = found.get("approach")
    asked = [line for line in approach.text.splitlines() if "?" in line] if approach else []
    problems.sort(key=lambda problem: problem.line)
    return Linted(tuple(problems), len(anchors), len(asked))


def _by_heading(text: str) -> dict[str, PolicySection]:
    """The sections of the plan by name; what stands under headings inside of one belongs to it."""
    found: dict[str, PolicySection] = {}
    held, known = "", {name.lower() for name in SECTIONS}
    for section in sections(text, "plan"):
        name = section.heading.strip().lower()
        if held in known and name not in known and section.level > found[held].level:
            whole = f"{found[held].text}\n# {section.heading}\n{section.text}"
            found[held] = replace(found[held], text=whole)
        else:
            found[name], held = section, name
    return found


@dataclass(frozen=True, slots=True)
class _Anchor:
    path: str
    number: int | None
    name: str
    line: int


def _page(text: str) -> Iterator[Problem]:
    lines, characters = page_size(text)
    if lines > MAX_LINES:
        yield Problem("page", 0, f"{lines} lines; a page has {MAX_LINES}")
    if characters > MAX_CHARACTERS:
        yield Problem("page", 0, f"{characters:,} characters; a page has {MAX_CHARACTERS:,}")


def _sections(found: dict[str, PolicySection]) -> Iterator[Problem]:
    for name in SECTIONS:
        section = found.get(name.lower())
        rule: RuleName = "scope" if name == "Out of scope" else "section"
        if section is None:
            yield Problem(rule, 0, f"no section “{name}”")
        elif not _says_something(section.text):
            yield Problem(rule, section.line, f"section “{name}” is empty")


def _says_something(text: str) -> bool:
    """Whether a line is more than a list mark, a placeholder, a heading or a comment."""
    for line in _COMMENT.sub("", text).splitlines():
        content = _LIST_MARK.sub("", line, count=1).strip()
        if content and not content.startswith("#") and not _PLACEHOLDER.fullmatch(content):
            return True
    return False


def _anchors(text: str) -> Iterator[_Anchor]:
    for number, line in enumerate(text.splitlines(), start=1):
        spans = list(_SPAN.finditer(line))
        for span, following in zip_longest(spans, spans[1:]):
            anchor = _ANCHOR.fullmatch(span[2].strip())
            if anchor is None:
                continue
            name = ""
            if following and _BETWEEN.fullmatch(line[span.end() : following.start()]):
                candidate = following[2].strip().removesuffix("()")
                name = candidate if _NAME.fullmatch(candidate) else ""
            yield _Anchor(anchor[1], int(anchor[2]) if anchor[2] else None, name, number)


def _check(anchor: _Anchor, index: Index) -> Problem | None:
    """What is wrong with an anchor; of a test still to be written only the folder counts."""
    if not index.has_path(anchor.path):
        folder = anchor.path.rpartition("/")[0]
        planned = anchor.number is None and anchor.path.startswith("tests/")
        if planned and index.has_folder(folder):
            return None
        return Problem("anchor", anchor.line, f"{anchor.path} is not in the tree")
    if anchor.number is None:
        return None
    length = len(index.tree.read_lines(anchor.path))
    if not 1 <= anchor.number <= length:
        words = f"{anchor.path} has {length} lines, not {anchor.number}"
        return Problem("anchor", anchor.line, words)
    if not anchor.name or not anchor.path.endswith(".py"):
        return None
    named = [
        symbol
        for symbol in index.symbols_in(anchor.path)
        if f".{symbol.qualname}".endswith(f".{anchor.name}")
    ]
    if any(symbol.line <= anchor.number <= symbol.end_line for symbol in named):
        return None
    where = f"it begins at line {named[0].line}" if named else "the file does not define it"
    words = f"{anchor.path}:{anchor.number} is not in {anchor.name}: {where}"
    return Problem("anchor", anchor.line, words)
