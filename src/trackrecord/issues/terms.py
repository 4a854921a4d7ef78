"""A thread as terms: what two reports of one cause share, in a form an index can hold.

Five kinds, from the strongest evidence to the weakest: masked error messages, stack frames, names
of code, words of title and body, words of the comments. Words are lowered and lightly stemmed so
that "crashes" finds "crash"; runs of Chinese, Japanese and Korean characters become pairs, as those
scripts have no spaces. Every term consists of ASCII letters, digits and underscores, or of other
letters, so that the index's own tokenizer leaves it whole.

`refresh` keeps the index equal to the threads: whoever writes a thread marks it stale.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from functools import lru_cache
from itertools import chain

from trackrecord.issues.markdown import MAX_CHARACTERS
from trackrecord.issues.models import Comment, Issue
from trackrecord.issues.store import Store
from trackrecord.issues.text import reading
from trackrecord.issues.traces import ErrorMessage, Frame

FIELDS = ("title", "errors", "frames", "symbols", "words", "talk")
"""Columns of the index, in its order."""

MAX_TERMS = 400
"""Terms kept of one field; a report that needs more repeats itself."""
TALK_CHARACTERS = 100_000
"""How much of a thread's comments is read."""

_WORD = re.compile(r"[^\W_]+")
_EAST_ASIAN = re.compile("[\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uac00-\ud7af\uf900-\ufaff]+")
_FORM_PREFIX = re.compile(
    r"^\s*\[(?:bug|feature|usage|rfc|misc|doc|docs|performance|installation|new model|roadmap|"
    r"ci failure|ci|bugfix|question)\]\s*:?\s*",
    re.IGNORECASE,
)
"""What the issue forms put before every title of their kind."""
_NOT_TERM = re.compile(r"[^A-Za-z0-9_]+")

# fmt: off
_STOP = frozenset({
    "a", "about", "after", "all", "also", "am", "an", "and", "any", "are", "as", "at", "be",
    "because", "been", "before", "but", "by", "can", "could", "did", "do", "does", "doing", "done",
    "for", "from", "get", "got", "had", "has", "have", "he", "hello", "help", "here", "hi", "how",
    "i", "if", "in", "into", "is", "it", "its", "just", "know", "like", "ll", "me", "more", "my",
    "no", "not", "now", "of", "on", "one", "only", "or", "other", "our", "out", "please", "s",
    "same", "see", "should", "so", "some", "t", "than", "thank", "thanks", "that", "the", "their",
    "them", "then", "there", "these", "they", "this", "to", "too", "try", "up", "us", "use", "used",
    "using", "ve", "very", "was", "we", "were", "what", "when", "where", "which", "while", "who",
    "why", "will", "with", "would", "yet", "you", "your",
})
# fmt: on


@dataclass(slots=True)
class Terms:
    """The terms of one text, each field in order of appearance and without repetitions.

    `shown` has, for the terms that are no words, what they stand for.
    """

    title: list[str] = field(default_factory=list)
    errors: list[str] = field(default_factory=list)
    frames: list[str] = field(default_factory=list)
    symbols: list[str] = field(default_factory=list)
    words: list[str] = field(default_factory=list)
    talk: list[str] = field(default_factory=list)
    shown: dict[str, str] = field(default_factory=dict)


def terms_of_text(text: str, title: str = "") -> Terms:
    """The terms of free text, as a query or as the body of a thread."""
    title = _FORM_PREFIX.sub("", title)
    read = reading(f"{title}\n\n{text}")
    errors = {_error_term(e): f"{e.type}: {e.masked}" for e in read.error_messages if e.masked}
    types = {f"type_{_term(_last(e.type))}": e.type for e in read.error_messages}
    frames = {_frame_term(f): f"{f.path} {f.function}".rstrip() for f in read.frames}
    symbols = dict(_symbol_terms((*read.symbols, *read.options, *read.models)))
    messages = chain.from_iterable(words(e.masked) for e in read.error_messages)
    return Terms(
        title=_first(words(title)),
        # Near messages meet by their words.
        errors=_first((*errors, *types, *messages)),
        frames=_first(frames),
        symbols=_first(symbols),
        words=_first(words(read.words)),
        shown=symbols | frames | types | errors,
    )


def terms_of_thread(thread: Issue, comments: Iterable[Comment]) -> Terms:
    """The terms of a thread; comments give evidence too, their words less of it."""
    found = terms_of_text(thread.body, thread.title)
    talk = "\n\n".join(c.body for c in comments if not c.is_bot)
    if talk:
        said = terms_of_text(talk[:TALK_CHARACTERS])
        found.errors = _first((*found.errors, *said.errors))
        found.frames = _first((*found.frames, *said.frames))
        found.symbols = _first((*found.symbols, *said.symbols))
        found.talk = said.words
        found.shown |= said.shown
    return found


