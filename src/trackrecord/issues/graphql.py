"""Timeline and files of many threads in one GraphQL query: what REST needs two requests each for.

The answers are brought into the form of the REST events, so that the store cannot tell which way
they came; GraphQL says more in two places (which pull request closed an issue, which thread a
duplicate repeats), and that is kept.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from trackrecord.issues.models import Event
from trackrecord.issues.records import text, time

BATCH = 20
"""Threads of one query: one point of the limit, and far below the ten seconds GitHub allows."""

_SOURCE = (
    "__typename ... on Issue {number repository {nameWithOwner}} "
    "... on PullRequest {number repository {nameWithOwner}}"
)
_BY = "createdAt actor {login}"
_EVENTS = {
    "AssignedEvent": ("assigned", f"{_BY} assignee {{... on User {{login}} ... on Bot {{login}}}}"),
    "UnassignedEvent": (
        "unassigned",
        f"{_BY} assignee {{... on User {{login}} ... on Bot {{login}}}}",
    ),
    "ClosedEvent": (
        "closed",
        f"{_BY} stateReason closer {{__typename ... on Commit {{oid}} ... on PullRequest "
        "{number repository {nameWithOwner}}}",
    ),
    "ReopenedEvent": ("reopened", f"{_BY} stateReason"),
    "ConnectedEvent": ("connected", f"{_BY} subject {{{_SOURCE}}}"),
    "DisconnectedEvent": ("disconnected", f"{_BY} subject {{{_SOURCE}}}"),
    "CrossReferencedEvent": ("cross-referenced", f"{_BY} source {{{_SOURCE}}}"),
    "ReferencedEvent": ("referenced", f"{_BY} commit {{oid}}"),
    "LabeledEvent": ("labeled", f"{_BY} label {{name}}"),
    "UnlabeledEvent": ("unlabeled", f"{_BY} label {{name}}"),
    "MarkedAsDuplicateEvent": ("marked_as_duplicate", f"{_BY} canonical {{{_SOURCE}}}"),
    "UnmarkedAsDuplicateEvent": ("unmarked_as_duplicate", f"{_BY} canonical {{{_SOURCE}}}"),
    "RenamedTitleEvent": ("renamed", f"{_BY} previousTitle"),
}
_PULL_EVENTS = {
    "MergedEvent": ("merged", f"{_BY} commit {{oid}}"),
    "ReadyForReviewEvent": ("ready_for_review", _BY),
    "ConvertToDraftEvent": ("converted_to_draft", _BY),
    "PullRequestReview": ("reviewed", "submittedAt author {login} state commit {oid}"),
}
_KINDS = {name: kind for name, (kind, _) in (_EVENTS | _PULL_EVENTS).items()}


@dataclass(frozen=True, slots=True)
class Details:
    """What one thread's answer holds.

    Attributes:
        columns: of the store's threads, for a pull request; {} for an issue.
        files: paths, None for an issue.
        complete: False where files or events go on beyond the first hundred.
    """

    columns: dict[str, Any]
    files: list[str] | None
    events: list[Event]
    complete: bool


def details_query(numbers: Sequence[int]) -> str:
    """The query for the threads `numbers`; variables: $owner, $name."""
    parts = " ".join(
        f"t{number}: issueOrPullRequest(number: {number}) {{...details}}" for number in numbers
    )
    return (
        "query ($owner: String!, $name: String!) "
        f"{{repository(owner: $owner, name: $name) {{{parts}}}}} {_FRAGMENT}"
    )


def read_details(data: Mapping[str, Any], number: int, repo: str) -> Details | None:
    """What the answer `data` says of thread `number`; None if GitHub has it no longer."""
    # A repository that is null is a refusal, not a sign that all its threads are gone.
    node = data["repository"][f"t{number}"]
    if node is None:
        return None
    timeline = node["timelineItems"]
    entries = [entry for entry in timeline["nodes"] if entry and entry["__typename"] in _KINDS]
    complete = not timeline["pageInfo"]["hasNextPage"]
    files, columns = None, {}
    if node["__typename"] == "PullRequest":
        listed = node.get("files") or {"nodes": [], "pageInfo": {"hasNextPage": False}}
        files = list(dict.fromkeys(text(f["path"], "path") or "" for f in listed["nodes"]))
        complete = complete and not listed["pageInfo"]["hasNextPage"]
        columns = _pull_columns(node)
    return Details(columns, files, [_event(entry, repo) for entry in entries], complete)


def _pull_columns(node: Mapping[str, Any]) -> dict[str, Any]:
    owner = (node.get("headRepositoryOwner") or {}).get("login")
    branch = text(node["headRefName"], "headRefName")
    return {
        "is_pull": True,
        "merged": bool(node["merged"]),
        "merged_at": time(node["mergedAt"], "mergedAt"),
        "draft": bool(node["isDraft"]),
        "head": f"{owner}:{branch}" if owner else branch,
        "base": text(node["baseRefName"], "baseRefName"),
        "additions": node["additions"],
        "deletions": node["deletions"],
    }


def _event(entry: Mapping[str, Any], repo: str) -> Event:
    kind = _KINDS[entry["__typename"]]
    source = entry.get("source") or entry.get("subject") or entry.get("canonical") or {}
    closer = entry.get("closer") or {}
    if closer.get("__typename") == "PullRequest":
        source = closer
    where = (source.get("repository") or {}).get("nameWithOwner")
    commit = entry.get("commit") or (closer if closer.get("__typename") == "Commit" else {})
    reason = entry.get("stateReason") or (entry.get("state") if kind == "reviewed" else None)
    detail = (
        (entry.get("label") or {}).get("name")
        or (entry.get("assignee") or {}).get("login")
        or entry.get("previousTitle")
        or (reason.lower() if reason else None)
    )
    return Event(
        kind=kind,
        created_at=time(entry.get("createdAt") or entry.get("submittedAt"), "createdAt"),
        actor=((entry.get("actor") or entry.get("author")) or {}).get("login") or "",
        source_number=source.get("number"),
        source_is_pull=source["__typename"] == "PullRequest" if source.get("number") else None,
        source_repo=where if where and where.lower() != repo.lower() else None,
        commit_id=commit.get("oid"),
        detail=text(detail, "detail"),
    )


def _constant(name: str) -> str:
    """`CrossReferencedEvent` as the enumeration has it: `CROSS_REFERENCED_EVENT`."""
    return "".join(f"_{c}" if c.isupper() and i else c for i, c in enumerate(name)).upper()


def _timeline(events: Mapping[str, tuple[str, str]]) -> str:
    kinds = ", ".join(map(_constant, events))
    nodes = " ".join(f"... on {name} {{{fields}}}" for name, (_, fields) in events.items())
    return (
        f"timelineItems(first: 100, itemTypes: [{kinds}]) "
        f"{{pageInfo {{hasNextPage}} nodes {{__typename {nodes}}}}}"
    )


_FRAGMENT = (
    "fragment details on IssueOrPullRequest {__typename "
    f"... on Issue {{{_timeline(_EVENTS)}}} "
    "... on PullRequest {merged mergedAt isDraft headRefName headRepositoryOwner {login} "
    "baseRefName additions deletions files(first: 100) {pageInfo {hasNextPage} nodes {path}} "
    f"{_timeline(_EVENTS | _PULL_EVENTS)}}}}}"
)
