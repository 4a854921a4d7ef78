"""The phrases of `lexicon.toml` and `languages.toml`, as patterns over clauses.

A phrase is words separated by spaces, matched against `Clause.text` word by word:

    word        that word; `fix*` any word that begins so
    {name}      any entry of the word class `name`; `{name+ing}` its entries as gerunds
    (a|b c|)    alternatives, one of which may be empty
    _  __       up to two, up to six words in between; never across a negation, a condition, another
                person or a question word, which would change who does what
    <  >        beginning and end of a statement
    @ @pull @issue   a thread, a pull request, an issue (or one whose kind is not known)
    &( )  !( )  what must, or must not, follow

Languages written without spaces, and those with few entries, use regular expressions instead.
"""

from __future__ import annotations

import re
import tomllib
from dataclasses import dataclass
from functools import cache
from importlib import resources
from typing import Any


@dataclass(frozen=True, slots=True)
class Rule:
    """One meaning and everything that expresses it.

    Attributes:
        name: of the meaning, unique: "claims", "wants", "gives-up", ...
        act: the kind of act it amounts to, see `acts`.
        language: two letters; words that guard a phrase ("if", "how") count in its language only.
        note: what it says of the speaker, for the person who reads the verdict.
        unless: a pattern that takes it back where it matches the same clause.
    """

    name: str
    act: str
    note: str
    pattern: re.Pattern[str]
    language: str = "en"
    unless: re.Pattern[str] | None = None


@dataclass(frozen=True, slots=True)
class Lexicon:
    """All rules by kind of act, in the order of the file."""

    rules: dict[str, tuple[Rule, ...]]

    def find(
        self, act: str, text: str, language: str | None = None
    ) -> tuple[Rule, re.Match[str]] | None:
        """The first rule of `act`, of one language if given, that holds for `text`, and where."""
        for rule in self.rules.get(act, ()):
            if language and rule.language != language:
                continue
            if (found := rule.pattern.search(text)) and not (
                rule.unless and rule.unless.search(text)
            ):
                return rule, found
        return None


@cache
def lexicon() -> Lexicon:
    """The lexicon that ships."""
    english = tomllib.loads(_read("lexicon.toml"))
    others = tomllib.loads(_read("languages.toml"))
    return compile_lexicon(english, others)


def compile_lexicon(english: dict[str, Any], others: dict[str, Any]) -> Lexicon:
    """A lexicon from the documents of both files.

    Raises:
        ValueError: naming the phrase that cannot be read.
    """
    words: dict[str, list[str]] = english["words"]
    rules: dict[str, list[Rule]] = {}
    for name, entry in english["rules"].items():
        pattern = re.compile(_alternatives(entry["phrases"], words))
        unless = re.compile(_alternatives(entry["unless"], words)) if "unless" in entry else None
        rules.setdefault(entry["act"], []).append(
            Rule(name, entry["act"], entry.get("note", ""), pattern, unless=unless)
        )
    notes = {act: found[0].note for act, found in rules.items()}
    for language, acts in others.items():
        start = "" if language in _WITHOUT_SPACES else _WORD_START
        for act, patterns in acts.items():
            one = re.compile(start + "(?:" + "|".join(patterns) + ")")
            note = f"{notes.get(act, '')} ({language})".strip()
            rules.setdefault(act, []).append(Rule(f"{act}-{language}", act, note, one, language))
    return Lexicon({act: tuple(found) for act, found in rules.items()})


def _read(name: str) -> str:
    return resources.files(__package__).joinpath(name).read_text(encoding="utf-8")


_PIECE = re.compile(r"\s+|[|)<>]|[&!]?\(|[^\s|()<>]+")
_START = r"(?:^|(?<=[,] )|(?<=(?:and|but|now) )|(?<= so )|(?<=then ))"
_END = r"(?=$|[,?] |(?:and|but|so|if|as|because|since|for|now|please|thanks|too|then|though) |\+1 )"
_WITHOUT_SPACES = ("zh", "ja", "ko")
_WORD_START = r"(?:^|(?<= ))"
_THREADS = {
    "@": r"(?:pull|issue|ref)_\d+ ",
    "@pull": r"pull_\d+ ",
    "@issue": r"(?:issue|ref)_\d+ ",
    "@user": r"user_[\w-]+ ",
    "@version": r"version_[\w.]+ ",
}


def _alternatives(phrases: list[str], words: dict[str, list[str]]) -> str:
    return _WORD_START + "(?:" + "|".join(_compile(phrase, words) for phrase in phrases) + ")"


def _compile(phrase: str, words: dict[str, list[str]]) -> str:
    depth = 0
    out: list[str] = []
    for piece in _PIECE.findall(phrase):
        if piece.isspace():
            continue
        if piece.endswith("("):
            depth += 1
            out.append({"&": "(?=", "!": "(?!"}.get(piece[:-1], "(?:"))
        elif piece == ")":
            depth -= 1
            out.append(")")
        else:
            out.append("|" if piece == "|" else _word(piece, phrase, words))
    if depth:
        raise ValueError(f"lexicon: parentheses do not match in {phrase!r}")
    return "".join(out)


def _word(piece: str, phrase: str, words: dict[str, list[str]]) -> str:
    if piece in _THREADS:
        return _THREADS[piece]
    if piece in ("<", ">"):
        return _START if piece == "<" else _END
    if piece in ("_", "__"):
        barrier = "|".join(_compile(word, words) for word in words["barrier"])
        return rf"(?:(?!{barrier})\S+ ){{0,{2 if piece == '_' else 6}}}"
    if piece.startswith("{"):
        name, _, form = piece.strip("{}").partition("+")
        if name not in words:
            raise ValueError(f"lexicon: no word class {name!r} in {phrase!r}")
        entries = [_gerund(entry) for entry in words[name]] if form == "ing" else words[name]
        return "(?:" + "|".join(_compile(entry, words) for entry in entries) + ")"
    if piece.endswith("*"):
        return re.escape(piece[:-1]) + r"\S* "
    return re.escape(piece) + " "


_DOUBLED = frozenset({"submit", "get", "put", "grab", "begin", "run", "set", "ship", "jump in"})


def _gerund(phrase: str) -> str:
    """`phrase` with its first word as a gerund: "take over" becomes "taking over"."""
    verb, space, rest = phrase.partition(" ")
    if verb.startswith(("{", "(")):
        return phrase
    if verb in _DOUBLED:
        verb += verb[-1]
    elif verb.endswith("e") and verb not in ("be", "see"):
        verb = verb[:-1]
    return f"{verb}ing{space}{rest}"
