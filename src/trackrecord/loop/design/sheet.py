"""The design file: a text in sections that any editor can fill, strict enough to be read.

Invariant: reading never fails and loses nothing: a line that is not understood becomes one problem
with its number, and stands in the report as it was written.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from mini_vllm.console import printable
from trackrecord.loop.design.keys import ALIASES, KEYS, PREDICTED, SECTIONS, Key
from trackrecord.loop.grading.prose import MOST_CHARACTERS

MOST_LINES = 60
"""Arithmetic lines, and bullets of risks, that are read."""
MOST_PROBLEMS = 40
_LONGEST_LINE = 400


@dataclass(frozen=True)
class Line:
    """A line as it was written. `start` in characters of the text, `number` from 1."""

    number: int
    start: int
    text: str


@dataclass(frozen=True)
class Setting:
    """One `key = value` that was understood; a predicted figure's value is its text."""

    key: str
    value: bool | int | float | str
    line: Line


@dataclass(frozen=True)
class NamedRisk:
    """One bullet: what may go wrong, and what would show it."""

    what: str
    shows: str
    line: Line
    """`text` is the whole bullet."""


@dataclass
class DesignFile:
    """What was understood of a design file, and what was not."""

    settings: dict[str, Setting] = field(default_factory=dict)
    predicted: dict[str, Setting] = field(default_factory=dict)
    arithmetic: list[Line] = field(default_factory=list)
    risks: list[NamedRisk] = field(default_factory=list)
    why: Line = Line(0, 0, "")
    """The prose on trade-offs, as one text."""
    problems: list[str] = field(default_factory=list)

    def value(self, key: str, default: Any = None) -> Any:
        setting = self.settings.get(key)
        return default if setting is None else setting.value

    def lacks(self, line: Line, problem: str) -> None:
        """Notes a problem; after `MOST_PROBLEMS` only that there are more."""
        if len(self.problems) < MOST_PROBLEMS:
            self.problems.append(f"line {line.number}: {problem}")
        elif len(self.problems) == MOST_PROBLEMS:
            self.problems.append(f"line {line.number}: and more from here on")


def read_design(text: str, gpus: tuple[str, ...]) -> DesignFile:
    """Reads a design file; `gpus` are the devices that its brief offers."""
    found = DesignFile()
    sections: dict[str, list[Line]] = {}
    current: list[Line] | None = None
    for line in _lines(text):
        heading = re.match(r"#{2,6}\s+(.*)", line.text)
        if heading is not None:
            current = _opened(found, sections, line, heading[1])
        elif current is not None:
            current.append(line)
    for section in SECTIONS:
        if not any(line.text.strip() for line in sections.get(section, [])):
            found.problems.append(f"## {section}: the section is missing or empty")
    for section, keys in KEYS.items():
        _read_settings(found, sections.get(section, []), keys, gpus)
    _read_predicted(found, sections.get("Predicted", []))
    found.arithmetic = _arithmetic(found, sections.get("Arithmetic", []))
    found.risks = _risks(found, sections.get("Risks", []))
    found.why = _joined(sections.get("Why", []))
    if len(text) > MOST_CHARACTERS:
        found.problems.append(f"only the first {MOST_CHARACTERS:,} characters were read")
    return found


def _lines(text: str) -> Iterator[Line]:
    """The lines of what is read. What is commented out with `<!-- -->` on a line is blank."""
    start = 0
    for number, line in enumerate(text[:MOST_CHARACTERS].split("\n"), 1):
        blank = line.lstrip().startswith("<!--") and line.rstrip().endswith("-->")
        yield Line(number, start, "" if blank else line.rstrip("\r"))
        start += len(line) + 1


def _opened(
    found: DesignFile, sections: dict[str, list[Line]], line: Line, heading: str
) -> list[Line] | None:
    name = heading.strip().rstrip("#:").strip().capitalize()
    if name in SECTIONS:
        if name in sections:
            found.lacks(line, f"## {name} comes twice; both are read")
        return sections.setdefault(name, [])
    found.lacks(line, f"no section {_shown(heading)}{_nearest(name, SECTIONS)}; it is not read")
    return None


def _read_settings(
    found: DesignFile, lines: list[Line], keys: Mapping[str, Key], gpus: tuple[str, ...]
) -> None:
    for line, name, text in _pairs(found, lines):
        name = ALIASES.get(name, name)
        key = keys.get(name)
        if key is None:
            elsewhere = [s for s, known in KEYS.items() if name in known]
            hint = f"; it belongs under ## {elsewhere[0]}" if elsewhere else _nearest(name, keys)
            found.lacks(line, f"no key {_shown(name)}{hint}")
            continue
        if not text:
            continue
        value, problem = _value(key, text, gpus)
        if problem:
            found.lacks(line, f"{name}: {problem}")
        elif name in found.settings:
            found.lacks(line, f"{name} is given twice; the first stands")
        else:
            found.settings[name] = Setting(name, value, line)


