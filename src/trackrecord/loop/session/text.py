"""What a person types, made safe to keep and to show, and the difference between two drafts.

Invariant: text that passed `clean` holds no control character but the ends of lines and tabs, and
no lone surrogate, so it can be written and printed anywhere; `patched(old, delta(old, new))` is
`new`.
"""

from __future__ import annotations

import textwrap
from typing import NamedTuple

from mini_vllm.console import printable

MOST = 200_000
"""Characters of an answer; a page of prose has about 3,000."""
_TAB = 4


def clean(text: str) -> str:
    """`text` with its line ends as \\n and every other control character made visible."""
    if "\r" in text:
        text = text.replace("\r\n", "\n").replace("\r", "\n")
    if text.replace("\n", "").replace("\t", "").isprintable():
        return text
    return "".join(c if c in "\n\t" else printable(c) for c in text)


def shown(text: str, width: int) -> str:
    """`text` as lines of at most `width` characters, nothing in it but what can be seen."""
    lines: list[str] = []
    for line in text.split("\n"):
        plain = printable(line.expandtabs(_TAB))
        indent = " " * min(len(plain) - len(plain.lstrip()), width // 2)
        fits = len(plain) <= width
        lines += [plain] if fits else textwrap.wrap(plain, width, subsequent_indent=indent) or [""]
    return "\n".join(lines)


def too_long() -> str:
    """What to say when an answer was cut."""
    return f"An answer has at most {MOST:,} characters: what goes beyond that was cut."


class Delta(NamedTuple):
    """At `keep` characters, `cut` are replaced by `put`."""

    keep: int
    cut: int
    put: str


def delta(old: str, new: str) -> Delta:
    """What makes `new` of `old`: all between their common beginning and their common end."""
    keep = _common_start(old, new)
    end = _common_start(old[keep:][::-1], new[keep:][::-1])
    return Delta(keep, len(old) - keep - end, new[keep : len(new) - end])


def patched(old: str, change: Delta) -> str:
    """`old` with `change` made.

    Raises:
        ValueError: it is not a change of `old`.
    """
    if min(change.keep, change.cut) < 0 or change.keep + change.cut > len(old):
        raise ValueError("a change outside of the text")
    return old[: change.keep] + change.put + old[change.keep + change.cut :]


def _common_start(a: str, b: str) -> int:
    low, high = 0, min(len(a), len(b))
    while low < high:
        middle = (low + high + 1) // 2
        if a[low:middle] == b[low:middle]:
            low = middle
        else:
            high = middle - 1
    return low
