"""Key points: claims that a text makes or does not, found with the words that make them.

A point is a relation between terms. Its relation must be said in one sentence that is prose, with
the right sign; its terms must stand in that sentence or beside it. A list of the right words makes
no claim, and a sentence taken from the question is not the candidate's.

Patterns: alternatives separated by `|`, each a word or a short phrase. Words are compared by stem
(`word*` by beginning), near each other, in any order unless a word like "before" or "than" gives it
one. An alternative that starts with `!` holds where the text denies it.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import pairwise
from typing import Any, Literal

from trackrecord.errors import TrackRecordError
from trackrecord.loop.grading.prose import Sentence, Word, read_sentences, split_words, stem
from trackrecord.loop.marks import Finding

_GAP = 3
_STRIPPED = ("not", "never", "no", "without")
_STRIPPED_FIRST = (*_STRIPPED, "nothing")
"""Negations that an alternative may hold, or begin with: `not copied` is written for `!copied`."""
_NEGATIONS = frozenset("avoid prevent forbid lack unlik noth nobodi none".split())
_DIRECTIONS = frozenset(
    "befor after than from to into over per divid minus by then exceed abov below onc until first "
    "last with".split()
)
"""Stems of words that a phrase cannot be turned round about."""
_LONGEST_QUOTE = 240
_FEW_TERSE, _MOST_TERSE = 3, 0.4
"""Terse sentences in a text, and their share, above which they are taken for a list."""
_COPIED = 0.7
"""Share of a sentence's word pairs that stand in the question, from which on it is a copy."""


class PatternError(TrackRecordError):
    """A pattern or a point that cannot be used; the message shows it."""


@dataclass(frozen=True)
class Point:
    """A claim to look for. `says` is for people; all of `relation` and all of `terms` must hold.

    Args:
        shown_by: names of quantities; a calculation written out that comes to one of them makes the
            point as well, where the caller has quantities.
    """

    says: str
    relation: tuple[str, ...]
    terms: tuple[str, ...] = ()
    weight: float = 1.0
    shown_by: tuple[str, ...] = ()

    @classmethod
    def from_table(cls, table: Mapping[str, Any], where: str) -> Point:
        """The point in a TOML table.

        Raises:
            PatternError: naming `where` and the key.
        """
        known = ("says", "relation", "terms", "weight", "shown_by")
        for key in table:
            if key not in known:
                raise PatternError(f"{where}: unknown key {key!r} (known: {', '.join(known)})")
        says, weight = table.get("says"), table.get("weight", 1)
        if not isinstance(says, str) or not says.strip():
            raise PatternError(f"{where}: says must tell the point in words")
        if isinstance(weight, bool) or not isinstance(weight, int | float) or not 0 < weight <= 10:
            raise PatternError(f"{where}: weight must be a number up to 10, got {weight!r}")
        relation = _patterns(table.get("relation", []), f"{where}: relation")
        if not relation:
            raise PatternError(f"{where}: relation must hold at least one pattern")
        terms = _patterns(table.get("terms", []), f"{where}: terms")
        shown_by = table.get("shown_by", [])
        if not isinstance(shown_by, list) or not all(isinstance(n, str) for n in shown_by):
            raise PatternError(f"{where}: shown_by must be a list of quantities' names")
        return cls(says, relation, terms, float(weight), tuple(shown_by))


@dataclass(frozen=True)
class Phrase:
    """One alternative of a pattern: (stem or beginning, whether it is a beginning) a word."""

    words: tuple[tuple[str, bool], ...]
    denied: bool

    @property
    def is_ordered(self) -> bool:
        """Whether turning the words round would change what they say."""
        return any(text in _DIRECTIONS for text, _ in self.words)


@dataclass(frozen=True)
class Text:
    """A candidate's text, read once for any number of points."""

    sentences: tuple[Sentence, ...]
    own: tuple[bool, ...]
    """Whether each sentence is the candidate's, rather than copied or a list."""
    stems: tuple[frozenset[str], ...]


