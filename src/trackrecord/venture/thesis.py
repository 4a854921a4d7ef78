"""One page of prose whose every number is a reference: `{gross_margin}`, `{price....}`.

Invariant: `paragraphs` puts a number into the text only together with the anchor of its derivation.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

from trackrecord.venture.figures import Figure

MOST_WORDS = 600
"""Of one page."""
_REFERENCE = re.compile(r"\{([^{}\s]{0,80})\}")
_MONEY = re.compile(r"^(?:[A-Z]{2}\$|USD|EUR|GBP|CHF|JPY|CNY|INR|[xX×])\d")
_WORDS = frozenset(
    "two three four five six seven eight nine ten eleven twelve fifteen twenty thirty forty fifty "
    "sixty seventy eighty ninety hundred thousand billion dozen twice thrice double triple tenfold "
    "half third quarter percent".split()
)


@dataclass(frozen=True)
class Segment:
    """A run of text; with an anchor it is a number, and links there."""

    text: str
    anchor: str = ""


def references(text: str) -> list[str]:
    """The names that a thesis refers to, in order."""
    return _REFERENCE.findall(text)


def paragraphs(text: str, figures: Mapping[str, Figure]) -> list[list[Segment]]:
    """The thesis as runs of text, each reference replaced by its number and range.

    A reference to nothing stays as it was written; `lint` reports it. Marks of lists and headings
    at the start of a paragraph are dropped: a thesis is prose.
    """
    found = []
    for written in re.split(r"\n\s*\n", text):
        block = written.strip().lstrip("#>+=*- \t")
        if not block:
            continue
        segments: list[Segment] = []
        end = 0
        for match in _REFERENCE.finditer(block):
            figure = figures.get(match.group(1))
            if figure is None:
                continue
            segments.append(Segment(_joined(block[end : match.start()])))
            segments.append(Segment(figure.with_range, figure.anchor))
            end = match.end()
        segments.append(Segment(_joined(block[end:])))
        found.append([segment for segment in segments if segment.text])
    return found


def _joined(text: str) -> str:
    return re.sub(r"\s+", " ", text)


def bare_numbers(text: str) -> list[str]:
    """Words of a thesis that hold a number of their own, which has no derivation.

    A word that begins with a letter is a name (H100, vLLM, Llama-3-70B) unless the letters are a
    currency or a factor (USD5, x3).
    """
    found = []
    for word in _REFERENCE.sub(" ", text).split():
        bare = word.strip("()[]{},.;:!?\"'`*_“”‘’«»")
        if not any(character.isnumeric() for character in bare):
            continue
        if bare[:1].isalpha() and not bare[:1].isnumeric() and not _MONEY.match(bare):
            continue
        found.append(bare)
    return found


def number_words(text: str) -> list[str]:
    """Numbers written out ("twice", "forty"), which nobody can check either."""
    words = re.findall(r"[a-z]+", _REFERENCE.sub(" ", text).lower())
    return [word for word in words if word in _WORDS]
