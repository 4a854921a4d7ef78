"""A thread as a person reads it in a terminal, and as JSON.

Everything here was written by strangers: control characters, terminal escapes and controls of
writing direction are made visible before anything is printed.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from typing import Any

from mini_vllm.console import printable
from trackrecord.issues.models import Comment, Event, Issue, Link, Pull
from trackrecord.issues.store import Store
from trackrecord.issues.text import Signals, extract

MAX_BODY_LINES = 60
MAX_COMMENT_LINES = 20
MAX_LINE = 400
QUIET_EVENTS = frozenset({"labeled", "unlabeled", "renamed"})
"""Left out of the text form: many, and they decide nothing."""


def as_json(store: Store, thread: Issue) -> dict[str, Any]:
    """Everything that is stored of `thread`, and what its text says."""
    return {
        **dataclasses.asdict(thread),
        "comments": [dataclasses.asdict(c) for c in store.comments(thread.number)],
        "timeline": [dataclasses.asdict(e) for e in store.timeline(thread.number)],
        "named_by": [dataclasses.asdict(link) for link in store.links_to(thread.number)],
        "names": [dataclasses.asdict(link) for link in store.links_from(thread.number)],
        "signals": dataclasses.asdict(extract(f"{thread.title}\n\n{thread.body}")),
    }


def as_text(store: Store, thread: Issue) -> str:
    """The thread in full, long texts cut with a note of how much is missing."""
    return "\n".join(_lines(store, thread))


def headline(thread: Issue) -> str:
    """One line: number, kind, state, title."""
    kind = "pull" if thread.is_pull else "issue"
    state = "merged" if isinstance(thread, Pull) and thread.merged else thread.state
    return printable(f"#{thread.number} {kind} {state}  {thread.title}")[:MAX_LINE]


def _lines(store: Store, thread: Issue) -> Iterator[str]:
    yield headline(thread)
    if thread.url:
        yield printable(thread.url)
    people = f"by {thread.user or 'unknown'}, opened {_day(thread.created_at)}"
    changed = f", changed {_day(thread.updated_at)}" if thread.updated_at else ""
    yield printable(f"{people}{changed}")
    if thread.labels:
        yield printable(f"labels: {', '.join(thread.labels)}")
    if thread.assignees:
        yield printable(f"assigned to: {', '.join(thread.assignees)}")
    if isinstance(thread, Pull) and thread.files is not None:
        yield printable(f"files ({len(thread.files)}): {', '.join(thread.files[:8])}")
    yield from map(_link_line, store.links_to(thread.number))
    yield from _signal_lines(extract(f"{thread.title}\n\n{thread.body}"))
    yield ""
    yield from _cut(thread.body, MAX_BODY_LINES)
    for comment in store.comments(thread.number):
        yield ""
        yield from _comment_lines(comment)
    events = [e for e in store.timeline(thread.number) if e.kind not in QUIET_EVENTS]
    if events:
        yield ""
        yield from map(_event_line, events)


def _signal_lines(read: Signals) -> Iterator[str]:
    if read.error_messages:
        shown = (f"{e.type}: {e.text}".rstrip(": ") for e in read.error_messages[:3])
        yield from (printable(f"error: {line}")[:MAX_LINE] for line in shown)
    if read.frames:
        last = read.frames[-1]
        place = f"{last.path}:{last.line}" if last.line else last.path
        yield printable(f"trace: {len(read.frames)} frames, down to {place} {last.function}")
    if read.versions:
        known = ", ".join(f"{name} {found[0]}" for name, found in list(read.versions.items())[:6])
        yield printable(f"versions: {known}")
    if read.hardware.devices:
        devices = (f"{d.count or ''} {d.name}".strip() for d in read.hardware.devices[:4])
        yield printable(f"hardware: {', '.join(devices)}")


def _comment_lines(comment: Comment) -> Iterator[str]:
    role = f" ({comment.author_association.lower()})" if comment.author_association else ""
    bot = " [bot]" if comment.is_bot and not comment.user.endswith("[bot]") else ""
    yield printable(f"-- {comment.user or 'unknown'}{bot}{role}, {_day(comment.created_at)}")
    yield from _cut(comment.body, 3 if comment.is_bot else MAX_COMMENT_LINES)


def _event_line(event: Event) -> str:
    parts = [f"* {_day(event.created_at)} {event.actor} {event.kind}".replace("  ", " ")]
    if event.detail:
        parts.append(event.detail)
    if event.source_number:
        parts.append(f"{event.source_repo or ''}#{event.source_number}")
    if event.commit_id:
        parts.append(event.commit_id[:10])
    return printable(" ".join(parts))


def _link_line(link: Link) -> str:
    kind = "pull" if link.is_pull else "issue"
    return printable(f"named by {kind} #{link.number}: {link.kind} ({link.where})")


def _cut(text: str, most: int) -> Iterator[str]:
    lines = text.replace("\r\n", "\n").split("\n")
    for line in map(_shown, lines[:most]):
        yield line if len(line) <= MAX_LINE else f"{line[:MAX_LINE]} [+{len(line) - MAX_LINE}]"
    if len(lines) > most:
        yield f"[+{len(lines) - most} lines]"


def _shown(line: str) -> str:
    """`line` made printable as a title is, but for the tabs that code in it is laid out with."""
    return "\t".join(map(printable, line.split("\t")))


def _day(time: str | None) -> str:
    return time[:10] if time else "unknown"
