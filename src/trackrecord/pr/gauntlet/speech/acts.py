"""What one comment does: each act with the clause that shows it.

The reading is by clause. Where two readings of a clause compete, what comes later in it counts ("I
was on it, but have no time"), a negation takes back what it governs, and a question states nothing.
What stays ambiguous is an act of its own (`leaning`, `related`), never dropped: the claimed check
must be able to say that it does not know.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Literal

from trackrecord.pr.gauntlet.speech.clauses import Clause, KindOf, clauses, without_greeting
from trackrecord.pr.gauntlet.speech.lexicon import Lexicon, Rule, lexicon

ActKind = Literal[
    "claim",  # takes the work, or asks for it
    "offer",  # would, and waits for an answer
    "leaning",  # may mean work: looks into it, tries, plans
    "withdrawal",  # gives it up
    "release",  # leaves it to others
    "named",  # says that someone else is at it
    "handover",  # gives it to someone
    "acceptance",  # says yes to an offer
    "invitation",  # asks someone to do it
    "yes",  # agrees to do it
    "asked",  # asks somebody how their work goes
    "inquiry",  # asks anything else
    "pull",  # names the pull request that may be the change
    "related",  # names a thread, and it is open what for
    "culprit",  # names the thread that broke it
    "failed",  # names a pull request that did not help
    "abandoned",  # names a pull request that is dead
    "fixed",
    "unfixed",
    "own-remedy",
    "duplicate",
    "duplicate-of-this",  # says that the thread it names is a duplicate of this one
    "duplicate-of-named",  # says that the one that somebody named before is the same
    "distinct",  # says that it is not one
    "closing",
    "ended",
]


@dataclass(frozen=True, slots=True)
class Act:
    """One act.

    Attributes:
        threads: numbers it is about: what fixes, what it duplicates, what is claimed instead of
            this thread. Empty where it is about the thread itself.
        pulls: pull requests it names as the change for this issue.
        versions: versions it names, as written, without "v".
        who: login, lower case, of the person that a `named` or `handover` is about.
        hedged: whether the speaker is unsure.
        note: what it says, in words.
    """

    kind: ActKind
    clause: Clause
    threads: tuple[int, ...] = ()
    pulls: tuple[int, ...] = ()
    versions: tuple[str, ...] = ()
    who: str = ""
    hedged: bool = False
    note: str = ""


_THREAD = re.compile(r"(pull|issue|ref)_(\d+) ")
_VERSION = re.compile(r"version_(\S+) ")
_PERSON = re.compile(r"user_(\S+) ")
_ELSEWHERE = re.compile(
    r"(?:on|for|to|with|in|under|fix|fixing|solve|implement|tackle|take|address|at) "
    r"(?:the )?(?:issue|ref)_(\d+) "
)
_HEDGE = re.compile(
    r"\b(?:should|ought to|might|may|could|probably|likely|seems?|appears?|perhaps|maybe|hopefully|"
    r"think|believe|guess|suspect|possibly|presumably|looks like|not sure|assume|expect|apparently|"
    r"sounds like|wonder|similar|related|可能|应该|好像|似乎|也许|かも|아마) "
    r"|可能|应该|好像|似乎|也许|类似"
)


def read_acts(
    text: str,
    repo: str = "",
    is_pull: KindOf = lambda number: None,
    lexicon_: Lexicon | None = None,
) -> list[Act]:
    """The acts of one comment or body, in the order in which it performs them.

    Args:
        repo: "owner/name" of the thread.
        is_pull: what kind of thread a bare `#12` is.
    """
    known = lexicon_ or lexicon()
    said = clauses(text, repo, is_pull)
    acts = [act for clause in said for act in _of_clause(clause, known)]
    return _in_context(acts, said, known)


def _of_clause(clause: Clause, known: Lexicon) -> list[Act]:
    text = without_greeting(clause.text) or clause.text
    work = _about_work(clause, text, known)
    outcome = _about_outcome(clause, text, known)
    settled = any(act.threads for act in [*work, *outcome] if act.kind != "unfixed")
    threads = [] if settled else _about_threads(clause, text, known)
    acts = [*work, *_about_others(clause, text, known), *outcome, *threads]
    if not any(act.kind in _TELLING for act in acts) and _may_mean_work(clause, text, known):
        acts.append(Act("leaning", clause, note="may mean to work on it"))
    return acts


_TELLING = frozenset(
    "claim offer leaning withdrawal named handover release invitation inquiry asked fixed "
    "unfixed own-remedy duplicate duplicate-of-this duplicate-of-named distinct closing ended "
    "culprit failed abandoned".split()
)
"""Acts that leave no doubt what a clause is about."""


def _may_mean_work(clause: Clause, text: str, known: Lexicon) -> bool:
    """Whether somebody speaks of what they do, and it is none of the things that people report.

    Words for taking work on have no end. So this is decided the other way round: what a person says
    of themselves, and of what is to come or to change, counts as a hint unless it is running,
    seeing, needing, asking or the like.
    """
    if known.find("reports", clause.text):
        return False
    if known.find("elliptical", text):
        return True
    return bool(known.find("self", text) and known.find("prospect", text))


# Who does the work.


def _about_work(clause: Clause, text: str, known: Lexicon) -> list[Act]:
    claim, gives_up = known.find("claim", text), known.find("withdrawal", text)
    if gives_up and not (claim and claim[1].start() > gives_up[1].start()):
        return [Act("withdrawal", clause, note=gives_up[0].note)]
    if claim and not (clause.question and claim[1][0].startswith("will ")):
        return [_claim(clause, text, *claim, known)]
    if found := known.find("offer", text):
        return [Act("offer", clause, note=found[0].note)]
    if (leans := known.find("leaning", text)) and not any(
        known.find(kind, text) for kind in ("how-to", "release", "invitation", "acceptance")
    ):
        return [Act("leaning", clause, note=leans[0].note)]
    return []


def _claim(clause: Clause, text: str, rule: Rule, found: re.Match[str], known: Lexicon) -> Act:
    """A claim, or what its condition makes of it."""
    language = rule.language
    how_to = known.find("how-to", text, language)
    if (how_to and how_to[1].start() <= found.start()) or _DOUBT.search(text[: found.start()]):
        return Act("leaning", clause, note="speaks of doing it")
    elsewhere = _ELSEWHERE.search(text, found.start())
    threads = (int(elsewhere[1]),) if elsewhere else ()
    pulls = tuple(n for n in _not_issues(text) if n not in threads)
    if not known.find("absence", text, language):
        if known.find("own-condition", text, language):
            return Act("leaning", clause, threads, note="would, if they can")
        if known.find("condition", text, language):
            return Act("offer", clause, threads, note="would, on a condition")
    if clause.ticked:
        return Act("offer", clause, threads, note="ticked that they are willing")
    return Act("claim", clause, threads, pulls, note=rule.note)


_DOUBT = re.compile(r"\b(?<!if )(?:not|never|nor|neither|doubt|unlikely)(?: [^ ,]+){0,4} $")
"""A claim that what stands before it denies ("I do not think that ...")."""


def _about_others(clause: Clause, text: str, known: Lexicon) -> list[Act]:
    acts: list[Act] = []
    whole = clause.text
    addressed = _ADDRESS.match(whole)
    answer = whole[addressed.end() :] if addressed else whole
    if not clause.question and (found := known.find("named", whole)):
        person = _PERSON.search(whole, found[1].start(), found[1].end())
        who = person[1] if person else ""
        acts.append(Act("named", clause, (), _pulls(whole), who=who, note=found[0].note))
    if not clause.question and (found := known.find("handover", whole)):
        person = _PERSON.search(whole)
        acts.append(Act("handover", clause, who=person[1] if person else "", note=found[0].note))
    for kind in ("release", "invitation", "acceptance", "yes"):
        # `text` lacks a greeting that may be the whole of an answer.
        if found := known.find(kind, answer if kind in ("acceptance", "yes") else text):
            acts += [Act(kind, clause, note=found[0].note)]
    if found := known.find("asked", text):
        acts.append(Act("asked", clause, note=found[0].note))
    elif clause.question or known.find("inquiry", text):
        acts.append(Act("inquiry", clause, note="asks"))
    return acts


_ADDRESS = re.compile(r"(?:(?:user_\S+|hi|hello|hey|,) )+")


# What became of it.


def _about_outcome(clause: Clause, text: str, known: Lexicon) -> list[Act]:
    acts: list[Act] = []
    hedged = bool(_HEDGE.search(text)) or clause.question
    if found := known.find("closing", text):
        acts.append(Act("closing", clause, note=found[0].note))
    if found := known.find("ended", text):
        acts.append(Act("ended", clause, note=found[0].note))
    if (act := _duplicate(clause, text, hedged, known)) is not None:
        return [*acts, act]
    if found := known.find("duplicate-of-named", text):
        return [*acts, Act("duplicate-of-named", clause, note=found[0].note)]
    unfixed = known.find("unfixed", text) or known.find("failed", text)
    fixed = known.find("fixed", text)
    if unfixed and not (fixed and fixed[1].start() >= unfixed[1].end()):
        kind: ActKind = "failed" if known.find("failed", text) else "unfixed"
        named = _threads(text), (), _versions(text)
        return [*acts, Act(kind, clause, *named, note=unfixed[0].note)]
    remedy = known.find("own-remedy", text)
    if remedy and not _threads(text):
        return [*acts, Act("own-remedy", clause, note=remedy[0].note)]
    if fixed and not known.find("culprit", text):
        if clause.question:
            return [*acts, *([Act("related", clause, _threads(text))] if _threads(text) else [])]
        # "It works" may be said of advice; with a version, a thread or "fixed" it is said of code.
        sure = _threads(text) or _versions(text) or _DONE.search(text)
        named = _threads(text), (), _versions(text)
        return [*acts, Act("fixed", clause, *named, hedged=hedged or not sure, note=fixed[0].note)]
    return acts


_DONE = re.compile(
    r"\b(?:fixed|resolved|implemented|merged|supported|landed|released|addressed|latest|main|master|"
    r"nightly|upgrad\w*|updat\w*|newest|reproduce|available|completed?|shipped|added) "
    r"|[\u3040-\u30ff\u4e00-\u9fff\uac00-\ud7af\u0400-\u04ff]"
)


def _duplicate(clause: Clause, text: str, hedged: bool, known: Lexicon) -> Act | None:
    distinct = known.find("distinct", text)
    if found := known.find("duplicate-of-this", text):
        if not distinct and _issues(text):
            return Act("duplicate-of-this", clause, _issues(text), hedged=hedged)
        return None
    found, fixed = known.find("duplicate", text), known.find("fixed", text)
    if found and fixed and found[1].start() < fixed[1].start() < found[1].end():
        return (
            None  # "thanks for the report, fixed in #5": the word nearest to the number governs it
        )
    if not found or not _threads(text):
        return Act("distinct", clause, _threads(text)) if distinct else None
    if distinct and distinct[1].start() <= found[1].end():
        return Act("distinct", clause, _threads(text), note="says that it is another matter")
    named = _issues(found[1][0]) or _issues(text)
    if named:
        return Act("duplicate", clause, named, hedged=hedged, note=found[0].note)
    return Act(
        "pull", clause, (), _pulls(text), hedged=hedged, note="names the pull request for it"
    )


# Threads that are named for other reasons.


def _about_threads(clause: Clause, text: str, known: Lexicon) -> list[Act]:
    threads = _threads(text)
    if not threads:
        return []
    for kind in ("culprit", "abandoned"):
        if found := known.find(kind, text):
            return [Act(kind, clause, threads, note=found[0].note)]
    related = known.find("related", text)
    if related and not clause.is_bare_reference:
        return [Act("related", clause, threads, note=related[0].note)]
    names, points = known.find("names-change", text), known.find("points", text)
    if names:  # whatever "#12" is: only a pull request fixes, and can be tried
        candidates = _not_issues(text)
    else:
        candidates = _pulls(text) if points or clause.is_bare_reference else ()
    if candidates:
        note = (names or points or (None,))[0]
        says = note.note if note else "links a pull request"
        return [Act("pull", clause, (), candidates, hedged=True, note=says)]
    return [Act("related", clause, threads, hedged=True, note="names a thread")]


def _in_context(acts: list[Act], said: list[Clause], known: Lexicon) -> list[Act]:
    """The acts of a comment in the light of each other."""
    newcomer = any(known.find("newcomer", clause.text) for clause in said)
    read: list[Act] = []
    for act in acts:
        if act.kind == "leaning" and newcomer and _is_attempt(act.clause.text):
            act = Act("claim", act.clause, act.threads, note="a newcomer wants to try it")
        read.append(act)
    return read


_ATTEMPT = re.compile(r"\b(?:a (?:try|go|shot|crack|stab|whirl)|interested in|interests me|try) ")


def _is_attempt(text: str) -> bool:
    return bool(_ATTEMPT.search(text))


def _named(text: str) -> list[tuple[str, int]]:
    return [(found[1], int(found[2])) for found in _THREAD.finditer(text)]


def _threads(text: str) -> tuple[int, ...]:
    return tuple(dict.fromkeys(number for _, number in _named(text)))


def _issues(text: str) -> tuple[int, ...]:
    return tuple(dict.fromkeys(number for kind, number in _named(text) if kind != "pull"))


def _not_issues(text: str) -> tuple[int, ...]:
    return tuple(dict.fromkeys(number for kind, number in _named(text) if kind != "issue"))


def _pulls(text: str) -> tuple[int, ...]:
    return tuple(dict.fromkeys(number for kind, number in _named(text) if kind == "pull"))


def _versions(text: str) -> tuple[str, ...]:
    return tuple(dict.fromkeys(found[1] for found in _VERSION.finditer(text)))
