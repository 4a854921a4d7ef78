"""Which stored threads resemble a thread or a text, and by what.

Two steps. The index (SQLite's FTS5) finds candidates by the query's rarest terms, and only by so
many that the postings read stay bounded, however large the store. Those candidates are then
compared term by term: a shared error message or stack frame counts more than a shared word, a rare
term more than a common one. The score is the share of the query's evidence that a thread shows.

Source of the term weights: Robertson and Zaragoza, "The Probabilistic Relevance Framework: BM25 and
Beyond" (2009), with the length normalisation of its eq. 3.15; the terms are sets, so the term
frequency part is constant.
"""

from __future__ import annotations

import heapq
import json
import math
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Literal

from trackrecord.issues.errors import IssuesError
from trackrecord.issues.store import Store
from trackrecord.issues.terms import (
    FIELDS,
    Terms,
    refresh,
    terms_of_text,
    terms_of_thread,
    whole_words,
)

WEIGHTS = {"title": 2.0, "errors": 3.0, "frames": 2.5, "symbols": 2.0, "words": 1.0, "talk": 0.5}
"""How much a term counts by where it stands."""

MAX_QUERY_TERMS = 160
MAX_SEARCHED_TERMS = 40
MAX_POSTINGS = 25_000
"""Threads of all searched terms together; with the next three, what bounds the time of a query."""
COMMON_SHARE = 0.04
ALWAYS_COUNTED = 2_000
FEW_TERMS = 8
CANDIDATES = 100
LENGTH_SHARE = 0.35
"""How much of a score depends on the length of the thread (b of BM25)."""
AVERAGE_TERMS = 120
"""Length of an average thread, in terms; fixed, so that a score does not move with the store."""
MIN_EVIDENCE = 15.0
"""Some three rare words: a query that says less cannot be shown in full by anything."""
MIN_SCORE = 0.005
MAX_SHARED = 8
NAMED_BONUS = 0.1
"""Added where one thread names the other."""

Kind = Literal["issue", "pull"]


@dataclass(frozen=True, slots=True)
class Similar:
    """A thread that resembles the query.

    Attributes:
        score: share of the query's evidence that it shows, in [0, 1]; what no other thread has
            at all does not count as evidence.
        shared: what they have in common, the strongest first: error messages, frames, names of
            code, words.
    """

    number: int
    score: float
    shared: list[str]


def similar(
    store: Store,
    query: int | str,
    k: int = 5,
    *,
    kind: Kind | None = None,
    links: bool = True,
) -> list[Similar]:
    """The `k` stored threads that resemble `query` most, the best first.

    Args:
        query: a thread's number, or free text.
        kind: only issues or only pull requests; None for both.
        links: whether it counts that one thread names the other (for a number only).

    Raises:
        IssuesError: there is no thread of that number.
    """
    refresh(store)
    if isinstance(query, str):
        terms = terms_of_text(query)
        found = _ranked(store, _weights(terms), k, kind, exclude=None, named={})
        return _in_words(found, terms, query)
    thread = store.issue(query)
    if thread is None:
        raise IssuesError(f"#{query} is not in the store of {store.repo}: sync or import it first")
    comments = store.comments(query)
    named = _named(store, query) if links else {}
    terms = terms_of_thread(thread, comments)
    found = _ranked(store, _weights(terms), k, kind, exclude=query, named=named)
    said = "\n".join((thread.title, thread.body, *(c.body for c in comments)))
    return _in_words(found, terms, said)


def search(store: Store, text: str, k: int = 20, *, kind: Kind | None = None) -> list[Similar]:
    """The `k` threads that have most of the words of `text`, the rare ones counting more."""
    return similar(store, text, k, kind=kind)


def _in_words(found: list[Similar], terms: Terms, text: str) -> list[Similar]:
    """The same, with what is shared as the query `text` says it rather than as terms."""
    known = whole_words((term for each in found for term in each.shared), text) | terms.shown
    return [
        replace(each, shared=_distinct(known.get(term, term) for term in each.shared))
        for each in found
    ]


def _distinct(shared: Iterable[str]) -> list[str]:
    """`shared` without what an earlier entry contains ("prefix" in `enable_prefix_caching`)."""
    kept: list[str] = []
    for entry in shared:
        if not any(entry in earlier for earlier in kept):
            kept.append(entry)
    return kept[:MAX_SHARED]


def _weights(terms: Terms) -> dict[str, float]:
    """Each term of the query with the weight of the strongest field it stands in."""
    weights: dict[str, float] = {}
    for name in FIELDS:
        for term in getattr(terms, name):
            weights[term] = max(weights.get(term, 0.0), WEIGHTS[name])
    strongest = sorted(weights, key=lambda term: -weights[term])[:MAX_QUERY_TERMS]
    return {term: weights[term] for term in strongest}


def _ranked(
    store: Store,
    query: Mapping[str, float],
    k: int,
    kind: Kind | None,
    exclude: int | None,
    named: Mapping[int, str],
) -> list[Similar]:
    idf = _idf(store, query, exclude is not None)
    numbers = {*_candidates(store, query, idf, kind, exclude), *_of_kind(store, named, kind)}
    found = [
        _compared(number, terms, length, query, idf, named.get(number))
        for number, terms, length in _shared_terms(store, numbers, idf)
    ]
    best = sorted(found, key=lambda each: (-each.score, each.number))
    return [each for each in best[:k] if each.score >= MIN_SCORE]


