"""Check 1 for a TODO note: has somebody taken it on?

A note has no thread. What can be asked is the issue it names, pull requests that change its file,
and threads that speak of it; without a synced store, nobody can say.
"""

from __future__ import annotations

import re

from trackrecord.issues.models import Pull
from trackrecord.issues.similarity import similar
from trackrecord.pr.gauntlet.case import Case
from trackrecord.pr.gauntlet.claimed import judge
from trackrecord.pr.gauntlet.doubts import SAME_THING
from trackrecord.pr.gauntlet.report import CheckResult, Evidence
from trackrecord.pr.gauntlet.thread import Thread

_NUMBER = re.compile(
    r"(?:(?<![\w/])#|(?P<repo>[\w.-]+/[\w.-]+)/(?:issues|pull)/)(?P<number>\d{2,7})\b"
)
_PERSON = re.compile(r"(?:TODO|FIXME|XXX|HACK)\s*\(@?([A-Za-z][\w-]{1,38})\)")


def check_claimed_note(case: Case) -> CheckResult:
    """Looks for the work behind a note in the store."""
    note = case.note
    assert note is not None
    assert case.store is not None
    store = case.store
    named = [
        int(m["number"])
        for m in _NUMBER.finditer(note.text)
        if (m["repo"] or store.repo).lower() == store.repo.lower()
    ]
    evidence, open_pulls = [], []
    for number in named:
        issue = store.issue(number)
        if issue is None:
            continue
        if isinstance(issue, Pull):
            evidence.append(
                Evidence(issue.title, f"#{number}, which it names, is {issue.state}", issue.url)
            )
            continue
        found = judge(Thread(store, issue, case.now))
        evidence += [
            Evidence(issue.title, f"#{number}, which it names: {found.summary}", issue.url)
        ]
        if found.outcome == "claimed":
            words = f"#{number}, which the note names, is taken: {found.summary}"
            return _result("fail", words, (*evidence, *found.evidence), (), named)
    for pull in store.pulls_changing(note.path):
        if pull.state == "open":
            says = f"open, and changes {note.path}"
            evidence.append(Evidence(pull.title, says, pull.url, pull.user))
            open_pulls.append(pull.number)
    resembling = [entry for entry in similar(store, note.text, 3) if entry.score >= SAME_THING]
    settle = [f"read #{number}: does it take the note on?" for number in open_pulls[:3]]
    settle += [f"read #{entry.number}: is it about this?" for entry in resembling]
    if (person := _PERSON.search(note.text)) is not None:
        evidence.append(
            Evidence(person[0], f"the note names {person[1]}", case.url, line=note.line)
        )
    if settle:
        words = f"somebody may be at it: {settle[0]}"
        return _result("unknown", words, tuple(evidence), tuple(settle), named)
    if store.last_sync is None:
        search = f"https://github.com/{store.repo}/pulls?q=is%3Aopen+{note.path.rpartition('/')[2]}"
        settle = [f"run trackrecord issues sync {store.repo}, or look at {search}"]
        words = "no pull requests are stored, so nobody knows whether one takes it on"
        return _result("unknown", words, tuple(evidence), tuple(settle), named)
    words = "no thread and no open pull request of the store takes it on"
    return _result("pass", words, tuple(evidence), (), named)


def _result(
    verdict: str,
    words: str,
    evidence: tuple[Evidence, ...],
    settle: tuple[str, ...],
    named: list[int],
) -> CheckResult:
    outcome = {"pass": "free", "fail": "claimed", "unknown": "unknown"}[verdict]
    details = {
        "outcome": outcome,
        "names": named,
        "claimants": [],
        "fixed_by": None,
        "duplicate_of": None,
    }
    return CheckResult("claimed", verdict, words, evidence, settle, details)  # type: ignore[arg-type]
