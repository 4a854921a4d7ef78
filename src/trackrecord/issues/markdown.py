"""Which lines of a GitHub comment are its author's own words, which are code, which are quoted.

One pass over the lines, no backtracking: a comment of a megabyte costs what its length costs.
Every line belongs to exactly one block, except the hidden ones (HTML comments, the header that mail
programs put before a quotation), which belong to none.

Where rendering and intention differ, intention wins: a line without ">" right below a quotation
renders as part of it ("lazy continuation"), yet people write their answer there, so it counts as
theirs.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass

MAX_CHARACTERS = 262_144
"""What is read of one text: four times what GitHub allows in a body."""

_FENCE = re.compile(r"[ \t]*(?:[-*+]\s|\d{1,3}[.)]\s)?[ \t]*(`{3,}|~{3,})([^`]*)$")
_HEADING = re.compile(r"#{1,6}[ \t]+(\S.*?)[ \t#]*$")
# "On Thu, Jun 6, 2024 at 10:11 AM Somebody ***@***.***> wrote:" and its like in other languages.
_MAIL_HEADER = re.compile(
    r"(?:On\b.{4,200}\bwrote|Le\b.{4,200}a écrit|Am\b.{4,200}schrieb.{0,80}|在.{4,200}写道)"
    r"\s*[:：]\s*$"
)
# Everything below one of these is the mail that was answered, or the mail program's own words.
_MAIL_TAIL = re.compile(
    r"(?:—|--|-{3,})?\s*(?:Reply to this email directly|You are receiving this because|"
    r"-{2,}\s*(?:Original Message|Original|原始邮件|原邮件)\s*-{2,})",
    re.IGNORECASE,
)


@dataclass(frozen=True, slots=True)
class Block:
    """Consecutive lines of one kind.

    Attributes:
        kind: "prose" or "code" (between fences, which are not part of `text`).
        lang: the word after the opening fence, lower case, "" without one.
        text: the lines without the ">" that quotes them.
        line: number of the first line of `text` in the whole, from 1.
        quoted: whether it repeats someone (">").
    """

    kind: str
    lang: str
    text: str
    line: int
    quoted: bool


def blocks(text: str) -> list[Block]:
    """The visible blocks of `text`, in order."""
    return list(_blocks(text[:MAX_CHARACTERS]))


def strip_quotes(body: str) -> str:
    """`body` without what it quotes, hides, or repeats of a mail; code stays, with its fences."""
    parts = []
    for block in blocks(body):
        if not block.quoted:
            fenced = block.kind == "code"
            parts.append(f"```{block.lang}\n{block.text}\n```" if fenced else block.text)
    return "\n".join(parts).strip()


def prose(body: str) -> str:
    """The author's own words alone: neither quotations nor code blocks."""
    own = (block.text for block in blocks(body) if block.kind == "prose" and not block.quoted)
    return "\n".join(own).strip()


def quoted_ranges(body: str) -> tuple[tuple[int, int], ...]:
    """First and last line of each quotation, from 1, both inclusive."""
    ranges: list[tuple[int, int]] = []
    for number, line in enumerate(body[:MAX_CHARACTERS].split("\n"), start=1):
        if not line.lstrip(" ").startswith(">"):
            continue
        if ranges and ranges[-1][1] == number - 1:
            ranges[-1] = (ranges[-1][0], number)
        else:
            ranges.append((number, number))
    return tuple(ranges)


def sections(body: str) -> dict[str, str]:
    """The fields of an issue-form body: heading to text, both stripped.

    GitHub writes a form's answers as `### Label`, an empty line, the answer; an unanswered field
    reads `_No response_` and is "" here. Text before the first heading stands under "". Headings
    inside code and quotations are part of the answer they stand in. Of equal headings the first
    keeps the name and takes the rest as well.
    """
    found: dict[str, list[str]] = {"": []}
    current = ""
    for block in blocks(body):
        if block.quoted:
            found[current].append("\n".join(f"> {line}" for line in block.text.split("\n")))
        elif block.kind == "code":
            found[current].append(f"```{block.lang}\n{block.text}\n```")
        else:
            for line in block.text.split("\n"):
                if heading := _HEADING.match(line):
                    current = heading[1].strip()
                    found.setdefault(current, [])
                else:
                    found[current].append(line)
    texts = {name: "\n".join(lines).strip() for name, lines in found.items()}
    return {
        name: "" if text == "_No response_" else text
        for name, text in texts.items()
        if name or text
    }


def _blocks(text: str) -> Iterator[Block]:
    kind, lang, quoted, first = "prose", "", False, 1
    fence, depth = "", 0
    lines: list[str] = []
    hidden = False
    for number, raw in enumerate(text.replace("\r\n", "\n").split("\n"), start=1):
        line, level = _unquote(raw)
        if fence and level < depth:  # a quotation ends, and with it the code inside
            yield Block(kind, lang, "\n".join(lines), first, quoted)
            kind, lang, fence, lines, first = "prose", "", "", [], number
        if fence:
            if _closes(line, fence):
                yield Block(kind, lang, "\n".join(lines), first, quoted)
                kind, lang, fence, lines, first = "prose", "", "", [], number + 1
            else:
                lines.append(line if depth == level else raw)
            continue
        visible, hidden = _without_html_comments(line, hidden)
        if visible is None or _MAIL_HEADER.match(visible[:300]):
            continue
        line = visible
        if not level and _MAIL_TAIL.match(line[:300].lstrip()):
            break
        opening = _FENCE.match(line) if "```" in line or "~~~" in line else None
        if lines and (opening or quoted != bool(level)):
            yield Block(kind, lang, "\n".join(lines), first, quoted)
            lines = []
        quoted = bool(level)
        if opening:
            words = opening[2].split()
            kind, lang = "code", re.split("[:,{]", words[0].lower())[0] if words else ""
            fence, depth, first = opening[1], level, number + 1
        else:
            if not lines:
                first = number
            lines.append(line)
    if lines:
        yield Block(kind, lang, "\n".join(lines), first, quoted)


def _unquote(line: str) -> tuple[str, int]:
    """`line` without its ">" marks, and how many there were."""
    level, at = 0, 0
    while True:
        mark = at
        while mark < len(line) and line[mark] == " " and mark - at < 4:
            mark += 1
        if mark >= len(line) or line[mark] != ">":
            return (line[at + 1 :] if level and line[at : at + 1] == " " else line[at:]), level
        level, at = level + 1, mark + 1


def _closes(line: str, fence: str) -> bool:
    mark = line.strip()
    return len(mark) >= len(fence) and not mark.strip(fence[0])


def _without_html_comments(line: str, hidden: bool) -> tuple[str | None, bool]:
    """The visible part of a prose line (None if nothing is left of a line that had something)."""
    if not hidden and "<!--" not in line:
        return line, False
    kept: list[str] = []
    rest = line
    while rest:
        before, mark, rest = rest.partition("-->" if hidden else "<!--")
        if not hidden:
            kept.append(before)
        if mark:
            hidden = not hidden
    visible = "".join(kept)
    return (visible if visible.strip() else None), hidden
