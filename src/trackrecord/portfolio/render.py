"""Templates to text. Whatever comes from outside is escaped here, once, for HTML and for Markdown.

Invariant: no value passed to a template can add markup. HTML templates run under autoescape, and
Markdown templates under a finalizer that escapes every value; only what this package made itself
(`Markup`: an inlined plot, the style sheet, a fenced command) goes through as it is. A person's own
Markdown (`prose`) keeps its lists, code and links, and can add neither HTML nor pictures.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import cache
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from markdown_it import MarkdownIt
from markupsafe import Markup

from mini_vllm.console import printable

_MARKDOWN_SPECIAL = re.compile(r"([\\`*_\[\]<>|~&@]|:(?=//)|(?<=www)\.)", re.IGNORECASE)
"""What starts markup inside a line of GitHub's Markdown, bare links included."""


@dataclass(frozen=True)
class Table:
    """A table: `columns` are its headings, the first cell of a row names the row."""

    caption: str
    columns: list[str]
    rows: list[list[str]]


def render(template: str, **values: Any) -> bytes:
    """The template's text, in UTF-8; its name's ending (`.html` or `.md`) says how to escape."""
    markdown = template.endswith(".md")
    text = _environment(markdown).get_template(template).render(**values)
    return (re.sub(r"\n{3,}", "\n\n", text) if markdown else text).encode()


def markdown_escape(text: str) -> str:
    """`text` on one line, showing in Markdown exactly as it is."""
    return _MARKDOWN_SPECIAL.sub(r"\\\1", printable(text))


def markdown_code_block(line: str) -> Markup:
    """`line` as a block of code; being one line, it cannot close the block."""
    return Markup(f"~~~sh\n{printable(line)}\n~~~")  # noqa: S704 - a block escapes its content


def prose_html(text: str) -> Markup:
    """A person's Markdown as HTML: raw HTML shows as text, and only https links are links."""
    return Markup(_markdown().render(text))  # noqa: S704 - the renderer escapes


def prose_markdown(text: str) -> Markup:
    """A person's Markdown as it is, but for raw HTML outside code and for pictures."""
    parts = re.split(r"(`+[^`]*`+)", text)
    kept = [part if n % 2 else _TAG.sub(r"\\\g<0>", part) for n, part in enumerate(parts)]
    return Markup("".join(kept))  # noqa: S704 - nothing in it can open a tag


_TAG = re.compile(r"<(?=[A-Za-z/!?])|!(?=\[)")


@cache
def _markdown() -> MarkdownIt:
    parser = MarkdownIt("commonmark", {"html": False}).disable(["image", "html_inline"])
    parser.validateLink = lambda url: url.startswith("https://")  # type: ignore[method-assign]
    return parser


@cache
def _environment(markdown: bool) -> Environment:
    environment = Environment(
        loader=PackageLoader("trackrecord.portfolio"),
        autoescape=not markdown,  # noqa: S701 - Markdown is escaped by the finalizer
        finalize=_escape_for_markdown if markdown else None,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    environment.filters["code_block"] = markdown_code_block
    environment.filters["prose"] = prose_markdown if markdown else prose_html
    return environment


def _escape_for_markdown(value: Any) -> Any:
    return value if isinstance(value, Markup) else markdown_escape(str(value))
