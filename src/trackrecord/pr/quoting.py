"""Showing what strangers wrote: on a terminal, and in Markdown that will be pasted into GitHub.

On a terminal every control character is made visible. In Markdown a quotation is a code span:
GitHub renders no HTML, image or link inside one, notifies nobody it mentions and cross-references
no number.

Invariant: whatever the text, `code_span` returns one line that is one code span.
"""

from __future__ import annotations

import re

from mini_vllm.console import printable

_SAFE_URL = re.compile(
    r"https://github\.com/[A-Za-z0-9_.-]+/[A-Za-z0-9_.-]+(?:[/?#][\w./?#=&%+:-]*)?"
)
_BACKTICKS = re.compile(r"`+")


def one_line(text: str, longest: int = 200) -> str:
    """`text` on one printable line of at most `longest` characters, cut with an ellipsis."""
    line = printable(" ".join(text.split()))
    return line if len(line) <= longest else line[: longest - 1].rstrip() + "…"


def code_span(text: str, longest: int = 200) -> str:
    """`text` as one inline code span."""
    line = one_line(text, longest) or "(empty)"
    fence = "`" * (max((len(run) for run in _BACKTICKS.findall(line)), default=0) + 1)
    pad = " " if line.startswith("`") or line.endswith("`") else ""
    return f"{fence}{pad}{line}{pad}{fence}"


def quotation(text: str, longest: int = 200) -> str:
    """Somebody's words as one code span, in quotation marks: a path in it is nobody's anchor."""
    return code_span(f"“{one_line(text, longest)}”", longest + 2)


def plain(text: str, longest: int = 220) -> str:
    """A sentence of ours that may hold names from outside, so that it renders as itself.

    Mentions and references are broken by an invisible joiner: GitHub looks for both after it has
    taken the backslashes away.
    """
    escaped = re.sub(r"([\\`*_\[\]<>|])", r"\\\1", one_line(text, longest))
    return re.sub(r"[@#]", "\\g<0>\u2060", escaped)


def safe_url(url: str) -> str:
    """`url` if it is a plain address on GitHub, else "": a store may hold any address."""
    return url if _SAFE_URL.fullmatch(url) and len(url) <= 500 else ""


def link(label: str, url: str) -> str:
    """A Markdown link with a label of ours, or the label alone where the address is not safe."""
    safe = safe_url(url)
    return f"[{label}]({safe})" if safe else label
