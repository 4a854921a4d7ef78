"""Prose as grading reads it: sentences of stemmed words, each with its sign.

A word's sign is whether it is said or denied: "blocks are not copied" denies `copied`. Signs come
from rules about a few negating words and how far each reaches, not from understanding.

Invariant: every word knows where it stands in the text, so that whatever is found can be quoted.
"""

from __future__ import annotations

import re
import tomllib
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from importlib import resources

import snowballstemmer

MOST_CHARACTERS = 40_000
"""What is read of a text; nobody writes more in an hour."""

_STEMMER = snowballstemmer.stemmer("english")
_WORD = re.compile(r"[^\W_]+(?:['’][^\W_]+)?")
_END = re.compile(r"[.!?]+[)\"'”’]*(?=\s)|\n\s*\n|\n(?=\s*(?:[-*•+]|\d{1,2}[.)])\s)|\n(?=#)")
_BREAK = re.compile(r"[,;:()\[\]{}]|\s[-–—]+\s|—|\n\s*[-*•]")
_PIECES = re.compile(r"(?:,(?!\d)|[;|•\n])+")
_DENIAL = re.compile(
    r"\b(?:it(?:'s| is)|this is|that is)\s+(?:simply\s+|just\s+)?"
    r"(?:not (?:true|the case|correct|right)|false|wrong|untrue|incorrect"
    r"|a (?:common )?(?:myth|mistake|misconception))(?: to (?:say|think|claim|believe))? that\b"
    r"|\bcontrary to (?:the|what)\b|\bno one should (?:say|think) that\b",
    re.I,
)
"""Denies all that follows it in the sentence."""
_RELATING, _RELATING_IF_LONG, _LONG = 0.08, 0.18, 20
"""Least share of function words in prose: in short sentences, in others, and which are short."""
_JOINED = 0.2
"""Most share of "and" in prose."""
_SHORT_PIECE = 3
"""Words between commas; a sentence most of whose words stand in such pieces is a list."""
_UNBROKEN = 32
"""Most words of a clause."""
_NEAR = 5
"""Words that a negation of a noun ("no", "without") reaches."""
_LISTS: dict[str, list[str]] = tomllib.loads(
    resources.files(__package__).joinpath("words.toml").read_text(encoding="utf-8")
)
_OPENERS = frozenset(_LISTS["clause_openers"])
_OPENERS_AFTER_AND = frozenset(_LISTS["clause_openers_after_and"])
_PREDICATE = frozenset(_LISTS["predicate_negations"])
_FORWARD = frozenset(_LISTS["forward_negations"])
_PAIRS = frozenset(tuple(pair.split()) for pair in _LISTS["forward_pairs"])
_EMPTY = frozenset(_LISTS["empty_predicates"])
_FUNCTION = frozenset(_LISTS["function_words"])
_ABBREVIATION = re.compile(rf"\b(?:{'|'.join(map(re.escape, _LISTS['abbreviations']))})\.$", re.I)
AUXILIARIES = frozenset(_LISTS["auxiliaries"])


@dataclass(frozen=True)
class Word:
    """One word: its stem, itself in lower case, its place, its clause, and its sign."""

    stem: str
    plain: str
    start: int
    end: int
    segment: int
    denied: bool


@dataclass(frozen=True)
class Sentence:
    """One sentence; `start` and `end` in characters of the text."""

    start: int
    end: int
    text: str
    words: tuple[Word, ...]

    @property
    def is_prose(self) -> bool:
        """Whether words are put in relation here, rather than listed."""
        plain = [word.plain for word in self.words if word.plain.isalpha() and len(word.plain) > 1]
        if len(self.words) < 5 or not plain:
            return False
        relating = sum(word in _FUNCTION for word in plain) / len(plain)
        joined = plain.count("and") / len(plain)
        longest = max(Counter(word.segment for word in self.words).values())
        is_long = len(plain) > _LONG
        if relating < (_RELATING_IF_LONG if is_long else _RELATING) or joined > _JOINED:
            return False
        pieces = [len(_WORD.findall(piece)) for piece in _PIECES.split(self.text)]
        in_short = sum(piece for piece in pieces if piece <= _SHORT_PIECE)
        is_listing = len(pieces) >= 4 and in_short > sum(pieces) / 2
        return longest <= _UNBROKEN and not is_listing


@lru_cache(maxsize=20_000)
def stem(word: str) -> str:
    """The Snowball (Porter 2) stem of a word in lower case."""
    return str(_STEMMER.stemWord(word))


