"""What the store hands out: one issue or pull request, its comments, its events, its links.

Times are ISO 8601 in UTC (`2026-08-27T00:00:00Z`), which sort as text; `when` turns one into a
`datetime`. None stands for what was never recorded, never for "no": a pull request whose files were
not fetched has `files is None`, one without changes has `files == ()`.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Literal


@dataclass(frozen=True, slots=True)
class Issue:
    """An issue, or a pull request seen as the thread it is.

    Attributes:
        state: "open" or "closed".
        state_reason: GitHub's "completed", "not_planned", "duplicate" or "reopened".
        user: login of the author, "" where it was not recorded or the account is gone.
        author_association: "OWNER", "MEMBER", "COLLABORATOR", "CONTRIBUTOR", "NONE", ...
        body: Markdown as written; untrusted.
    """

    number: int
    title: str
    body: str
    state: str
    state_reason: str | None
    labels: tuple[str, ...]
    user: str
    assignees: tuple[str, ...]
    created_at: str | None
    updated_at: str | None
    closed_at: str | None
    is_pull: bool
    author_association: str | None
    url: str


@dataclass(frozen=True, slots=True)
class Pull(Issue):
    """A pull request.

    Attributes:
        merged: None where it was never recorded whether it was merged.
        head: "login:branch" it comes from.
        files: paths it changes; None where they were not fetched.
        additions, deletions: changed lines.
    """

    merged: bool | None
    merged_at: str | None
    draft: bool
    head: str | None
    base: str | None
    files: tuple[str, ...] | None
    additions: int | None
    deletions: int | None


@dataclass(frozen=True, slots=True)
class Comment:
    """One comment of a thread. `id` is GitHub's, or begins with "x" where none was recorded."""

    id: str
    number: int
    user: str
    created_at: str | None
    updated_at: str | None
    body: str
    author_association: str | None
    is_bot: bool


@dataclass(frozen=True, slots=True)
class Event:
    """One event of a thread's timeline.

    Attributes:
        kind: GitHub's REST name: "cross-referenced", "referenced", "closed", "reopened",
            "assigned", "labeled", "marked_as_duplicate", "connected", "merged", "reviewed", ...
        source_number: the other thread: what mentions this one, closes it, or is its original.
        source_repo: "owner/name" of the other thread where it is another repository.
        detail: the label, the assignee, or how a closed thread was closed.
    """

    kind: str
    created_at: str | None
    actor: str
    source_number: int | None = None
    source_is_pull: bool | None = None
    source_repo: str | None = None
    commit_id: str | None = None
    detail: str | None = None


LinkKind = Literal["closes", "mentions", "cross-referenced", "connected"]


@dataclass(frozen=True, slots=True)
class Link:
    """Thread `number` names thread `target`.

    Attributes:
        kind: "closes" where a closing word stands before it ("Fixes #12"), "mentions" without one,
            "cross-referenced" and "connected" where GitHub's timeline says so.
        where: "title", "body", "comment ID" or "timeline".
        is_pull: whether `number` is a pull request.
    """

    number: int
    target: int
    kind: LinkKind
    where: str
    is_pull: bool


@dataclass(frozen=True, slots=True)
class Note:
    """A TODO of the pinned tree that names its cause, kept as a candidate.

    Attributes:
        number: the n of "Tn". It stays with path and text, whatever else comes or goes.
        cause: what it waits for: "condition", "issue", "deadline", "removal" or "upstream".
        evidence: the words that name the cause.
        present: False once the tree has it no longer.
    """

    number: int
    path: str
    line: int
    text: str
    symbol: str | None
    cause: str
    evidence: str
    score: float
    present: bool


def when(time: str | None) -> datetime | None:
    """An ISO 8601 time as a `datetime` in UTC; None for None and for what is no time."""
    if not time:
        return None
    try:
        moment = datetime.fromisoformat(time)
    except ValueError:
        return None
    return moment.astimezone(UTC) if moment.tzinfo else moment.replace(tzinfo=UTC)
