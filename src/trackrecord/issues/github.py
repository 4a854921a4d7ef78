"""GitHub's API as the sync needs it: one request after the other, until it has an answer.

PyGithub speaks the protocol (authentication, addresses of github.com and Enterprise servers,
GraphQL, which message means which error). Its objects and its own retries are not used: here a page
is conditional (ETag), and every wait is decided, bounded and announced in one place.

What is waited for, as GitHub asks
(https://docs.github.com/en/rest/using-the-rest-api/rate-limits-for-the-rest-api):
Retry-After where it is given, else the reset time where no request is left, else a minute, doubled
each time. A server error, a dropped connection or half an answer is tried again after growing
pauses.
"""

from __future__ import annotations

import json
import re
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from email.utils import parsedate_to_datetime
from typing import Any, Protocol, TypeVar

import github
import requests

from trackrecord.issues.errors import GitHubError
from trackrecord.issues.token import DEFAULT_API

_Answer = TypeVar("_Answer")

PER_PAGE = 100
MAX_TRIES = 6
SECONDARY_LIMIT_SECONDS = 60.0
TIMEOUT_SECONDS = 30

_NEXT = re.compile(r'<([^<>]+)>\s*;[^,]*\brel="?next"?')
_TRANSIENT = (
    requests.ConnectionError,
    requests.Timeout,
    requests.exceptions.ChunkedEncodingError,
    requests.exceptions.ContentDecodingError,
)


class Clock(Protocol):
    """The time, and a way to let it pass."""

    def now(self) -> float:
        """Seconds since the epoch."""

    def sleep(self, seconds: float) -> None:
        """Returns after `seconds`."""


class SystemClock:
    """The real one."""

    def now(self) -> float:
        return time.time()

    def sleep(self, seconds: float) -> None:
        time.sleep(seconds)


@dataclass(frozen=True, slots=True)
class Page:
    """One answer.

    Attributes:
        data: the JSON; None where nothing changed.
        etag: sent with the next request of the same address, it makes that conditional.
        next: address of the next page, None on the last.
        unchanged: whether it is what it was when the ETag sent was given (304).
    """

    data: Any
    etag: str | None
    next: str | None
    unchanged: bool


class RateLimitedError(GitHubError):
    """The wait that GitHub asks for is longer than allowed.

    Attributes:
        until: seconds since the epoch when requests are answered again.
    """

    def __init__(self, message: str, until: float) -> None:
        super().__init__(message)
        self.until = until


class NotThereError(GitHubError):
    """GitHub has nothing at the address (404, 410, or hidden from this token)."""


