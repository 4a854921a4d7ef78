"""A small repository as GitHub would describe it, over REST and over GraphQL.

What a test says of a thread is kept in `Thread`; everything else that GitHub's schemas require is
filled in from the schemas themselves.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

SCHEMAS = Path(__file__).with_name("github_rest_schemas.json")
WEB = "https://github.com"


@dataclass
class Event:
    """One event of a timeline, in REST's words; `number` is the thread that refers to this one."""

    kind: str
    at: str
    actor: str = "someone"
    number: int | None = None
    repo: str | None = None
    commit: str | None = None
    label: str | None = None
    assignee: str | None = None
    reason: str | None = None


@dataclass
class Thread:
    number: int
    title: str = "A title"
    body: str | None = "A body"
    is_pull: bool = False
    state: str = "open"
    user: str | None = "reporter"
    labels: list[str] = field(default_factory=list)
    assignees: list[str] = field(default_factory=list)
    created_at: str = "2026-01-01T00:00:00Z"
    updated_at: str = "2026-01-01T00:00:00Z"
    merged_at: str | None = None
    events: list[Event] = field(default_factory=list)
    files: list[str] = field(default_factory=list)


@dataclass
class Said:
    """A comment."""

    id: int
    number: int
    body: str = "A comment"
    user: str = "someone"
    created_at: str = "2026-01-01T00:00:00Z"
    updated_at: str = "2026-01-01T00:00:00Z"


@dataclass
class World:
    """A repository: change it between two syncs as people do, with later `updated_at`."""

    repo: str = "acme/engine"
    threads: dict[int, Thread] = field(default_factory=dict)
    comments: dict[int, Said] = field(default_factory=dict)
    old_names: list[str] = field(default_factory=list)

    def add(self, *things: Thread | Said) -> World:
        for thing in things:
            if isinstance(thing, Thread):
                self.threads[thing.number] = thing
            else:
                self.comments[thing.id] = thing
        return self

    # REST

    def rest_repository(self) -> dict[str, Any]:
        owner, name = self.repo.split("/")
        given = {"full_name": self.repo, "name": name, "owner": _user(owner)}
        return filled("full-repository", given)

    def rest_issue(self, thread: Thread) -> dict[str, Any]:
        place = "pull" if thread.is_pull else "issues"
        given: dict[str, Any] = {
            "number": thread.number,
            "title": thread.title,
            "body": thread.body,
            "state": thread.state,
            "user": _user(thread.user),
            "labels": [_label(name) for name in thread.labels],
            "assignees": [_user(login) for login in thread.assignees],
            "created_at": thread.created_at,
            "updated_at": thread.updated_at,
            "closed_at": thread.updated_at if thread.state == "closed" else None,
            "author_association": "NONE",
            "html_url": f"{WEB}/{self.repo}/{place}/{thread.number}",
            "repository_url": f"https://api.github.com/repos/{self.repo}",
        }
        if thread.is_pull:
            link = {"url": "", "html_url": "", "diff_url": "", "patch_url": ""}
            given["pull_request"] = link | {"merged_at": thread.merged_at}
        return filled("issue", given)

    def rest_pull(self, thread: Thread) -> dict[str, Any]:
        issue = self.rest_issue(thread)
        same = {key: issue[key] for key in issue if key not in ("labels", "pull_request")}
        given = same | {
            "labels": [_label(name) for name in thread.labels],
            "merged": thread.merged_at is not None,
            "merged_at": thread.merged_at,
            "draft": False,
            "head": {"label": f"{thread.user}:topic", "ref": "topic"},
            "base": {"label": "acme:main", "ref": "main"},
            "additions": 3 * len(thread.files),
            "deletions": len(thread.files),
            "changed_files": len(thread.files),
        }
        return filled("pull-request", given)

    def rest_comment(self, said: Said) -> dict[str, Any]:
        given = {
            "id": said.id,
            "body": said.body,
            "user": _user(said.user),
            "created_at": said.created_at,
            "updated_at": said.updated_at,
            "author_association": "CONTRIBUTOR",
            "issue_url": f"https://api.github.com/repos/{self.repo}/issues/{said.number}",
        }
        return filled("issue-comment", given)

    def rest_files(self, thread: Thread) -> list[dict[str, Any]]:
        return [filled("diff-entry", {"filename": path}) for path in thread.files]

    def rest_event(self, event: Event) -> dict[str, Any]:
        given: dict[str, Any] = {"event": event.kind, "created_at": event.at}
        given["actor"] = _user(event.actor)
        if event.kind == "cross-referenced":
            given["source"] = {"type": "issue", "issue": self._source(event)}
            return filled("timeline-cross-referenced-event", given)
        if event.kind == "reviewed":
            given = {"event": "reviewed", "user": _user(event.actor), "state": event.reason or ""}
            given |= {"submitted_at": event.at, "commit_id": event.commit}
            return filled("timeline-reviewed-event", given | {"author_association": "MEMBER"})
        if event.kind in ("labeled", "unlabeled"):
            given["label"] = {"name": event.label, "color": "ffffff"}
            return filled(f"{event.kind}-issue-event", given)
        if event.kind in ("assigned", "unassigned"):
            given["assignee"] = _user(event.assignee)
            return filled(f"timeline-{event.kind}-issue-event", given)
        given["commit_id"] = event.commit
        if event.kind in ("closed", "reopened"):
            given["state_reason"] = event.reason
        return filled("state-change-issue-event", given)

    def _source(self, event: Event) -> dict[str, Any]:
        assert event.number is not None
        if event.repo:
            foreign = World(event.repo)
            return foreign.rest_issue(Thread(event.number))
        return self.rest_issue(self.threads.get(event.number) or Thread(event.number))

    # GraphQL

    def graphql_root(self) -> dict[str, Any]:
        def repository(_: Any, owner: str, name: str) -> dict[str, Any] | None:
            return {"issueOrPullRequest": thread} if f"{owner}/{name}" == self.repo else None

        def thread(_: Any, number: int) -> dict[str, Any] | None:
            found = self.threads.get(number)
            return self._graphql_thread(found) if found else None

        return {"repository": repository}

    def _graphql_thread(self, thread: Thread) -> dict[str, Any]:
        def timeline(_: Any, first: int, itemTypes: list[str]) -> dict[str, Any]:
            nodes = [node for e in thread.events if (node := self._node(e)) is not None]
            wanted = [n for n in nodes if _constant(n["__typename"]) in itemTypes]
            return _connection(wanted, first)

        def files(_: Any, first: int) -> dict[str, Any]:
            return _connection([{"path": path} for path in thread.files], first)

        common = {"timelineItems": timeline, "number": thread.number}
        if not thread.is_pull:
            return {"__typename": "Issue", **common}
        return {
            "__typename": "PullRequest",
            **common,
            "merged": thread.merged_at is not None,
            "mergedAt": thread.merged_at,
            "isDraft": False,
            "headRefName": "topic",
            "headRepositoryOwner": {"__typename": "User", "login": thread.user},
            "baseRefName": "main",
            "additions": 3 * len(thread.files),
            "deletions": len(thread.files),
            "files": files,
        }

    def _node(self, event: Event) -> dict[str, Any] | None:
        name = _GRAPHQL_NAMES.get(event.kind)
        if name is None:
            return None
        actor = {"__typename": "User", "login": event.actor}
        node: dict[str, Any] = {"__typename": name, "createdAt": event.at, "actor": actor}
        node |= {"submittedAt": event.at, "author": actor}
        node["commit"] = {"oid": event.commit} if event.commit else None
        node["label"] = {"name": event.label}
        node["assignee"] = {"__typename": "User", "login": event.assignee}
        node["stateReason"] = event.reason.upper() if event.reason else None
        node["state"] = (event.reason or "commented").upper()
        if event.number is not None:
            other = self.threads.get(event.number)
            pull = other is not None and other.is_pull and event.repo is None
            node["source"] = {
                "__typename": "PullRequest" if pull else "Issue",
                "number": event.number,
                "repository": {"nameWithOwner": event.repo or self.repo},
            }
        if event.kind == "closed" and event.commit:
            node["closer"] = {"__typename": "Commit", "oid": event.commit}
        return node


