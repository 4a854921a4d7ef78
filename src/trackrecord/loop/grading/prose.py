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
from functools import cached_property, lru_cache
from importlib import resources

import snowballstemmer

MOST_CHARACTERS = 40_000
"""What is read of a text; nobody writes more in an hour."""

_STEMMER = snowballstemmer.stemmer("english")
_WORD = re.compile(r"[^\W_]+(?:['’][^\W_]+)?")
_END = re.compile(r"[.!?]+[)\"'”’]*(?=\s)|\n\s*\n|\n(?=\s*(?:[-*•+]|\d{1,2}[.)])\s)|\n(?=#)")
_BREAK = re.compile(r"[,;:()\[\]{}]|\s[-–—]+\s|—|\n\s*[-*•]")
_PIECES = re.compile(r"(?:,(?!\d)|[;|•]|\n(?=[^\n]{1,24}(?:\n|$)))+")
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
"""Most share of "and" and "or" in prose."""
_FEWEST, _FEWEST_WITHOUT_END, _TERSE = 3, 5, 8
"""Fewest words of a sentence, and of one without a full stop; most words of one that may do without
function words ("Evaluate rare languages separately.")."""
_MANY_PIECES = 7
"""Commas in a sentence, from which on pieces of a word more make a list too."""
_SHORT_PIECE = 3
"""Words between commas; a sentence most of whose words stand in such pieces is a list."""
_UNBROKEN = 30
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
_NUMBERS = {word: str(number) for number, word in enumerate(_LISTS["numbers"])}
_SUBJECTS = frozenset(_LISTS["subjects"])
_INSERTED = frozenset(_LISTS["insertions"])
_EMPTY = frozenset(_LISTS["empty_predicates"])
_FUNCTION = frozenset(_LISTS["function_words"])
_ABBREVIATION = re.compile(rf"\b(?:{'|'.join(map(re.escape, _LISTS['abbreviations']))})\.$", re.I)
AUXILIARIES = frozenset(_LISTS["auxiliaries"])
_FINITE = AUXILIARIES - {"be", "been", "being"}


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

    @cached_property
    def _letters(self) -> list[str]:
        """Its words of letters alone, in lower case."""
        return [word.plain for word in self.words if word.plain.isalpha()]

    @cached_property
    def is_terse(self) -> bool:
        """Whether it is as short as a heading, or does without function words. A few such sentences
        are a style; a text of them is a list."""
        if "=" in self.text:
            return False  # a calculation
        plain = self._letters
        return len(plain) <= _FEWEST + 1 or (
            len(plain) <= _TERSE and not any(word in _FUNCTION for word in plain)
        )

    @cached_property
    def is_prose(self) -> bool:
        """Whether words are put in relation here, rather than listed."""
        plain = self._letters
        ends = self.text.endswith((".", "!", "?", ":"))
        pieces = [len(_WORD.findall(piece)) for piece in _PIECES.split(self.text)]
        if len(plain) < (_FEWEST if ends else _FEWEST_WITHOUT_END):
            return False
        if self.is_terse:
            return ends and len(pieces) == 1
        names = sum("_" in token for token in self.text.split()) * 2
        relating = sum(word in _FUNCTION for word in plain) / max(len(plain) - names, 1)
        joins = sum(word in ("and", "or") for word in plain)
        joined = joins / len(plain) if joins > 2 else 0.0
        longest = max(Counter(word.segment for word in self.words).values())
        is_long = len(plain) > _LONG
        if relating < (_RELATING_IF_LONG if is_long else _RELATING) or joined > _JOINED:
            return False
        in_short = sum(piece for piece in pieces if piece <= _SHORT_PIECE)
        many = len(pieces) >= _MANY_PIECES and sorted(pieces)[len(pieces) // 2] <= _SHORT_PIECE + 1
        is_listing = many or (len(pieces) >= 4 and in_short > sum(pieces) / 2)
        return longest <= _UNBROKEN and not is_listing


@lru_cache(maxsize=20_000)
def stem(word: str) -> str:
    """The Snowball (Porter 2) stem of a word in lower case; a small number in digits."""
    if word in _NUMBERS:
        return _NUMBERS[word]
    if word[0].isdigit() and word.endswith("x"):
        return word[:-1]
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
    for at in range(len(words)):
        if at not in quiet:
            for reached in _reach(text, words, segments, at):
                counts[reached] += 1
    return [count % 2 == 1 for count in counts]


def _reach(text: str, words: list[tuple[str, int, int]], segments: list[int], at: int) -> list[int]:
    """The words that word `at` denies; none where it is no negation."""
    word, start, end = words[at]
    following = words[at + 1][0] if at + 1 < len(words) else ""
    is_pair = (word, following) in _PAIRS
    if word == "not" and following in ("only", "just", "merely"):
        return []
    if word == "none" and at and text[start:end] == "None":
        return []  # Python's
    if word in _PREDICATE or (word, following) == ("no", "longer"):
        found = _predicate(text, words, segments, at)
        if _denies_subject(words, at):
            found += [n for n in range(at) if segments[n] == segments[at]]
        return found
    if is_pair or word in _FORWARD:
        most = len(words) if is_pair else at + 1 + _NEAR
        found = []
        for later in range(at + 1, min(most, len(words))):
            ending = _SUBJECTS if is_pair or word in ("without", "unlike") else _FINITE
            opens = word != "no" and later > at + 1 + is_pair and words[later][0] in ending
            if segments[later] != segments[at] or opens:
                break
            found.append(later)
        return found
    return []


def _predicate(
    text: str, words: list[tuple[str, int, int]], segments: list[int], at: int
) -> list[int]:
    """What a negated verb reaches: the rest of its clause, up to another verb. A negation that its
    clause ends with reaches over an insertion: "are not, as some say, shared"."""
    ends_clause = at + 1 < len(words) and segments[at + 1] != segments[at]
    breaks = ends_clause and _BREAK.search(text, words[at][2], words[at + 1][1]) is not None
    reaches_on = ends_clause and (words[at + 1][0] in _INSERTED or not breaks)
    found = []
    inside = False
    for later in range(at + 1, len(words)):
        word = words[later][0]
        inside = inside or word == "that"
        finite = word in _FINITE and words[later - 1][0] != "to"
        if segments[later] != segments[at] and not reaches_on:
            break
        if later >= at + 2 and finite and not inside and not reaches_on:
            break
        found.append(later)
    return found


def _denies_subject(words: list[tuple[str, int, int]], at: int) -> bool:
    """Whether the negation at `at` says that its own subject is not so: "sharing is not used"."""
    if not at or words[at - 1][0] not in AUXILIARIES:
        return False
    following = [word for word, *_ in words[at + 1 : at + 4]]
    return bool(following) and any(word in _EMPTY for word in following[:2])
