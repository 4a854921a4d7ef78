"""GitHub's API for one repository on this machine: real HTTP, real limits, faults on order.

What it answers is checked against GitHub's published schemas in `test_github_server.py`. Time is
the `ManualClock` that the client waits on, so that an hour of rate limit takes no time at all.
"""

from __future__ import annotations

import hashlib
import json
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cache
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlencode, urlsplit

from github_world import Thread, World
from graphql import (
    DocumentNode,
    GraphQLSchema,
    build_schema,
    execute_sync,
    parse,
    validate,
)

GRAPHQL_SCHEMA: GraphQLSchema = build_schema(
    Path(__file__).with_name("github_schema.graphql").read_text()
)


@dataclass
class ManualClock:
    """Time that passes only when somebody sleeps."""

    time: float = 1_800_000_000.0
    slept: list[float] = field(default_factory=list)

    def now(self) -> float:
        return self.time

    def sleep(self, seconds: float) -> None:
        self.slept.append(seconds)
        self.time += seconds


@dataclass
class Answer:
    status: int
    document: Any
    headers: dict[str, str] = field(default_factory=dict)

    @property
    def body(self) -> bytes:
        return b"" if self.document is None else json.dumps(self.document).encode()


Fault = Callable[["GitHubServer", Answer], "Answer | str"]
"""Turns the answer that was due into another one, or into "drop" or "half"."""


def drop(server: GitHubServer, answer: Answer) -> str:
    """The connection is closed without a byte."""
    return "drop"


def half(server: GitHubServer, answer: Answer) -> str:
    """The connection is closed in the middle of the body."""
    return "half"


def bad_gateway(server: GitHubServer, answer: Answer) -> Answer:
    return Answer(502, {"message": "Server Error"})


def overloaded(server: GitHubServer, answer: Answer) -> Answer:
    return Answer(503, {"message": "Service Unavailable"}, {"Retry-After": "7"})


def too_many(server: GitHubServer, answer: Answer) -> Answer:
    return Answer(429, {"message": "Too many requests"}, {"Retry-After": "5"})


def secondary_limit(server: GitHubServer, answer: Answer) -> Answer:
    return Answer(403, {"message": "You have exceeded a secondary rate limit. Please wait."})


def primary_limit(server: GitHubServer, answer: Answer) -> Answer:
    reset = {"X-RateLimit-Remaining": "0", "X-RateLimit-Reset": str(int(server.clock.now()) + 40)}
    return Answer(403, {"message": "API rate limit exceeded for 127.0.0.1."}, reset)


FAULTS: tuple[Fault, ...] = (
    *(drop, half, bad_gateway, overloaded, too_many, secondary_limit, primary_limit),
)