def read_text(text: str, copied_from: str = "") -> Text:
    """Reads `text`; sentences that stand in `copied_from` are not the candidate's own."""
    sentences = tuple(read_sentences(text))
    pairs = _pairs_of(copied_from)
    terse = sum(s.is_terse for s in sentences)
    listing = terse > _FEW_TERSE and terse > _MOST_TERSE * len(sentences)
    own = tuple(
        s.is_prose and not (listing and s.is_terse) and not _is_copied(s, pairs) for s in sentences
    )
    stems = tuple(frozenset(word.stem for word in s.words) for s in sentences)
    return Text(sentences, own, stems)


def find_points(text: str | Text, points: Iterable[Point], copied_from: str = "") -> list[Finding]:
    """What was found of each point, in order."""
    read = read_text(text, copied_from) if isinstance(text, str) else text
    return [find_point(read, point) for point in points]


def find_point(text: Text, point: Point) -> Finding:
    """Whether the text makes the point, denies it, does both, or neither."""
    seen: dict[Sign, Sentence] = {}
    for at, own in enumerate(text.own):
        sign = _sign(text, at, point) if own else None
        if sign and sign not in seen:
            seen[sign] = text.sentences[at]
    said, denied = seen.get("said"), seen.get("denied")
    if said and denied:
        note = f"said, and denied in: {_quote(denied)}"
        return Finding(point.says, "unclear", _quote(said), said.start, note)
    if said:
        return Finding(point.says, "found", _quote(said), said.start)
    opposite = denied or seen.get("affirmed")
    if opposite:
        return Finding(point.says, "opposite", _quote(opposite), opposite.start)
    return Finding(point.says, "missing")


Sign = Literal["said", "denied", "affirmed"]
"""`denied`: a claim is denied; `affirmed`: something is said plainly that should be denied. The
latter is no denial of the point where the point is made elsewhere: what is denied of one case may
well be true of another."""


def _sign(text: Text, at: int, point: Point) -> Sign | None:
    """What a sentence does to a point; None where it has nothing to do with it."""
    sentence, stems = text.sentences[at], text.stems[at]
    signs = set()
    for pattern in point.relation:
        sign = _pattern_sign(sentence.words, stems, parse_pattern(pattern))
        if sign is None:
            return None
        signs.add(sign)
    near = range(max(0, at - 1), min(len(text.sentences), at + 2))
    for pattern in point.terms:
        phrases = parse_pattern(pattern)
        if not any(_occurs(text.sentences[n].words, text.stems[n], phrases) for n in near):
            return None
    return next(sign for sign in ("denied", "affirmed", "said") if sign in signs)


def _pattern_sign(
    words: Sequence[Word], stems: frozenset[str], phrases: tuple[Phrase, ...]
) -> Sign | None:
    """`said` where an alternative stands with its own sign; else how one stands with the other."""
    other: Sign | None = None
    for phrase in phrases:
        for match in _matches(words, stems, phrase):
            if _is_denied(words, match, phrase) == phrase.denied:
                return "said"
            other = "denied" if not phrase.denied else other or "affirmed"
    return other


def _is_denied(words: Sequence[Word], match: Sequence[int], phrase: Phrase) -> bool:
    """Whether any word of what matched is denied; behind a negation that is the phrase's own, none
    counts ("avoid copies" is denied by "does not avoid copies" alone)."""
    own = next((n for n, (text, _) in enumerate(phrase.words) if text in _NEGATIONS), None)
    counted = match if own is None else match[: own + 1]
    return any(words[place].denied for place in counted)


def phrase_span(sentence: Sentence, phrase: Phrase) -> tuple[int, int] | None:
    """The first and the last word of a phrase that holds in the sentence, if it does."""
    stems = frozenset(word.stem for word in sentence.words)
    for match in _matches(sentence.words, stems, phrase):
        if _is_denied(sentence.words, match, phrase) == phrase.denied:
            return min(match), max(match)
    return None


def _occurs(words: Sequence[Word], stems: frozenset[str], phrases: tuple[Phrase, ...]) -> bool:
    return any(next(iter(_matches(words, stems, p)), None) is not None for p in phrases)


