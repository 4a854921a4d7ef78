"""Where a text names another thread, and whether it says to close it.

`#12`, `GH-12`, `owner/name#12` and addresses of issues and pull requests. A closing word counts as
GitHub counts it ("Fixes #12", https://docs.github.com/en/issues/tracking-your-work-with-issues),
and also as people write it: "Fix issue #12", "FIXES: <address>", and a list of which only the first
has the word. A negated one ("does not fix #12") is a mention.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from typing import Literal

from trackrecord.issues.markdown import Block, blocks

_REFERENCE = re.compile(
    r"""
    https?://(?:www\.)?github\.com/
        (?P<url_repo>[\w.-]{1,100}/[\w.-]{1,100})/
        (?P<form>issues|pull|discussions)/(?P<url_number>\d{1,9})\b
        (?P<fragment>\#[\w-]{1,80})?
    | (?<![\w/&#.-])(?P<repo>[\w.-]{1,100}/[\w.-]{1,100})?\#(?P<number>\d{1,9})\b(?![-\w])
    | (?<![\w/-])GH-(?P<gh>\d{1,9})\b
    """,
    re.VERBOSE,
)
_CLOSING = re.compile(
    r"(?P<not>(?:\b(?:not|never|partially|partly|without|cannot|half)|n['’]t)\b[^.\n]{0,24})?"
    r"\b(?:close[sd]?|closing|fix(?:e[sd])?|fixing|resolve[sd]?|resolving)\b"
    r"\**\s*:?\s*(?:(?:the|this|that|an?|issues?|bugs?|tickets?|for|number|linked)\b[\s:]*){0,3}"
    r"[\s\-*(\[<]*$",
    re.IGNORECASE,
)
_LIST = re.compile(r"[\s,;&+\-*)\]>(\[<]*(?:and|&|as well as)?[\s\-*(\[<]*$", re.IGNORECASE)
_BEFORE = 96
"""Characters before a reference in which a closing word is looked for."""
_INLINE_CODE = re.compile(r"`[^`\n]*`")
_LINK_TEXT = re.compile(r"^\]\($")
"""What stands between the two names of `[#12](https://.../12)`, which are one reference."""


@dataclass(frozen=True, slots=True)
class Reference:
    """One place where a text names a thread.

    Attributes:
        form: what the address says it is; None for `#12`, which does not tell.
        repo: "owner/name" where it is spelled out, None for this repository.
        closes: whether a closing word governs it.
        quoted: whether it stands in a quotation.
        line: line of the text it stands on, from 1.
    """

    number: int
    form: Literal["issue", "pull", "discussion"] | None
    repo: str | None
    closes: bool
    quoted: bool
    line: int


def references(text: str, repo: str | None = None) -> list[Reference]:
    """Every thread that `text` names outside code, in order.

    Args:
        repo: "owner/name" of the repository whose thread `text` is; a reference that spells it out
            then has `repo` None, as the short form has.
    """
    return [found for block in blocks(text) for found in _in_block(block, repo)]


_FORMS: dict[str, Literal["issue", "pull", "discussion"]] = {
    "issues": "issue",
    "pull": "pull",
    "discussions": "discussion",
}


def _in_block(block: Block, home: str | None) -> list[Reference]:
    if block.kind == "code":
        return []
    text = _INLINE_CODE.sub(lambda code: " " * len(code[0]), block.text)
    found: list[Reference] = []
    end, line, closes = 0, block.line, False
    for match in _REFERENCE.finditer(text):
        before = text[max(end, match.start() - _BEFORE) : match.start()]
        if word := _CLOSING.search(before):
            closes = not word["not"]
        else:
            closes = closes and _LIST.match(before) is not None
        line += text.count("\n", end, match.start())
        reference = _reference(match, home, closes, block.quoted, line)
        if found and found[-1].number == reference.number and _LINK_TEXT.search(before):
            found[-1] = replace(reference, closes=found[-1].closes)
        else:
            found.append(reference)
        end = match.end()
    return found


def _reference(
    match: re.Match[str], home: str | None, closes: bool, quoted: bool, line: int
) -> Reference:
    number = int(match["url_number"] or match["number"] or match["gh"])
    spelled: str | None = match["url_repo"] or match["repo"]
    if home and spelled and spelled.lower() == home.lower():
        spelled = None
    return Reference(number, _FORMS.get(match["form"] or ""), spelled, closes, quoted, line)