def _named(store: Store, number: int) -> dict[int, str]:
    """The threads that `number` names or that name it, with the words for it."""
    there = {link.number: f"named by #{link.number}" for link in store.links_to(number)}
    here = {link.target: f"names #{link.target}" for link in store.links_from(number)}
    return there | here


def _idf(store: Store, query: Iterable[str], own: bool) -> dict[str, float]:
    """The rarity of each query term that some other thread has as well.

    Terms of more than `COMMON_SHARE` of a large store are left out: they tell nothing, and counting
    them is what would cost. Only a query that has little else keeps some.
    """
    (total,) = store.connection.execute("SELECT count(*) FROM threads").fetchone()
    common = max(ALWAYS_COUNTED, int(total * COMMON_SHARE))
    counts = {term: _documents(store, term, common) for term in query}
    rare = {term: count for term, count in counts.items() if count < common}
    frequent = [term for term in counts if term not in rare]
    for term in frequent[: max(0, FEW_TERMS - len(rare))]:
        exact = "SELECT doc FROM vocabulary WHERE term = ?"
        (rare[term],) = store.connection.execute(exact, (term,)).fetchone()
    return {
        term: math.log(1 + (total - count + own + 0.5) / (count - own + 0.5))
        for term, count in rare.items()
        if count > own
    }


def _documents(store: Store, term: str, enough: int) -> int:
    """How many threads have `term`, counted up to `enough`."""
    query = "SELECT count(*) FROM (SELECT 1 FROM terms WHERE terms MATCH ? LIMIT ?)"
    return int(store.connection.execute(query, (f'"{term}"', enough)).fetchone()[0])


def _candidates(
    store: Store,
    query: Mapping[str, float],
    idf: Mapping[str, float],
    kind: Kind | None,
    exclude: int | None,
) -> list[int]:
    """The threads with most of the query's rarest terms, at most `CANDIDATES`."""
    found: dict[int, float] = {}
    postings = 0
    by_worth = sorted(idf, key=lambda term: -idf[term] * query[term])
    for term in by_worth[:MAX_SEARCHED_TERMS]:
        rows = store.connection.execute(
            "SELECT rowid FROM terms WHERE terms MATCH ? LIMIT ?", (f'"{term}"', MAX_POSTINGS)
        ).fetchall()
        worth = idf[term] * query[term]
        for (number,) in rows:
            found[number] = found.get(number, 0.0) + worth
        postings += len(rows)
        if postings >= MAX_POSTINGS:
            break
    found.pop(exclude or 0, None)
    best = heapq.nlargest(CANDIDATES * (8 if kind else 1), found, key=found.__getitem__)
    return _of_kind(store, best, kind)[:CANDIDATES]


def _of_kind(store: Store, numbers: Iterable[int], kind: Kind | None) -> list[int]:
    """Those of `numbers` that are stored and of `kind`, in the same order."""
    wanted = list(numbers)
    rows = store.connection.execute(
        "SELECT number, is_pull FROM threads JOIN json_each(?) ON number = value",
        (json.dumps(wanted),),
    )
    kept = {number for number, is_pull in rows if kind in (None, "pull" if is_pull else "issue")}
    return [number for number in wanted if number in kept]


def _shared_terms(
    store: Store, numbers: Iterable[int], wanted: Mapping[str, float]
) -> Iterator[tuple[int, dict[str, float], int]]:
    """Each thread with the weight of each of its terms that is `wanted`, and its count of terms."""
    rows = store.connection.execute(
        f"SELECT rowid, {', '.join(FIELDS)} FROM terms "  # noqa: S608
        "WHERE rowid IN (SELECT value FROM json_each(?))",
        (json.dumps(list(numbers)),),
    )
    for number, *columns in rows:
        weights: dict[str, float] = {}
        length = 0
        for name, column in zip(FIELDS, columns, strict=True):
            terms = column.split()
            length += len(terms)
            for term in terms:
                if term in wanted and WEIGHTS[name] > weights.get(term, 0.0):
                    weights[term] = WEIGHTS[name]
        yield number, weights, length


def _compared(
    number: int,
    thread: Mapping[str, float],
    length: int,
    query: Mapping[str, float],
    idf: Mapping[str, float],
    named: str | None,
) -> Similar:
    """How much of the query's evidence `thread` shows, and which.

    Args:
        thread: the terms of the query that it has.
        length: how many terms it has in all.
        named: how one names the other, None if neither does.
    """
    common = {
        term: idf[term] * min(query[term], math.sqrt(query[term] * weight))
        for term, weight in thread.items()
    }
    total = max(MIN_EVIDENCE, sum(idf[term] * query[term] for term in idf))
    norm = 1 - LENGTH_SHARE + LENGTH_SHARE * max(1.0, length / AVERAGE_TERMS)
    score = sum(common.values()) / total / norm
    strongest = heapq.nlargest(2 * MAX_SHARED, common, key=common.__getitem__)
    shared = [*([named] if named else []), *strongest]
    return Similar(number, round(min(1.0, score + NAMED_BONUS * bool(named)), 4), shared)