def _read_predicted(found: DesignFile, lines: list[Line]) -> None:
    for line, name, text in _pairs(found, lines):
        if name not in PREDICTED:
            found.lacks(line, f"no figure {_shown(name)}{_nearest(name, PREDICTED)}")
        elif text and name in found.predicted:
            found.lacks(line, f"{name} is given twice; the first stands")
        elif text:
            found.predicted[name] = Setting(name, text, line)


def _pairs(found: DesignFile, lines: list[Line]) -> Iterator[tuple[Line, str, str]]:
    """(line, key, text of the value) of each `key = value`."""
    for line in lines:
        plain = line.text.partition("#")[0].strip().removeprefix("- ").strip()
        if not plain:
            continue
        name, equals, value = plain.partition("=")
        if not equals:
            found.lacks(line, f"write key = value, got {_shown(plain)}")
        else:
            yield line, name.strip().strip("`").lower().replace("-", "_"), value.strip().strip("`")


_WORDS = {"yes": True, "on": True, "true": True, "no": False, "off": False, "false": False}


def _value(key: Key, text: str, gpus: tuple[str, ...]) -> tuple[Any, str]:
    """(value, problem): one of them says something."""
    if key.kind == "choice":
        choices = key.choices or gpus
        plain = text.lower()
        if plain in choices:
            return plain, ""
        return None, f"must be one of {', '.join(choices)}, got {_shown(text)}"
    if key.kind == "bool":
        if text.lower() in _WORDS:
            return _WORDS[text.lower()], ""
        return None, f"must be yes or no, got {_shown(text)}"
    pattern = r"\d{1,12}" if key.kind == "int" else r"\d{0,6}\.?\d{1,6}"
    plain = text.replace(",", "").replace("_", "")
    what = "a whole number" if key.kind == "int" else "a number"
    if not re.fullmatch(pattern, plain, re.ASCII) or not key.least <= float(plain) <= key.most:
        bounds = f"from {key.least:,} to {key.most:,}"
        return None, f"must be {what} {bounds}, got {_shown(text)}"
    return (int(plain) if key.kind == "int" else float(plain)), ""


def _arithmetic(found: DesignFile, lines: list[Line]) -> list[Line]:
    taken: list[Line] = []
    for line in lines:
        plain = line.text.strip()
        if not plain or plain.startswith("#"):
            continue
        if len(taken) == MOST_LINES:
            found.lacks(line, f"more than {MOST_LINES} lines of arithmetic; the rest is not read")
            break
        if len(plain) > _LONGEST_LINE:
            found.lacks(line, f"longer than {_LONGEST_LINE} characters: {_shown(plain)}")
            continue
        indent = len(line.text) - len(line.text.lstrip())
        taken.append(Line(line.number, line.start + indent, plain))
    return taken


def _risks(found: DesignFile, lines: list[Line]) -> list[NamedRisk]:
    """A bullet goes on over the lines that follow it."""
    bullets: list[list[Line]] = []
    for line in lines:
        if not line.text.strip():
            continue
        if re.match(r"\s*(?:[-*+]|\d{1,2}[.)])\s", line.text) and not _SHOWS.match(line.text):
            bullets.append([line])
        elif bullets:
            bullets[-1].append(line)
        else:
            found.lacks(line, f"begin a risk with a dash, got {_shown(line.text)}")
            bullets.append([line])
    if len(bullets) > MOST_LINES:
        found.lacks(bullets[MOST_LINES][0], f"more than {MOST_LINES} risks; the rest is not read")
    return [_risk(found, bullet) for bullet in bullets[:MOST_LINES]]


_SHOWS = re.compile(r"(?:^|(?<=\s))[-*+]?\s*shows\s+as\s*:", re.I)


def _risk(found: DesignFile, bullet: list[Line]) -> NamedRisk:
    whole = _joined(bullet)
    what, *rest = _SHOWS.split(whole.text, maxsplit=1)
    if not rest or not rest[0].strip():
        found.lacks(whole, "a risk without `shows as:` and what would show it")
    what = re.sub(r"^\s*(?:[-*+]|\d{1,2}[.)])\s+", "", what).strip()
    return NamedRisk(what, rest[0].strip() if rest else "", whole)


def _joined(lines: list[Line]) -> Line:
    """Lines as one text; `start` is that of the first that is not blank."""
    while lines and not lines[0].text.strip():
        lines = lines[1:]
    if not lines:
        return Line(0, 0, "")
    return Line(lines[0].number, lines[0].start, "\n".join(line.text for line in lines).rstrip())


def _nearest(name: str, known: Any) -> str:
    close = difflib.get_close_matches(name[:60], [*known], 1, 0.5)
    return f"; did you mean {close[0]}?" if close else f" (known: {', '.join(known)})"


def _shown(text: str) -> str:
    text = " ".join(text.split())
    return repr(printable(text if len(text) <= 60 else f"{text[:60]}..."))
