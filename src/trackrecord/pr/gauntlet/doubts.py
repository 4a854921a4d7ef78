"""What leaves it open whether an issue is free: hints that decide no question of the claimed check.

An open issue with a doubt is `unknown`. A doubt falls where its author took it back, or where
somebody said that what it names is another matter.
"""

from __future__ import annotations

import re

from trackrecord.issues.models import Issue, Link, Pull
from trackrecord.issues.similarity import Similar
from trackrecord.pr.gauntlet.hearing import Hearing, after, fact, later, pull_evidence
from trackrecord.pr.gauntlet.report import Evidence
from trackrecord.pr.gauntlet.thread import Statement

SAME_THING = 0.8
"""Score from which an open pull request looks like a fix of the same thing."""


def add_doubts(case: Hearing, similar: tuple[Similar, ...]) -> None:
    for said in case.claims.offers.values():
        case.doubt(said.evidence(), f"ask {said.author} whether the offer became work")
    for said in case.claims.unanswered:
        case.doubt(said.evidence("answers a claim that is not recorded"), "sync the whole thread")
    for said in case.thread.statements:
        _doubt_statement(case, said)
    _doubt_links(case)
    title = case.issue.title.lower()
    labels = {label.lower() for label in case.issue.labels}
    if "rfc" in labels or title.startswith(("[rfc", "rfc")):
        case.doubt(fact(case, "an RFC"), "ask the author who will build it")
    if _is_tracker(case.issue):
        case.doubt(fact(case, "tracks several tasks"), "pick one task and ask for it by name")
    for entry in similar:
        pull = case.thread.pull(entry.number)
        if pull and pull.state == "open" and entry.score >= SAME_THING:
            evidence = pull_evidence(pull, "open, and looks like a fix of the same thing")
            case.doubt(evidence, f"read #{pull.number}")


def _doubt_statement(case: Hearing, said: Statement) -> None:
    if _is_taken_back(case, said):
        return
    if said.kind == "leaning" and said.place != "body":
        case.doubt(said.evidence(), f"ask {said.author or 'them'} whether they are at it")
    elif said.kind == "pull" and said.place == "body":
        case.doubt(said.evidence(), "read that pull request")
    elif said.kind == "related" and said.place == "comment" and _is_unclear(case, said):
        number = said.act.threads[0]
        case.doubt(said.evidence(), f"read #{number}: a fix, the same issue, or only related?")


def _is_taken_back(case: Hearing, said: Statement) -> bool:
    """Whether the author gave up since, or somebody said that what is named is another matter."""
    gone = case.claims.withdrawals.get(said.author)
    if gone and (gone.comment == said.comment or later(gone.at, said.at)):
        return True
    return said.kind in ("related", "pull") and any(
        s.kind == "distinct"
        and (not s.act.threads or set(s.act.threads) & set(said.act.threads))
        and after(s, said)
        for s in case.thread.statements
    )


def _is_unclear(case: Hearing, said: Statement) -> bool:
    """Whether a named thread may be a fix, or is named in words that are not understood.

    An address without a word, or one that is called related, says no more than that.
    """
    clause = said.act.clause
    if any(f"issue_{number} " not in clause.text for number in said.act.threads):
        return any(case.thread.is_pull(number) is not False for number in said.act.threads)
    return said.act.hedged and not clause.is_bare_reference


def _doubt_links(case: Hearing) -> None:
    for link in case.thread.links:
        pull = case.thread.pull(link.number)
        if not link.is_pull or (pull and pull.state == "closed" and not pull.merged):
            continue
        says = (
            "a merged pull request mentions it"
            if pull and pull.merged
            else "a pull request mentions it"
        )
        case.doubt(
            _link_evidence(case, link, pull, says), f"read #{link.number}: does it cover this?"
        )


def _is_tracker(issue: Issue) -> bool:
    title = issue.title.lower()
    named = re.search(
        r"\b(?:tracker|tracking|umbrella|roadmap|meta|epic|checklist|q[1-4] 20\d\d)\b", title
    )
    return (
        bool(named)
        or len(re.findall(r"^\s*[-*] \[[ xX]\] .*(?:#\d+|/(?:issues|pull)/\d+)", issue.body, re.M))
        >= 3
    )


def _link_evidence(case: Hearing, link: Link, pull: Pull | None, says: str) -> Evidence:
    if pull is None:
        return Evidence(f"#{link.number}", says)
    return pull_evidence(pull, says)
