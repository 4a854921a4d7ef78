"""A thread as the claimed check sees it: who did what, when, and what the record itself says.

Only people count. Programs are left out, except that the stale bot's label tells how a thread
ended. Statements made elsewhere about this thread ("I will do the work on #12 instead") are brought
in.

Invariant: `statements` is in the order of the thread; a statement without a date has that of the
one before it, so that time never runs backwards.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from functools import cached_property
from typing import Literal

from trackrecord.issues.models import Comment, Event, Issue, Link, Pull, when
from trackrecord.issues.people import is_bot
from trackrecord.issues.store import Store
from trackrecord.pr.gauntlet.report import Evidence
from trackrecord.pr.gauntlet.speech.acts import Act, read_acts

PullState = Literal["open", "draft", "merged", "closed", "unknown"]
MAX_ELSEWHERE = 40
"""Other threads that are read for what they say of this one."""


@dataclass(frozen=True, slots=True)
class Statement:
    """One act of one person.

    Attributes:
        author: login, lower case.
        at: None only where nothing in the thread has a date.
        place: "body", "comment", or "elsewhere" for another thread's comment.
        comment: which comment it is part of; acts of one comment share it.
        standing: GitHub's `author_association`, None where not recorded.
    """

    act: Act
    author: str
    at: datetime | None
    place: Literal["body", "comment", "elsewhere"]
    comment: str
    url: str
    standing: str | None = None

    @property
    def kind(self) -> str:
        return self.act.kind

    def evidence(self, says: str = "") -> Evidence:
        return Evidence(
            text=self.act.clause.source,
            says=says or self.act.note,
            url=self.url,
            author=self.author,
            date=day(self.at),
            line=self.act.clause.line,
        )


@dataclass(frozen=True)
class Thread:
    """An issue with everything the store has about it, as of `now`."""

    store: Store
    issue: Issue
    now: datetime

    @cached_property
    def comments(self) -> list[Comment]:
        return self.store.comments(self.issue.number)

    @cached_property
    def events(self) -> list[Event]:
        return self.store.timeline(self.issue.number)

    @cached_property
    def links(self) -> list[Link]:
        return self.store.links_to(self.issue.number)

    @cached_property
    def statements(self) -> list[Statement]:
        """What people did in this thread, and elsewhere about it."""
        found = [*_dated(self._here()), *self._elsewhere()]
        return sorted(found, key=lambda s: (s.at is None, s.at or self.now, s.place == "elsewhere"))

    @property
    def is_closed(self) -> bool:
        return self.issue.state == "closed"

    @property
    def ended_stale(self) -> bool:
        """Closed for silence: by the bot, or with its label and for no better reason."""
        return self.is_closed and "stale" in {label.lower() for label in self.issue.labels}

    @cached_property
    def closed_at(self) -> datetime | None:
        """When it was closed; where that is not recorded, the last sign of life before."""
        if (at := when(self.issue.closed_at)) is not None:
            return at
        closings = [when(event.created_at) for event in self.events if event.kind == "closed"]
        return next((at for at in reversed(closings) if at), None) or self.last_sign

    @cached_property
    def last_sign(self) -> datetime | None:
        """The last recorded comment of a person."""
        times = [when(c.created_at) for c in self.comments if not (c.is_bot or is_bot(c.user))]
        return max((at for at in times if at), default=when(self.issue.created_at))

    def last_word(self, login: str, after: datetime | None = None) -> datetime | None:
        """The last recorded comment of `login`, not before `after`."""
        times = [when(c.created_at) for c in self.comments if c.user.lower() == login]
        return max((at for at in (*times, after) if at), default=None)

    def pull_state(self, number: int) -> PullState:
        """What became of a pull request, as far as the store knows."""
        pull = self.store.pull(number)
        if pull is None:
            return self._state_by_timeline(number)
        if pull.merged:
            return "merged"
        if pull.state == "open":
            return "draft" if pull.draft else "open"
        return "unknown" if pull.merged is None else "closed"

    def pull(self, number: int) -> Pull | None:
        return self.store.pull(number)

    def is_pull(self, number: int) -> bool | None:
        known = self.store.issue(number)
        return None if known is None else known.is_pull

    def _state_by_timeline(self, number: int) -> PullState:
        merged = any(e.kind == "merged" and e.source_number == number for e in self.events)
        return "merged" if merged else "unknown"

    def _here(self) -> Iterator[Statement]:
        issue = self.issue
        if not is_bot(issue.user):
            yield from self._read(
                issue.body, issue.user, issue.created_at, "body", "body", issue.url,
                issue.author_association,
            )  # fmt: skip
        for comment in self.comments:
            if not (comment.is_bot or is_bot(comment.user)):
                yield from self._read(
                    comment.body, comment.user, comment.created_at, "comment", comment.id,
                    comment_url(issue, comment.id), comment.author_association,
                )  # fmt: skip

    def _elsewhere(self) -> Iterator[Statement]:
        """Statements of other threads that name this one as what they are about."""
        here = self.issue.number
        places = {(link.number, link.where) for link in self.links if link.where != "timeline"}
        for number in sorted({number for number, _ in places})[-MAX_ELSEWHERE:]:
            other = self.store.issue(number)
            if other is None:
                continue
            for comment in self.store.comments(number):
                if (number, f"comment {comment.id}") not in places or comment.is_bot:
                    continue
                for said in self._read(
                    comment.body, comment.user, comment.created_at, "elsewhere", comment.id,
                    comment_url(other, comment.id), comment.author_association,
                ):  # fmt: skip
                    if (act := _about(here, number, said.act)) is not None:
                        yield replace(said, act=act)

    def _read(
        self,
        body: str,
        author: str,
        created_at: str | None,
        place: Literal["body", "comment", "elsewhere"],
        comment: str,
        url: str,
        standing: str | None,
    ) -> Iterator[Statement]:
        for act in read_acts(body, self.store.repo, self.is_pull):
            yield Statement(act, author.lower(), when(created_at), place, comment, url, standing)


def newest(store: Store) -> datetime:
    """The time as of which the store knows its threads: the last sync, else the last recorded day.

    A store filled from a file speaks of the day the file was made, not of today: silence can only
    be counted up to there.
    """
    if (synced := when(store.last_sync)) is not None:
        return synced
    (latest,) = store.connection.execute(
        "SELECT max(at) FROM (SELECT max(created_at) AS at FROM threads UNION ALL "
        "SELECT max(updated_at) FROM threads UNION ALL SELECT max(closed_at) FROM threads "
        "UNION ALL SELECT max(created_at) FROM comments "
        "UNION ALL SELECT max(created_at) FROM events)"
    ).fetchone()
    return when(latest) or datetime.now(UTC)


def comment_url(thread: Issue, comment: str) -> str:
    """The address of a comment; the thread's where the comment has no number of its own."""
    return f"{thread.url}#issuecomment-{comment}" if comment.isdigit() else thread.url


def day(at: datetime | None) -> str | None:
    return at.strftime("%Y-%m-%d") if at else None


def _about(here: int, there: int, act: Act) -> Act | None:
    """An act of thread `there` as one of thread `here`, None if it is not about that."""
    others = tuple(number for number in act.threads if number != here)
    if here not in act.threads:
        return None
    if act.kind in ("claim", "named", "offer"):
        return replace(act, threads=())
    if act.kind == "duplicate-of-this":
        return replace(act, kind="duplicate", threads=(there,))
    if act.kind == "fixed":
        # "#5 fixes #12"; in a pull request's own thread the pull request itself is what fixes.
        return replace(act, threads=others) if others else None
    return None


def _dated(statements: Iterator[Statement]) -> Iterator[Statement]:
    last: datetime | None = None
    for statement in statements:
        last = statement.at or last
        yield statement if statement.at else replace(statement, at=last)
