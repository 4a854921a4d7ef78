"""What goes through the gauntlet: an issue of the store, or a TODO note of the tree.

A case carries everything a check may ask: the text and what it reports, the thread, the index of
the pinned tree, and what the person can run and knows. Whatever is missing is None, and a check
says so instead of guessing.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from functools import cached_property

from trackrecord.errors import TrackRecordError
from trackrecord.issues.models import Issue, Note
from trackrecord.issues.store import Store
from trackrecord.issues.text import Signals, extract
from trackrecord.pr.gauntlet.places import Place, find_places
from trackrecord.pr.gauntlet.thread import Thread
from trackrecord.upstream.index import Index
from trackrecord.workspace import Settings


class CaseError(TrackRecordError):
    """A candidate that is not there, or is none."""


@dataclass(frozen=True)
class Case:
    """One candidate.

    Attributes:
        name: "#123" for an issue, "T4" for a TODO note.
        passed: areas that the person has passed in the loop.
        now: as of when silence is counted.
    """

    name: str
    title: str
    body: str
    url: str
    index: Index
    settings: Settings
    now: datetime
    store: Store | None = None
    issue: Issue | None = None
    note: Note | None = None
    passed: tuple[str, ...] = ()

    @cached_property
    def thread(self) -> Thread | None:
        if self.store is None or self.issue is None:
            return None
        return Thread(self.store, self.issue, self.now)

    @cached_property
    def signals(self) -> Signals:
        """What the title and the body report."""
        return extract(f"{self.title}\n\n{self.body}")

    @cached_property
    def said_later(self) -> Signals:
        """What the comments report; names and traces often come only there."""
        comments = self.thread.comments if self.thread else []
        return extract("\n\n".join(c.body for c in comments if not c.is_bot))

    @cached_property
    def places(self) -> list[Place]:
        """The load-bearing places, the likeliest first."""
        if self.note is not None:
            return [Place.of_note(self.index, self.note)]
        return find_places(self.index, self.title, self.signals, self.said_later)

    @property
    def gpus(self) -> int | None:
        """How many accelerators the person has; None if `trackrecord.toml` does not say."""
        have = self.settings.hardware
        if not have.gpus and not have.count:
            return None
        return max(have.count, 1) if have.has_gpu else 0

    @property
    def labels(self) -> frozenset[str]:
        return (
            frozenset(label.lower() for label in self.issue.labels) if self.issue else frozenset()
        )

    @property
    def kind(self) -> str:
        """bug, feature, performance, rfc, usage, model, docs, note, or other."""
        if self.note is not None:
            return "note"
        opening = self.title.lower().lstrip()[:24]
        for kind, words in _KINDS.items():
            if any(opening.startswith((f"[{word}", f"{word}:")) for word in words):
                return kind
        return next((k for k, words in _KINDS.items() if self.labels & set(words)), "other")


_KINDS = {
    "rfc": ("rfc",),
    "usage": ("usage", "question", "installation"),
    "model": ("new model", "new-model"),
    "feature": ("feature", "feature request", "enhancement"),
    "performance": ("performance", "perf"),
    "docs": ("doc", "docs", "documentation"),
    "bug": ("bug", "ci failure"),
}


def issue_case(
    store: Store, number: int, index: Index, settings: Settings, now: datetime,
    passed: tuple[str, ...] = (),
) -> Case:  # fmt: skip
    """The case of issue `number`.

    Raises:
        CaseError: there is no such issue, or it is a pull request.
    """
    issue = store.issue(number)
    if issue is None:
        raise CaseError(
            f"no issue #{number} of {store.repo} in the store: run `trackrecord issues sync "
            f"{store.repo}` or check the number"
        )
    if issue.is_pull:
        raise CaseError(f"#{number} is a pull request: see `trackrecord review {number}`")
    title = issue.title or f"issue {number}"
    return Case(
        f"#{number}", title, issue.body, issue.url, index, settings, now, store, issue,
        passed=passed,
    )  # fmt: skip


def note_case(
    store: Store, number: int, index: Index, settings: Settings, now: datetime,
    passed: tuple[str, ...] = (),
) -> Case:  # fmt: skip
    """The case of the TODO note T`number`.

    Raises:
        CaseError: there is no such note, or the tree no longer has it.
    """
    note = store.note(number)
    if note is None:
        raise CaseError(f"no note T{number}: run `trackrecord issues harvest-todo`")
    if not note.present:
        raise CaseError(f"T{number}: {note.path} no longer has it; harvest again")
    title = " ".join(note.text.split())
    url = index.tree.pin.url(note.path, note.line)
    return Case(
        f"T{number}", title, note.text, url, index, settings, now, store, note=note, passed=passed
    )
