"""GitHub's REST objects, checked and reduced to what the store keeps.

A key that is absent was not known and changes nothing; a key that is null is known to be empty.
Text loses what no database and no terminal takes (NUL, lone surrogates), nothing else.

Source: https://docs.github.com/en/rest/issues, `issue`, `pull-request`, `issue-comment`,
`timeline-issue-events` of GitHub's OpenAPI description.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from trackrecord.issues.errors import RecordError
from trackrecord.issues.models import Event
from trackrecord.issues.people import is_bot

MAX_NUMBER = 2**53
EVENT_KINDS = frozenset(
    [
        "assigned",
        "closed",
        "connected",
        "convert_to_draft",
        "converted_to_draft",
        "cross-referenced",
        "disconnected",
        "labeled",
        "marked_as_duplicate",
        "merged",
        "ready_for_review",
        "referenced",
        "renamed",
        "reopened",
        "reviewed",
        "unassigned",
        "unlabeled",
        "unmarked_as_duplicate",
    ]
)
"""What is kept of a timeline; comments and commits are kept elsewhere or not needed."""

_UNSTORABLE = re.compile("[\x00\ud800-\udfff]")


@dataclass(frozen=True, slots=True)
class CommentRecord:
    """A comment to be stored; `id` None where the source had none."""

    id: str | None
    number: int
    author: str
    is_bot: bool
    author_association: str | None
    created_at: str | None
    updated_at: str | None
    body: str


def thread(data: Mapping[str, Any], *, is_pull: bool | None = None) -> dict[str, Any]:
    """The columns of an issue or pull request that `data` knows.

    Args:
        is_pull: what the source says it is; None reads it off the record (GitHub lists pull
            requests among the issues, with a `pull_request` key).

    Raises:
        RecordError: a required field is missing or a field has the wrong type.
    """
    columns: dict[str, Any] = {"number": number(data.get("number"), "number")}
    pull = data.get("pull_request")
    columns["is_pull"] = is_pull if is_pull is not None else pull is not None
    for key in ("title", "body", "state_reason", "author_association"):
        if key in data:
            columns[key] = text(data[key], key)
    if "state" in data:
        columns["state"] = _one_of(data["state"], "state", ("open", "closed"))
    if "user" in data:
        columns["author"] = _login(data["user"], "user")
    if "html_url" in data:
        columns["url"] = text(data["html_url"], "html_url")
    if "labels" in data:
        columns["labels"] = json.dumps(_names(data["labels"], "labels", "name"), ensure_ascii=False)
    if "assignees" in data or "assignee" in data:
        alone = [data["assignee"]] if data.get("assignee") else []
        people = _names(data.get("assignees") or alone, "assignees", "login")
        columns["assignees"] = json.dumps(people)
    for key in ("created_at", "updated_at", "closed_at"):
        if key in data:
            columns[key] = time(data[key], key)
    if isinstance(pull, Mapping) and "merged_at" in pull:
        columns |= _merged(pull)
    if columns["is_pull"]:
        columns |= _pull_columns(data)
    return columns


def files(data: Mapping[str, Any]) -> list[str] | None:
    """The paths under a pull's `files`, None where the key is absent."""
    return None if "files" not in data else paths(data["files"])


def paths(entries: Any) -> list[str]:
    """The paths of REST `diff-entry` objects, each once, in order."""
    names = _names(entries, "files", "filename")
    return list(dict.fromkeys(names))


def comment(data: Mapping[str, Any], issue: int | None = None) -> CommentRecord:
    """A REST `issue-comment`; `issue` where the record itself does not say which thread.

    Raises:
        RecordError: as `thread`.
    """
    if issue is None:
        url = text(data.get("issue_url"), "issue_url") or ""
        issue = number(_int(url.rpartition("/")[2]), "issue_url")
    user = data.get("user")
    login = _login(user, "user")
    identity = data.get("id")
    if identity is not None and (isinstance(identity, bool) or not isinstance(identity, int | str)):
        raise RecordError(f"id must be a number, got {identity!r:.60}")
    return CommentRecord(
        id=None if identity is None else str(identity),
        number=issue,
        author=login,
        is_bot=is_bot(login, user.get("type") if isinstance(user, Mapping) else None),
        author_association=text(data.get("author_association"), "author_association"),
        created_at=time(data.get("created_at"), "created_at"),
        updated_at=time(data.get("updated_at"), "updated_at"),
        body=text(data.get("body"), "body") or "",
    )


def events(entries: Any, repo: str) -> list[Event]:
    """The kept events of a REST timeline, in order.

    Args:
        repo: "owner/name" the timeline belongs to.

    Raises:
        RecordError: as `thread`.
    """
    if not isinstance(entries, Sequence) or isinstance(entries, str):
        raise RecordError(f"a timeline must be a list of events, got {entries!r:.60}")
    found = []
    for entry in entries:
        if not isinstance(entry, Mapping):
            raise RecordError(f"an event must be an object, got {entry!r:.60}")
        kind = text(entry.get("event"), "event") or ""
        if kind in EVENT_KINDS:
            found.append(_event(kind, entry, repo))
    return found