@dataclass
class GitHubServer:
    """The server's state; tests read `requests` and write `faults`.

    Attributes:
        faults: what goes wrong with which request, counted from 1.
        hourly_limit: requests answered an hour; None for no limit. A 304 costs nothing.
        token: what `Authorization` must carry; None to serve everybody.
        requests: method and path with query of every request so far.
    """

    world: World
    clock: ManualClock = field(default_factory=ManualClock)
    faults: dict[int, Fault] = field(default_factory=dict)
    hourly_limit: int | None = None
    token: str | None = None
    requests: list[str] = field(default_factory=list)
    seen_authorization: set[str | None] = field(default_factory=set)
    url: str = ""
    _used: int = 0
    _reset: float = 0.0

    def answer(self, method: str, target: str, headers: Any, body: bytes) -> Answer | str:
        self.requests.append(f"{method} {target}")
        self.seen_authorization.add(headers.get("Authorization"))
        due = self._due(method, target, headers, body)
        fault = self.faults.get(len(self.requests))
        return fault(self, due) if fault else due

    def _due(self, method: str, target: str, headers: Any, body: bytes) -> Answer:
        given = (headers.get("Authorization") or "").partition(" ")[2]
        if self.token is not None and given != self.token:
            return Answer(401, {"message": "Bad credentials"})
        if self._limited():
            return self._with_limit(Answer(403, {"message": "API rate limit exceeded for user."}))
        parts = urlsplit(target)
        if parts.path == "/graphql":
            found = self._graphql(given, json.loads(body))
        else:
            found = self._rest(parts.path, {k: v[0] for k, v in parse_qs(parts.query).items()})
        found.headers["ETag"] = f'W/"{hashlib.sha256(found.body).hexdigest()}"'
        if found.status == 200 and headers.get("If-None-Match") == found.headers["ETag"]:
            self._used -= 1
            found = Answer(304, None, found.headers)
        return self._with_limit(found)

    def _limited(self) -> bool:
        if self.clock.now() >= self._reset:
            self._used, self._reset = 0, self.clock.now() + 3600
        self._used += 1
        return self.hourly_limit is not None and self._used > self.hourly_limit

    def _with_limit(self, answer: Answer) -> Answer:
        limit = self.hourly_limit or 5000
        answer.headers["X-RateLimit-Limit"] = str(limit)
        answer.headers["X-RateLimit-Remaining"] = str(max(0, limit - self._used))
        answer.headers["X-RateLimit-Reset"] = str(int(self._reset))
        return answer

    def _graphql(self, token: str, request: dict[str, Any]) -> Answer:
        if not token:
            return Answer(401, {"message": "This endpoint requires you to be authenticated."})
        done = execute_sync(
            GRAPHQL_SCHEMA,
            _valid(request["query"]),
            root_value=self.world.graphql_root(),
            variable_values=request["variables"],
        )
        document = dict(done.formatted)
        missing = [
            {"type": "NOT_FOUND", "path": ["repository", alias], "message": "Could not resolve"}
            for alias, node in ((done.data or {}).get("repository") or {}).items()
            if node is None
        ]
        return Answer(200, document | ({"errors": missing} if missing else {}))

    def _rest(self, path: str, query: dict[str, str]) -> Answer:
        for old in self.world.old_names:
            if path == f"/repos/{old}":
                return Answer(301, {"message": "Moved"}, {"Location": f"{self.url}/repositories/1"})
        if path == "/repositories/1":
            return Answer(200, self.world.rest_repository())
        base = f"/repos/{self.world.repo}"
        if not path.startswith(base):
            return Answer(404, {"message": "Not Found"})
        words = path.removeprefix(base).strip("/").split("/")
        document = self._document(words, query)
        if document is None:
            return Answer(404, {"message": "Not Found"})
        if not isinstance(document, list):
            return Answer(200, document)
        return self._page(path, document, query)

    def _document(self, words: list[str], query: dict[str, str]) -> Any:
        world = self.world
        match words:
            case [""]:
                return world.rest_repository()
            case ["issues"]:
                wanted = _by_change(world.threads.values(), query)
                return [world.rest_issue(thread) for thread in wanted]
            case ["issues", "comments"]:
                said = _by_change(world.comments.values(), query)
                return [world.rest_comment(each) for each in said]
            case ["issues", number] if thread := self._thread(number):
                return world.rest_issue(thread)
            case ["issues", number, "comments"] if thread := self._thread(number):
                said = [c for c in world.comments.values() if c.number == thread.number]
                return [world.rest_comment(c) for c in sorted(said, key=lambda c: c.id)]
            case ["issues", number, "timeline"] if thread := self._thread(number):
                return [world.rest_event(event) for event in thread.events]
            case ["pulls", number] if (thread := self._thread(number)) and thread.is_pull:
                return world.rest_pull(thread)
            case ["pulls", number, "files"] if (thread := self._thread(number)) and thread.is_pull:
                return world.rest_files(thread)
        return None

    def _thread(self, number: str) -> Thread | None:
        return self.world.threads.get(int(number)) if number.isdecimal() else None

    def _page(self, path: str, entries: list[Any], query: dict[str, str]) -> Answer:
        size, number = int(query.get("per_page", "30")), int(query.get("page", "1"))
        start = (number - 1) * size
        answer = Answer(200, entries[start : start + size])
        if start + size < len(entries):
            following = urlencode({**query, "page": number + 1})
            last = urlencode({**query, "page": -(-len(entries) // size)})
            answer.headers["Link"] = (
                f'<{self.url}{path}?{following}>; rel="next", <{self.url}{path}?{last}>; rel="last"'
            )
        return answer


@cache
def _valid(query: str) -> DocumentNode:
    document = parse(query)
    assert validate(GRAPHQL_SCHEMA, document) == []
    return document


def _by_change(things: Any, query: dict[str, str]) -> list[Any]:
    """As GitHub lists: what changed at or after `since`, the oldest change first."""
    assert query.get("sort") == "updated"
    assert query.get("direction") == "asc"
    changed = [each for each in things if each.updated_at >= query.get("since", "")]
    return sorted(changed, key=lambda each: (each.updated_at, getattr(each, "id", each.number)))


@contextmanager
def running(server: GitHubServer) -> Iterator[GitHubServer]:
    """Serves `server` on a port of this machine."""

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        disable_nagle_algorithm = True  # else every answer waits for an acknowledgement

        def do_GET(self) -> None:
            self._serve(b"")

        def do_POST(self) -> None:
            self._serve(self.rfile.read(int(self.headers.get("Content-Length", "0"))))

        def _serve(self, body: bytes) -> None:
            answer = server.answer(self.command, self.path, self.headers, body)
            if answer == "drop":
                self.close_connection = True
                return
            cut = answer == "half"
            sent = Answer(200, [{"number": 1}] * 50) if isinstance(answer, str) else answer
            self.send_response(sent.status)
            for name, value in sent.headers.items():
                self.send_header(name, value)
            self.send_header("Content-Type", "application/json; charset=utf-8")
            if sent.status != 304:
                self.send_header("Content-Length", str(len(sent.body)))
            self.end_headers()
            self.wfile.write(sent.body[: len(sent.body) // 2] if cut else sent.body)
            self.close_connection = cut

        def log_message(self, format: str, *args: Any) -> None:
            pass

    http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    http.daemon_threads = True
    server.url = f"http://127.0.0.1:{http.server_address[1]}"
    thread = threading.Thread(target=http.serve_forever, args=(0.01,), daemon=True)
    thread.start()
    try:
        yield server
    finally:
        http.shutdown()
        http.server_close()
        thread.join()
