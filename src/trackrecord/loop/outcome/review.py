"""An answer beside the model answer, and what the machine found in it, in a terminal.

Invariant: no line is wider than asked for, and nothing in the candidate's text reaches the terminal
as anything but visible characters.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Iterator, Sequence
from itertools import zip_longest

from mini_vllm.console import printable
from trackrecord.loop.graded import GradedAnswer
from trackrecord.loop.items import Answer
from trackrecord.loop.marks import FULL, LAYER_TITLES, Finding, Layer, LayerMark
from trackrecord.loop.outcome.evidence import one_line

TWO_COLUMNS = 120
"""From this width on the two answers stand side by side."""
NARROWEST = 20
_MOST_SHOWN = 50_000
_BETWEEN = " │ "


def review_lines(graded: GradedAnswer, width: int) -> list[str]:
    """The whole of one answer, for a terminal of `width` columns."""
    width = max(width, NARROWEST)
    answer, item = graded.answer, graded.item
    areas = ", ".join(area.title for area in graded.areas)
    lines = [
        *wrapped(f"{item.name}: {item.title}", width),
        *wrapped(f"{graded.level}; {areas}; run {graded.run}, {graded.at:%Y-%m-%d %H:%M}", width),
        *wrapped(f"{answer.seconds / 60:.1f} min; {_notes(graded)}", width),
        "",
        *wrapped(item.prompt, width),
        "",
        *_side_by_side(_written(answer), item.model, width),
    ]
    for number, asked in enumerate(item.followups):
        given = answer.followups[number] if number < len(answer.followups) else "(not reached)"
        lines += ["", *wrapped(f"Follow-up: {asked}", width), *_indented(given, width)]
    if answer.actions:
        lines += ["", "Steps:"]
        for step in answer.actions:
            words = "looked at" if step.kind == "observe" else "suspected"
            lines += _indented(f"{step.at / 60:4.0f} min  {words} {one_line(step.what)}", width)
    for mark in graded.mark.layers:
        lines += ["", *_layer(mark, answer.own, width)]
    if item.afterwards:
        lines += ["", *wrapped(item.afterwards, width)]
    return lines


def _notes(graded: GradedAnswer) -> str:
    return f"total {graded.mark.total} of {3 * FULL}" + "".join(f"; {n}" for n in graded.mark.notes)


def _written(answer: Answer) -> str:
    if not answer.text.strip():
        return "(skipped)" if answer.skipped else "(nothing was written)"
    if len(answer.text) <= _MOST_SHOWN:
        return answer.text
    more = len(answer.text) - _MOST_SHOWN
    return f"{answer.text[:_MOST_SHOWN]}\n(and {more:,} more characters)"


def _side_by_side(mine: str, model: str, width: int) -> list[str]:
    if width < TWO_COLUMNS:
        return [
            *("YOUR ANSWER", *wrapped(mine, width), ""),
            *("MODEL ANSWER", *wrapped(model, width)),
        ]
    column = (width - len(_BETWEEN)) // 2
    left = ["YOUR ANSWER", *wrapped(mine, column)]
    right = ["MODEL ANSWER", *wrapped(model, column)]
    return [
        f"{a}{' ' * (column - columns(a))}{_BETWEEN}{b}".rstrip()
        for a, b in zip_longest(left, right, fillvalue="")
    ]


def _layer(mark: LayerMark, own: dict[str, int], width: int) -> Iterator[str]:
    yours = f"; your own score {own[mark.layer]}" if mark.layer in own else "; no own score"
    yield from wrapped(f"{_title(mark.layer)}: {mark.score} of {FULL}{yours}", width)
    for cap in mark.caps:
        yield from _indented(f"held down: {cap}", width)
    for finding in mark.findings:
        yield from _indented(_finding(finding), width)


def _title(layer: Layer) -> str:
    title = LAYER_TITLES[layer]
    return title[0].upper() + title[1:]


_WORDS = {
    "found": "found:",
    "missing": "missing:",
    "opposite": "said the other way round:",
    "wrong": "wrong:",
    "unclear": "cannot tell:",
}


def _finding(finding: Finding) -> str:
    quote = f' "{one_line(finding.quote)}"' if finding.quote else ""
    note = f" ({one_line(finding.note)})" if finding.note else ""
    return f"{_WORDS[finding.verdict]} {one_line(finding.says)}{quote}{note}"


def _indented(text: str, width: int) -> list[str]:
    return [f"  {line}" for line in wrapped(text, width - 2)]


def wrapped(text: str, width: int) -> list[str]:
    """`text` in lines of at most `width` columns; its own lines and their indents are kept."""
    lines: list[str] = []
    for line in text.expandtabs(4).splitlines():
        shown = printable(line)
        stripped = shown.lstrip(" ")
        indent = " " * min(len(shown) - len(stripped), width // 2)
        lines += [f"{indent}{part}".rstrip() for part in _filled(stripped, width - len(indent))]
    return lines


def _filled(line: str, width: int) -> list[str]:
    """One line, broken at spaces, and inside words that are wider than `width`."""
    parts, current, used = [], "", 0
    for word in line.split(" "):
        for piece in _pieces(word, width):
            size = columns(piece)
            if current and used + 1 + size > width:
                parts.append(current)
                current, used = piece, size
            else:
                used += size + (1 if current else 0)
                current = f"{current} {piece}" if current else piece
    return [*parts, current]


def _pieces(word: str, width: int) -> Sequence[str]:
    if columns(word) <= width:
        return [word]
    pieces, current, used = [], "", 0
    for c in word:
        size = columns(c)
        if used + size > width:
            pieces.append(current)
            current, used = "", 0
        current, used = current + c, used + size
    return [*pieces, current]


def columns(text: str) -> int:
    """How many columns of a terminal `text` takes."""
    if text.isascii():
        return len(text)
    return sum(
        0 if unicodedata.combining(c) else 2 if unicodedata.east_asian_width(c) in "WF" else 1
        for c in text
    )