def split_words(text: str) -> Iterator[tuple[str, int, int]]:
    """(word in lower case, start, end); `doesn't` is two words, `block_table` and `copy-on-write`
    are as many as they hold."""
    for match in _WORD.finditer(text):
        word, start, end = match[0].lower().replace("’", "'"), match.start(), match.end()
        if word == "cannot":
            yield "can", start, end
            yield "not", start, end
        elif word.endswith("n't") and len(word) > 3:
            yield {"ca": "can", "wo": "will"}.get(word[:-3], word[:-3]), start, end
            yield "not", start, end
        else:
            yield word.partition("'")[0], start, end


def read_sentences(text: str) -> list[Sentence]:
    """The sentences of the first `MOST_CHARACTERS` of a text."""
    text = text[:MOST_CHARACTERS]
    found, begin = [], 0
    for match in _END.finditer(text):
        if _ABBREVIATION.search(text[max(begin, match.end() - 12) : match.end()]):
            continue
        found.append((begin, match.end()))
        begin = match.end()
    found.append((begin, len(text)))
    return [sentence for a, b in found if (sentence := _sentence(text, a, b)) is not None]


def _sentence(text: str, begin: int, end: int) -> Sentence | None:
    piece = text[begin:end]
    stripped = piece.strip()
    if not stripped:
        return None
    offset = begin + piece.index(stripped[0])
    listed = list(split_words(stripped))
    if not listed:
        return None
    segments = _segments(stripped, listed)
    signs = _signs(stripped, listed, segments)
    words = tuple(
        Word(stem(word), word, offset + a, offset + b, segment, denied)
        for (word, a, b), segment, denied in zip(listed, segments, signs, strict=True)
    )
    return Sentence(offset, offset + len(stripped), stripped, words)


def _segments(text: str, words: list[tuple[str, int, int]]) -> list[int]:
    """The clause that each word belongs to, counted from 0."""
    breaks = [match.start() for match in _BREAK.finditer(text) if not _within_number(text, match)]
    found, number, position = [], 0, 0
    for at, (word, start, _) in enumerate(words):
        while position < len(breaks) and breaks[position] < start:
            number += 1
            position += 1
        following = words[at + 1][0] if at + 1 < len(words) else ""
        opens = word in _OPENERS or (word == "and" and _opens_clause(following))
        if opens and at:
            number += 1
        found.append(number)
    return found


def _within_number(text: str, match: re.Match[str]) -> bool:
    around = text[max(0, match.start() - 1) : match.end() + 1]
    return match[0] in ",:" and len(around) == 3 and around[0].isdigit() and around[2].isdigit()


def _opens_clause(word: str) -> bool:
    return word in _OPENERS_AFTER_AND or (word.endswith("s") and not word.endswith("ss"))


def _signs(text: str, words: list[tuple[str, int, int]], segments: list[int]) -> list[bool]:
    """Whether each word is denied: an odd number of negations reaches it."""
    counts = [0] * len(words)
    quiet: set[int] = set()
    for match in _DENIAL.finditer(text):
        for at, (_, start, end) in enumerate(words):
            if start >= match.end():
                counts[at] += 1
            elif end > match.start():
                quiet.add(at)
    for at, (word, *_) in enumerate(words):
        if at in quiet:
            continue
        pair = (word, words[at + 1][0] if at + 1 < len(words) else "")
        if word == "not" and pair[1] in ("only", "just", "merely"):
            continue
        if word == "no" and pair[1] in ("longer",):
            pair = ("not", "")
            word = "not"
        if word not in _PREDICATE and word not in _FORWARD and pair not in _PAIRS:
            continue
        reach = segments[at]
        far = len(words) if word in _PREDICATE or pair in _PAIRS else at + 1 + _NEAR
        last_of_clause = at + 1 < len(words) and segments[at + 1] != reach
        for later in range(at + 1, min(far, len(words))):
            if segments[later] != reach and not last_of_clause:
                break
            counts[later] += 1
        if word in _PREDICATE and _denies_subject(words, at):
            for earlier in range(at - 1, -1, -1):
                if segments[earlier] != reach:
                    break
                counts[earlier] += 1
    return [count % 2 == 1 for count in counts]


def _denies_subject(words: list[tuple[str, int, int]], at: int) -> bool:
    """Whether the negation at `at` says that its own subject is not so: "sharing is not used"."""
    if not at or words[at - 1][0] not in AUXILIARIES:
        return False
    following = [word for word, *_ in words[at + 1 : at + 4]]
    return bool(following) and any(word in _EMPTY for word in following[:2])