def words(text: str) -> Iterator[str]:
    """The index words of `text`: lowered, stemmed, stop words left out."""
    for found in _WORD.finditer(text[:MAX_CHARACTERS]):
        word = found[0].lower()
        if word.isascii():
            if 1 < len(word) <= 40 and word not in _STOP and not (word.isdigit() and len(word) < 3):
                root = stem(word)
                if root not in _STOP:
                    yield root
        else:
            yield from _other_scripts(word)


@lru_cache(maxsize=1 << 16)
def stem(word: str) -> str:
    """`word` without the endings that English adds to it ("caches", "caching": "cach")."""
    if len(word) < 4 or not word.isalpha():
        return word
    for ending, shortest, put in _ENDINGS:
        if word.endswith(ending) and len(word) - len(ending) >= shortest:
            word = word[: len(word) - len(ending)] + put
            if ending in ("ing", "ed") and len(word) > 3 and word[-1] == word[-2] not in "lsz":
                word = word[:-1]
            break
    return word[:-1] if word.endswith("e") and len(word) > 3 else word


_ENDINGS = (
    ("sses", 1, "ss"),
    ("shes", 1, "sh"),
    ("ches", 1, "ch"),
    ("xes", 1, "x"),
    ("ies", 2, "y"),
    ("ing", 3, ""),
    ("ied", 2, "y"),
    ("ed", 3, ""),
    ("ss", 1, "ss"),
    ("us", 1, "us"),
    ("is", 1, "is"),
    ("s", 3, ""),
)


def whole_words(stems: Iterable[str], text: str) -> dict[str, str]:
    """For each of `stems` that stands for a word of `text`, that word."""
    wanted = set(stems)
    found: dict[str, str] = {}
    for match in _WORD.finditer(text[:MAX_CHARACTERS]):
        word = match[0].lower()
        if word not in _STOP and (root := stem(word)) in wanted:
            found.setdefault(root, word)
    return found


def refresh(store: Store, progress: Callable[[int, int], None] | None = None) -> int:
    """Brings the index up to date with the threads; returns how many had changed.

    Interrupted at any point, it goes on where it was: each batch is one transaction.
    """
    connection = store.connection
    (total,) = connection.execute("SELECT count(*) FROM stale_terms").fetchone()
    done = 0
    while batch := connection.execute("SELECT number FROM stale_terms LIMIT 500").fetchall():
        with store.transaction():
            for (number,) in batch:
                _refresh_one(store, number)
            connection.executemany("DELETE FROM stale_terms WHERE number = ?", batch)
        done += len(batch)
        if progress:
            progress(done, max(total, done))
    return done


def _refresh_one(store: Store, number: int) -> None:
    store.connection.execute("DELETE FROM terms WHERE rowid = ?", (number,))
    thread = store.issue(number)
    if thread is None or store.is_gone(number):
        return
    found = terms_of_thread(thread, store.comments(number))
    columns = (" ".join(getattr(found, name)) for name in FIELDS)
    store.connection.execute(
        "INSERT INTO terms (rowid, title, errors, frames, symbols, words, talk) "
        "VALUES (?, ?, ?, ?, ?, ?, ?)",
        (number, *columns),
    )


def _first(found: Iterable[str]) -> list[str]:
    kept: dict[str, None] = {}
    for term in found:
        kept[term] = None
        if len(kept) >= MAX_TERMS:
            break
    return list(kept)


def _error_term(error: ErrorMessage) -> str:
    return f"{_term(_last(error.type))}__{'_'.join(words(error.masked))}"[:120]


def _frame_term(frame: Frame) -> str:
    """The place without its line, which moves between versions."""
    place = _term(frame.path.rpartition(".")[0] or frame.path)
    return f"{place}__{_term(_last(frame.function))}"


def _symbol_terms(names: Iterable[str]) -> Iterator[tuple[str, str]]:
    """Each name and its last part, with "-" and "_" as one (an option is an argument)."""
    for name in names:
        whole = _term(name)
        if whole:
            yield whole, name
        last = _term(_last(name.replace("/", ".")))
        if last != whole and len(last) > 2:
            yield last, name


def _last(name: str) -> str:
    return name.rpartition(".")[2]


def _term(text: str) -> str:
    return _NOT_TERM.sub("_", text).strip("_").lower()[:120]


def _other_scripts(word: str) -> Iterator[str]:
    at = 0
    for run in _EAST_ASIAN.finditer(word):
        if rest := word[at : run.start()]:
            yield rest
        at = run.end()
        characters = run[0]
        yield from (characters[i : i + 2] for i in range(max(1, len(characters) - 1)))
    if rest := word[at:]:
        yield rest