def number(value: Any, name: str) -> int:
    """A thread's number.

    Raises:
        RecordError: it is none.
    """
    if isinstance(value, bool) or not isinstance(value, int) or not 0 < value < MAX_NUMBER:
        raise RecordError(f"{name} must be a whole number above 0, got {value!r:.60}")
    return value


def text(value: Any, name: str) -> str | None:
    """A string or null, storable."""
    if value is None:
        return None
    if not isinstance(value, str):
        raise RecordError(f"{name} must be a string, got {value!r:.60}")
    return _UNSTORABLE.sub("\ufffd", value)


def time(value: Any, name: str) -> str | None:
    """An ISO 8601 time or null, in UTC with whole seconds: `2026-08-27T00:00:00Z`."""
    if value is None:
        return None
    try:
        moment = datetime.fromisoformat(value)
        moment = moment.astimezone(UTC) if moment.tzinfo else moment.replace(tzinfo=UTC)
    except (TypeError, ValueError, OverflowError):
        raise RecordError(f"{name} must be an ISO 8601 time, got {value!r:.60}") from None
    return moment.strftime("%Y-%m-%dT%H:%M:%SZ")


def _pull_columns(data: Mapping[str, Any]) -> dict[str, Any]:
    columns: dict[str, Any] = {}
    if "merged" in data or "merged_at" in data:
        columns |= _merged(data)
    if "draft" in data:
        columns["draft"] = bool(data["draft"])
    for key in ("head", "base"):
        side = data.get(key)
        if isinstance(side, Mapping):
            label = side.get("label") if key == "head" else side.get("ref")
            columns[key] = text(label or side.get("ref"), key)
    for key in ("additions", "deletions"):
        if isinstance(data.get(key), int):
            columns[key] = data[key]
    return columns


def _merged(data: Mapping[str, Any]) -> dict[str, Any]:
    columns: dict[str, Any] = {}
    if "merged_at" in data:
        columns["merged_at"] = time(data["merged_at"], "merged_at")
        columns["merged"] = columns["merged_at"] is not None
    if data.get("merged") is not None:
        columns["merged"] = bool(data["merged"])
    return columns


def _event(kind: str, entry: Mapping[str, Any], repo: str) -> Event:
    source = _mapping(_mapping(entry.get("source")).get("issue"))
    source_repo = text(_mapping(source.get("repository")).get("full_name"), "repository")
    if source_repo is None and "repository_url" in source:
        url = text(source["repository_url"], "repository_url") or ""
        source_repo = "/".join(url.rsplit("/", 2)[-2:])
    detail = (
        _mapping(entry.get("label")).get("name")
        or _mapping(entry.get("assignee")).get("login")
        or _mapping(entry.get("rename")).get("from")
        or entry.get("state_reason")
        or (entry.get("state") if kind == "reviewed" else None)
    )
    return Event(
        kind="converted_to_draft" if kind == "convert_to_draft" else kind,
        created_at=time(entry.get("created_at") or entry.get("submitted_at"), "created_at"),
        actor=_login(entry.get("actor") or entry.get("user"), "actor"),
        source_number=number(source["number"], "source") if "number" in source else None,
        source_is_pull="pull_request" in source if "number" in source else None,
        source_repo=source_repo if source_repo and source_repo.lower() != repo.lower() else None,
        commit_id=text(entry.get("commit_id"), "commit_id") or None,
        detail=text(detail, "detail"),
    )


def _mapping(value: Any) -> Mapping[str, Any]:
    return value if isinstance(value, Mapping) else {}


def _login(value: Any, name: str) -> str:
    """The login of a REST user; "" for a deleted account (null)."""
    if value is None:
        return ""
    if not isinstance(value, Mapping):
        raise RecordError(f"{name} must be an object with a login, got {value!r:.60}")
    return text(value.get("login"), f"{name}.login") or ""


def _names(value: Any, name: str, key: str) -> list[str]:
    if not isinstance(value, Sequence) or isinstance(value, str):
        raise RecordError(f"{name} must be a list, got {value!r:.60}")
    found = [entry.get(key) if isinstance(entry, Mapping) else entry for entry in value]
    return [checked for entry in found if (checked := text(entry, f"{name}.{key}"))]


def _one_of(value: Any, name: str, known: tuple[str, ...]) -> str:
    if value not in known:
        raise RecordError(f"{name} must be {' or '.join(known)}, got {value!r:.60}")
    return str(value)


def _int(value: str) -> int | None:
    return int(value) if value.isascii() and value.isdigit() and len(value) < 17 else None