_GRAPHQL_NAMES = {
    "assigned": "AssignedEvent",
    "unassigned": "UnassignedEvent",
    "closed": "ClosedEvent",
    "reopened": "ReopenedEvent",
    "cross-referenced": "CrossReferencedEvent",
    "referenced": "ReferencedEvent",
    "labeled": "LabeledEvent",
    "unlabeled": "UnlabeledEvent",
    "merged": "MergedEvent",
    "reviewed": "PullRequestReview",
}


def filled(schema: str, given: Mapping[str, Any]) -> dict[str, Any]:
    """`given` and whatever else the schema of that name requires, as empty as it allows."""
    made = _minimal({"$ref": f"#/$defs/{schema}"}, given)
    assert isinstance(made, dict)
    return made


@cache
def definitions() -> dict[str, Any]:
    found = json.loads(SCHEMAS.read_text())["$defs"]
    assert isinstance(found, dict)
    return found


def _minimal(schema: Mapping[str, Any], given: Any) -> Any:
    schema = _resolved(schema, absent=given is None)
    if schema.get("type") == "object" or "properties" in schema:
        properties = schema.get("properties", {})
        values = dict(given or {})
        for name in set(schema.get("required", ())) | set(values):
            if name in properties and (values.get(name) is None or isinstance(values[name], dict)):
                values[name] = _minimal(properties[name], values.get(name))
        return values
    if given is not None:
        return given
    if "enum" in schema:
        return schema["enum"][0]
    empty: dict[str, Any] = {"string": "", "integer": 0, "number": 0, "boolean": False, "array": []}
    return empty.get(str(schema.get("type")))


def _resolved(schema: Mapping[str, Any], *, absent: bool) -> Mapping[str, Any]:
    """The alternative to fill: null where nothing is given and null is allowed."""
    while True:
        if "$ref" in schema:
            schema = definitions()[schema["$ref"].rpartition("/")[2]]
            continue
        options = schema.get("anyOf") or schema.get("oneOf") or schema.get("allOf")
        if not options:
            return schema
        nulls = [option for option in options if option.get("type") == "null"]
        if absent and nulls:
            return nulls[0]
        schema = next(option for option in options if option not in nulls)


def _label(name: str) -> dict[str, Any]:
    same = {"id": 1, "node_id": "", "url": "", "description": None, "default": False}
    return {**same, "name": name, "color": "ededed"}


def _user(login: str | None) -> dict[str, Any] | None:
    if login is None:
        return None
    kind = "Bot" if login.endswith("[bot]") else "User"
    return filled("simple-user", {"login": login, "type": kind})


def _connection(nodes: list[dict[str, Any]], first: int) -> dict[str, Any]:
    return {"nodes": nodes[:first], "pageInfo": {"hasNextPage": len(nodes) > first}}


def _constant(name: str) -> str:
    return "".join(f"_{c}" if c.isupper() and i else c for i, c in enumerate(name)).upper()


def numbered(start: int, count: int) -> Iterator[tuple[int, str]]:
    """`count` numbers from `start`, each with a time a minute after the one before."""
    for place in range(count):
        yield (
            start + place,
            f"2026-02-{1 + place // 1440:02}T{place // 60 % 24:02}:{place % 60:02}:00Z",
        )
