"""What could be worked on, ranked by what the store alone can tell, each with its reasons.

Cheap signs first: state, assignee, labels and linked pull requests of every open issue; only the
best of them are read for what they report. Nothing here proves that an issue is free: the gauntlet
does. What it finds is handed in as a `Judge`, and outranks every sign.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime

from trackrecord.issues.models import Issue, Link, Note, when
from trackrecord.issues.store import Store
from trackrecord.issues.text import Signals, extract

READ_IN_FULL = 150
"""Issues whose text is read, at the least; the rest is ranked by its outside."""

LABEL_POINTS = {
    "good first issue": 3.0,
    "help wanted": 2.0,
    "bug": 1.0,
    "performance": 0.5,
    "stale": -1.5,
    "usage": -2.0,
    "question": -2.0,
    "installation": -1.5,
    "new model": -2.0,
    "new-model": -2.0,
    "rfc": -2.5,
    "roadmap": -3.0,
    "misc": -1.0,
}
UNAVAILABLE_LABELS = frozenset({"duplicate", "wontfix", "invalid", "won't fix"})


@dataclass(frozen=True, slots=True)
class Judgement:
    """What the gauntlet says of an issue.

    Attributes:
        disqualified: whether it is out.
        points: added to the score.
        reason: in one line.
    """

    disqualified: bool
    points: float
    reason: str


Judge = Callable[[Issue], Judgement | None]
"""Judges one issue; None if it cannot."""


@dataclass(slots=True)
class Candidate:
    """Something that could be worked on.

    Attributes:
        name: "#123" for an issue, "T4" for a TODO note of the tree.
        reasons: what speaks for it, and `against` what does not, the weightiest first.
    """

    name: str
    title: str
    url: str
    score: float = 0.0
    reasons: list[str] = field(default_factory=list)
    against: list[str] = field(default_factory=list)

    def count(self, points: float, reason: str) -> None:
        """Adds a sign to the score, with its reason."""
        self.score = round(self.score + points, 2)
        (self.reasons if points > 0 else self.against).append(reason)


def candidates(
    store: Store,
    limit: int = 20,
    *,
    now: datetime | None = None,
    gpus: int | None = None,
    judge: Judge | None = None,
) -> list[Candidate]:
    """The best candidates, issues and TODO notes together.

    Args:
        now: what "fresh" is measured from.
        gpus: how many accelerators the person has; None if that is not known.
        judge: asked for the issues that rank best, until `limit` of them pass.
    """
    moment = now or datetime.now(UTC)
    outside = [
        (candidate, issue)
        for issue in store.all_issues("open")
        if (candidate := _from_outside(store, issue, moment)) is not None
    ]
    outside.sort(key=lambda pair: (-pair[0].score, -pair[1].number))
    read = outside[: max(READ_IN_FULL, 2 * limit)]
    for candidate, issue in read:
        _from_inside(candidate, extract(f"{issue.title}\n\n{issue.body}"), issue, gpus)
    read.sort(key=lambda pair: (-pair[0].score, -pair[1].number))
    found = list(_judged(read, limit, judge))
    found += [_from_note(store, note) for note in store.notes()]
    return sorted(found, key=lambda each: -each.score)[:limit]


def _judged(
    ranked: list[tuple[Candidate, Issue]], limit: int, judge: Judge | None
) -> Iterator[Candidate]:
    passed = 0
    for candidate, issue in ranked:
        if passed == limit:
            return
        judgement = judge(issue) if judge else None
        if judgement and judgement.disqualified:
            continue
        if judgement:
            candidate.count(judgement.points, judgement.reason)
        passed += 1
        yield candidate


def _from_outside(store: Store, issue: Issue, now: datetime) -> Candidate | None:
    """What state, labels, links and dates say; None if they take the issue out."""
    labels = {label.lower() for label in issue.labels}
    if issue.assignees or labels & UNAVAILABLE_LABELS:
        return None
    candidate = Candidate(f"#{issue.number}", issue.title, issue.url)
    for label in sorted(labels & LABEL_POINTS.keys(), key=lambda name: -LABEL_POINTS[name]):
        candidate.count(LABEL_POINTS[label], f"label {label!r}")
    if not _count_pulls(store, candidate, store.pulls_mentioning(issue.number)):
        return None
    _count_age(candidate, issue, now)
    if not issue.body.strip():
        candidate.count(-2.0, "says nothing beyond its title")
    return candidate


def _count_pulls(store: Store, candidate: Candidate, links: list[Link]) -> bool:
    """Counts the pull requests that name the issue; False if one of them takes it."""
    tried = 0
    for number in dict.fromkeys(link.number for link in links):
        pull = store.pull(number)
        closes = any(k.kind in ("closes", "connected") for k in links if k.number == number)
        if closes and (pull is None or pull.state == "open" or pull.merged is not False):
            return False
        if pull is None or pull.state == "open":
            candidate.count(-1.0, f"open pull request #{number} mentions it")
        elif closes:
            tried += 1
    if tried:
        candidate.count(-0.5, f"{tried} pull request(s) for it were closed without merging")
    elif not links:
        candidate.count(1.0, "no pull request names it")
    return True


def _count_age(candidate: Candidate, issue: Issue, now: datetime) -> None:
    changed = when(issue.updated_at or issue.created_at)
    if changed is None:
        return
    days = (now - changed).days
    if days <= 30:
        candidate.count(1.0, f"active {max(days, 0)} days ago")
    elif days > 365:
        candidate.count(-1.0, f"quiet for {days} days")


def _from_inside(candidate: Candidate, read: Signals, issue: Issue, gpus: int | None) -> None:
    """What the report itself shows."""
    own = [block for block in read.code_blocks if not block.quoted]
    if any(block.kind in ("code", "shell") for block in own):
        candidate.count(1.5, "brings code or a command to reproduce it")
    if read.frames:
        candidate.count(1.0, f"stack trace down to {read.frames[-1].path}")
    if read.error_messages:
        last = read.error_messages[-1]
        candidate.count(0.5, f"error message: {last.type}: {last.text}"[:160].rstrip(": "))
    errors = ("Error", "Exception")
    named = [*(r.path for r in read.paths), *(s for s in read.symbols if not s.endswith(errors))]
    if named:
        candidate.count(0.5, f"names code: {', '.join(named[:3])}")
    needed = read.hardware.gpus_needed or 1
    if needed > (1 if gpus is None else max(gpus, 1)):
        candidate.count(-2.0, f"runs on {needed} accelerators")
    elif read.hardware.devices and gpus == 0:
        candidate.count(-0.5, f"seen on {read.hardware.devices[0].name}")


def _from_note(store: Store, note: Note) -> Candidate:
    title = " ".join(note.text.split())
    candidate = Candidate(f"T{note.number}", title, f"{note.path}:{note.line}")
    candidate.count(note.score, f"waits for: {note.evidence}")
    waited = _waited_for(store, note)
    if waited and waited.state == "closed":
        candidate.count(1.5, f"#{waited.number}, which it waits for, is closed")
    elif waited:
        candidate.count(-1.0, f"#{waited.number}, which it waits for, is open")
    return candidate


def _waited_for(store: Store, note: Note) -> Issue | None:
    digits = "".join(c if c.isdigit() else " " for c in note.evidence).split()
    return store.issue(int(digits[-1])) if note.cause == "issue" and digits else None