class GitHub:
    """A connection to one API server.

    Args:
        token: None to go without; 60 requests an hour then instead of 5,000.
        max_wait: seconds one rate limit is waited for; a longer one raises `RateLimitedError`.
        say: is told of every wait before it begins.
    """

    def __init__(
        self,
        token: str | None = None,
        api_url: str = DEFAULT_API,
        *,
        max_wait: float = 900.0,
        say: Callable[[str], None] = lambda line: None,
        clock: Clock | None = None,
    ) -> None:
        self.authenticated = token is not None
        self.requests = 0
        self._max_wait = max_wait
        self._say = say
        self._clock = clock or SystemClock()
        self._client = github.Github(
            auth=github.Auth.Token(token) if token else None,
            base_url=api_url,
            timeout=TIMEOUT_SECONDS,
            per_page=PER_PAGE,
            user_agent="trackrecord",
            retry=None,
            seconds_between_requests=None,
            seconds_between_writes=None,
            lazy=True,
        )

    def get(
        self, path: str, parameters: Mapping[str, Any] | None = None, etag: str | None = None
    ) -> Page:
        """One page of `path`.

        Args:
            path: as in "/repos/o/r/issues", or the address in `Page.next`.
            etag: of this page when it was last read; unchanged, it costs nothing of the limit.

        Raises:
            NotThereError: 404 or 410.
            RateLimitedError: see the class.
            GitHubError: anything else that trying again does not cure.
        """
        headers = {"If-None-Match": etag} if etag else {}

        def send() -> Page:
            requester = self._client.requester
            status, answer, body = requester.requestJson(
                "GET", path, dict(parameters or {}), dict(headers)
            )
            if status >= 400:
                raise requester.createException(status, answer, _said(body))
            data = None if status == 304 else json.loads(body)
            return Page(data, answer.get("etag"), _next(answer.get("link", "")), status == 304)

        return self._until_answered(send, path)

    def pages(self, path: str, parameters: Mapping[str, Any] | None = None) -> Iterator[Page]:
        """All pages of `path`, in order."""
        page = self.get(path, parameters)
        yield page
        while page.next:
            page = self.get(page.next)
            yield page

    def graphql(self, query: str, variables: Mapping[str, Any]) -> Mapping[str, Any]:
        """The `data` of a GraphQL answer; a part that does not exist any more is null in it.

        Raises:
            as `get`; GitHubError also where the query itself is refused.
        """

        def send() -> Any:
            try:
                return self._client.requester.graphql_query(query, dict(variables))[1]
            except github.GithubException as error:
                return _partial(error)

        answer = self._until_answered(send, "/graphql")
        data = answer.get("data") if isinstance(answer, Mapping) else None
        if not isinstance(data, Mapping):
            raise GitHubError(f"GitHub refused the GraphQL query: {_messages(answer)}")
        return data

    def _until_answered(self, send: Callable[[], _Answer], path: str) -> _Answer:
        for attempt in range(MAX_TRIES):
            try:
                self.requests += 1
                return send()
            except github.GithubException as error:
                pause = self._pause_for(error, attempt, path)
                reason = f"GitHub answers {error.status}"
            except _TRANSIENT as error:
                pause = 2.0**attempt
                reason = _network_reason(error)
            except (ValueError, UnicodeDecodeError):
                pause, reason = 2.0**attempt, "GitHub's answer was cut off"
            except (AssertionError, RuntimeError, requests.RequestException) as error:
                raise GitHubError(f"GitHub cannot be reached: {error}") from None
            if attempt < MAX_TRIES - 1:
                self._wait(pause, reason)
        raise GitHubError(f"{reason} ({MAX_TRIES} tries); run again later, what was read is kept")

    def _pause_for(self, error: github.GithubException, attempt: int, path: str) -> float:
        """Seconds until it makes sense to try again.

        Raises:
            GitHubError: it never will.
        """
        headers = {k.lower(): v for k, v in (error.headers or {}).items()}
        if error.status >= 500:
            return _retry_after(headers, self._clock.now()) or 2.0**attempt
        limited = isinstance(error, github.RateLimitExceededException)
        if error.status == 429 or (error.status == 403 and (limited or _out_of_requests(headers))):
            return self._limit_seconds(headers, attempt)
        if error.status == 401:
            raise GitHubError(
                "GitHub refused the token (expired or revoked): renew it, or unset GITHUB_TOKEN "
                "and GH_TOKEN to go without"
            )
        if error.status in (404, 410):
            raise NotThereError(f"GitHub has nothing at {path} that this token may see")
        if error.status == 403:
            raise GitHubError(f"GitHub does not allow {path}: {_messages(error.data)}")
        raise GitHubError(f"GitHub answers {error.status} to {path}: {_messages(error.data)}")

    def _limit_seconds(self, headers: Mapping[str, str], attempt: int) -> float:
        now = self._clock.now()
        seconds = _retry_after(headers, now)
        if seconds is None and _out_of_requests(headers):
            # One second more: the reset time is rounded down.
            seconds = max(1.0, _number(headers.get("x-ratelimit-reset")) + 1 - now)
        if seconds is None:
            seconds = SECONDARY_LIMIT_SECONDS * 2**attempt
        if seconds > self._max_wait:
            at = time.strftime("%H:%M:%S UTC", time.gmtime(now + seconds))
            hint = "" if self.authenticated else " (with GITHUB_TOKEN set it is 5,000 an hour)"
            raise RateLimitedError(
                f"GitHub's rate limit is used up until {at}{hint}: run again then, what was read "
                "is kept",
                now + seconds,
            )
        return seconds

    def _wait(self, seconds: float, reason: str) -> None:
        self._say(f"{reason}: waiting {seconds:.0f} s")
        self._clock.sleep(seconds)


def _said(body: str) -> dict[str, Any]:
    """The JSON of an error, {} where a proxy answered with something else."""
    try:
        data = json.loads(body)
    except (ValueError, RecursionError):
        return {}
    return data if isinstance(data, dict) else {}


def _next(link: str) -> str | None:
    found = _NEXT.search(link)
    return found[1] if found else None


def _partial(error: github.GithubException) -> Any:
    """What a GraphQL answer with errors holds, where those say only that something is gone.

    Raises:
        GithubException: it was refused for another reason.
    """
    errors = error.data.get("errors") if isinstance(error.data, Mapping) else None
    kinds = {e.get("type") for e in errors if isinstance(e, Mapping)} if errors else set()
    if "RATE_LIMITED" in kinds:
        raise github.RateLimitExceededException(403, error.data, error.headers, None) from None
    if None in kinds:  # "Something went wrong while executing your query": a server error
        raise github.GithubException(502, error.data, error.headers) from None
    if kinds == {"NOT_FOUND"}:
        return error.data
    raise error


def _retry_after(headers: Mapping[str, str], now: float) -> float | None:
    """Retry-After in seconds: a number or a date (RFC 9110, 10.2.3)."""
    given = headers.get("retry-after")
    if given is None:
        return None
    if given.strip().isdecimal():
        return float(given)
    try:
        return max(1.0, parsedate_to_datetime(given).timestamp() - now)
    except (TypeError, ValueError):
        return None


def _out_of_requests(headers: Mapping[str, str]) -> bool:
    return headers.get("x-ratelimit-remaining", "").strip() == "0"


def _number(text: str | None) -> float:
    try:
        return float(text or "")
    except ValueError:
        return 0.0


def _network_reason(error: Exception) -> str:
    if isinstance(error, requests.Timeout):
        return "GitHub does not answer in time"
    if isinstance(error, requests.exceptions.SSLError):
        return "the connection to GitHub is not trusted"
    return "the connection to GitHub broke"


def _messages(data: Any) -> str:
    """What GitHub says is wrong, in one short line."""
    if not isinstance(data, Mapping):
        return "no reason given"
    errors = data.get("errors")
    said = [data.get("message")] if data.get("message") else []
    if isinstance(errors, list):
        said += [e.get("message") for e in errors if isinstance(e, Mapping)]
    return "; ".join(str(s)[:200] for s in said if s)[:400] or "no reason given"
