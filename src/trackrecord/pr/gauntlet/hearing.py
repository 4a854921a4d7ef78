"""A thread under judgement: what was said in it, by whom and when, and the doubts that remain.

Invariant: a doubt comes with what would settle it.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from datetime import datetime

from trackrecord.issues.models import Event, Issue, Link, Pull, when
from trackrecord.pr.gauntlet.claims import Claims
from trackrecord.pr.gauntlet.report import Evidence
from trackrecord.pr.gauntlet.thread import Statement, Thread, day

_EDITED = re.compile(r"[\s*_(\[]*(?:edit(?:ed)?|update[ds]?|upd|solved|fixed|更新|编辑)\b", re.I)
"""How a body begins that was edited to say what became of it."""


@dataclass
class Hearing:
    """A thread under judgement, with the hints that no question could use."""

    thread: Thread
    claims: Claims
    doubts: list[Evidence] = field(default_factory=list)
    settle: list[str] = field(default_factory=list)

    @property
    def issue(self) -> Issue:
        return self.thread.issue

    def said(self, *kinds: str) -> list[Statement]:
        """Statements of these kinds; those of the body only where it was edited to say so."""
        return [
            s
            for s in self.thread.statements
            if s.kind in kinds and (s.place != "body" or _EDITED.match(s.act.clause.source))
        ]

    def doubt(self, evidence: Evidence, settle: str) -> None:
        if evidence not in self.doubts:
            self.doubts.append(evidence)
        if settle not in self.settle:
            self.settle.append(settle)


def after(one: Statement, other: Statement) -> bool:
    return one is not other and later(one.at, other.at) and one.comment != other.comment


def later(one: datetime | None, other: datetime | None) -> bool:
    return one is not None and (other is None or one >= other)


def closes(case: Hearing, said: Statement) -> bool:
    """Whether the same comment closes the thread."""
    return any(s.comment == said.comment for s in case.said("closing"))


def is_member(said: Statement) -> bool:
    return said.standing in ("OWNER", "MEMBER", "COLLABORATOR")


def is_strong(link: Link) -> bool:
    return link.is_pull and (link.kind in ("closes", "connected") or link.where == "title")


def last_time(events: list[Event]) -> datetime | None:
    return when(events[-1].created_at) if events else None


def fact(case: Hearing, says: str, event: Event | None = None) -> Evidence:
    return Evidence(
        "",
        says,
        case.issue.url,
        event.actor if event else "",
        day(when(event.created_at)) if event else None,
    )


def pull_evidence(pull: Pull, says: str) -> Evidence:
    return Evidence(
        pull.title, says, pull.url, pull.user, day(when(pull.merged_at) or when(pull.created_at))
    )