def _matches(words: Sequence[Word], stems: frozenset[str], phrase: Phrase) -> list[list[int]]:
    """The places where the phrase's words stand near each other, by word of the phrase."""
    if any(not is_beginning and text not in stems for text, is_beginning in phrase.words):
        return []
    found = []
    for first, word in enumerate(words):
        if fits(word, phrase.words[0]):
            match = (_in_order if phrase.is_ordered else _in_any_order)(words, phrase, first)
            if match:
                found.append(match)
    return found


def _in_order(words: Sequence[Word], phrase: Phrase, first: int) -> list[int]:
    places = [first]
    for part in phrase.words[1:]:
        after = places[-1] + 1
        window = range(after, min(after + _GAP + 1, len(words)))
        place = next((n for n in window if fits(words[n], part)), None)
        if place is None:
            return []
        places.append(place)
    return places


def _in_any_order(words: Sequence[Word], phrase: Phrase, first: int) -> list[int]:
    """As `_in_order`, for what can be turned round: "blocks are shared", "sharing of blocks"."""
    places = [first]
    for part in phrase.words[1:]:
        low, high = min(places), max(places)
        window = range(max(0, low - _GAP - 1), min(high + _GAP + 2, len(words)))
        fitting = [n for n in window if n not in places and fits(words[n], part)]
        if not fitting:
            return []
        places.append(min(fitting, key=lambda n: (abs(n - places[-1]), n < places[-1])))
    return places


def fits(word: Word, part: tuple[str, bool]) -> bool:
    """Whether a word of a text is that of a phrase: the same stem, or so begun."""
    text, is_beginning = part
    return word.plain.startswith(text) if is_beginning else word.stem == text


@lru_cache(maxsize=20_000)
def parse_pattern(pattern: str) -> tuple[Phrase, ...]:
    """The alternatives of a pattern.

    Raises:
        PatternError: one of them holds no word.
    """
    phrases = []
    for alternative in pattern.split("|"):
        bare = alternative.strip()
        denied = bare.startswith("!")
        if "!" in bare[1:] or "*" in re.sub(r"\*(?=\s|$)", "", bare):
            raise PatternError(f"{alternative.strip()!r}: ! stands before all words, * behind one")
        words = []
        pieces = bare.removeprefix("!").replace("cannot ", "not ").split()
        kept = [
            piece
            for n, piece in enumerate(pieces)
            if piece.lower() not in (_STRIPPED_FIRST if n == 0 else _STRIPPED)
        ]
        if kept and "longer" not in kept and "only" not in kept:
            denied ^= (len(pieces) - len(kept)) % 2 == 1
            pieces = kept
        for piece in pieces:
            is_beginning = piece.endswith("*")
            parts = [word for word, *_ in split_words(piece)]
            for n, word in enumerate(parts):
                last = n == len(parts) - 1
                begins = is_beginning and last
                words.append((word if begins else stem(word), begins))
        if not words:
            raise PatternError(f"pattern {pattern!r}: an alternative holds no word")
        phrases.append(Phrase(tuple(words), denied))
    return tuple(phrases)


def _patterns(value: Any, where: str) -> tuple[str, ...]:
    if not isinstance(value, list) or not all(isinstance(entry, str) for entry in value):
        raise PatternError(f"{where} must be a list of strings")
    for entry in value:
        try:
            parse_pattern(entry)
        except PatternError as error:
            raise PatternError(f"{where}: {error}") from None
    return tuple(value)


def _quote(sentence: Sentence) -> str:
    text = " ".join(sentence.text.split())
    return text if len(text) <= _LONGEST_QUOTE else f"{text[:_LONGEST_QUOTE]}..."


def _pairs_of(text: str) -> frozenset[tuple[str, str]]:
    stems = [stem(word) for word, *_ in split_words(text)]
    return frozenset(pairwise(stems))


def _is_copied(sentence: Sentence, pairs: frozenset[tuple[str, str]]) -> bool:
    stems = [word.stem for word in sentence.words]
    own = list(pairwise(stems))
    return bool(own) and sum(pair in pairs for pair in own) / len(own) >= _COPIED
