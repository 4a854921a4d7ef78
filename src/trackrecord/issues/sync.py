"""Brings the store up to date with GitHub, from wherever the last attempt got to.

Three streams, each with a cursor in the store: the threads and the comments in the order in which
they were last changed, then the details (timeline, files) of every thread whose details are older
than the thread.

Invariant: a page and the cursor behind it are written in one transaction. Whatever stops a run, the
next one goes on at that cursor, and the store ends as if nothing had happened.

A cursor is a time, not a page number: pages shift while people write, and a thread that moves to a
later page would be passed over. `since` is that time; a page number is used only among the threads
that were changed within one second. As it is undocumented whether `since` includes its own second,
the second before is asked for.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any, Literal

from trackrecord.issues import records
from trackrecord.issues.errors import GitHubError, RecordError
from trackrecord.issues.github import PER_PAGE, GitHub, NotThereError, Page
from trackrecord.issues.graphql import BATCH, details_query, read_details
from trackrecord.issues.models import when
from trackrecord.issues.store import Store

_TIME = "%Y-%m-%dT%H:%M:%SZ"

DetailScope = Literal["none", "open", "all"]
Progress = Callable[[str, int, int | None], None]
"""Is told the stream, how much of it is done, and of how much where that is known."""


@dataclass(slots=True)
class Synced:
    """What a run brought.

    Attributes:
        threads, comments, details: how many were read.
        unchanged: pages that GitHub said had not changed.
        missing: numbers that were asked for and that GitHub does not have.
    """

    threads: int = 0
    comments: int = 0
    details: int = 0
    unchanged: int = 0
    missing: list[int] = field(default_factory=list)


def canonical_name(client: GitHub, repo: str) -> str:
    """The repository's present "owner/name"; it may have been renamed.

    Raises:
        GitHubError: there is none, or the token may not see it.
    """
    try:
        data = client.get(f"/repos/{repo}").data
    except NotThereError:
        raise GitHubError(
            f"no repository {repo} that this token may see: check the name OWNER/REPO"
        ) from None
    name = data.get("full_name") if isinstance(data, dict) else None
    if not isinstance(name, str):
        raise GitHubError(f"not a GitHub API: its answer for {repo} has no full_name")
    return name


def sync(
    store: Store,
    client: GitHub,
    *,
    since: str | None = None,
    details: DetailScope = "all",
    done: Synced | None = None,
    progress: Progress = lambda stream, done, total: None,
    now: datetime | None = None,
) -> Synced:
    """Reads everything that changed since the last sync into `store`.

    Args:
        since: how far back the store is to reach (ISO 8601), taken once; None for the beginning,
            or for what an earlier run was told. Going further back reads everything again.
        details: whose timeline and files to read.
        done: where to count what was read, for a caller who wants to know after an error too.
        now: when this run began.

    Raises:
        GitHubError: GitHub refused or did not answer; `RateLimitedError` where it asks to wait
            longer than allowed. What was read is kept.
    """
    done = Synced() if done is None else done
    path = f"/repos/{store.repo}/issues"
    _begin(store, since, now or datetime.now(UTC))
    with _understood(path):
        _stream(store, client, "threads", path, done, progress)
        _stream(store, client, "comments", f"{path}/comments", done, progress)
        if details != "none":
            _details(store, client, _outdated(store, details), done, progress)
    with store.transaction():
        store.set_meta("last_sync", store.meta("sync_began") or "")
        store.set_meta("sync_began", "")
    return done


def sync_numbers(
    store: Store,
    client: GitHub,
    numbers: Sequence[int],
    *,
    done: Synced | None = None,
    progress: Progress = lambda stream, done, total: None,
) -> Synced:
    """Reads the threads `numbers`, with comments and details, and the threads they are linked to.

    Raises:
        GitHubError: as `sync`; a number that does not exist is in `missing` instead.
    """
    done = Synced() if done is None else done
    with _understood(f"/repos/{store.repo}/issues"):
        for place, number in enumerate(numbers):
            progress("threads", place, len(numbers))
            if not _one(store, client, number, done):
                done.missing.append(number)
        kept = [number for number in numbers if number not in done.missing]
        _details(store, client, kept, done, progress)
        linked = _linked(store, kept)
        found = [number for number in linked if _one(store, client, number, done)]
        _details(store, client, found, done, progress)
    return done


def _begin(store: Store, since: str | None, now: datetime) -> None:
    """Notes when this sync began, unless an earlier one is being continued."""
    with store.transaction():
        if not store.meta("sync_began"):
            store.set_meta("sync_began", now.astimezone(UTC).strftime(_TIME))
        reached = store.meta("reaches_back_to")
        if reached is None or (since and reached and since < reached):
            store.set_meta("reaches_back_to", since or "")
            store.connection.execute("DELETE FROM cursors")


@contextmanager
def _understood(path: str) -> Iterator[None]:
    """An answer of another form than GitHub documents is GitHub's error, not a crash."""
    try:
        yield
    except (RecordError, KeyError, TypeError, AttributeError) as error:
        raise GitHubError(f"GitHub's answer to {path} cannot be understood: {error}") from error


def _stream(
    store: Store, client: GitHub, stream: str, path: str, done: Synced, progress: Progress
) -> None:
    """Reads `path` from the stream's cursor to its end."""
    keep = _keep_thread if stream == "threads" else _keep_comment
    page: Page | None = None
    while page is None or page.next:
        since, number = _cursor(store, stream)
        parameters: dict[str, Any] = {"sort": "updated", "direction": "asc"}
        parameters |= {"state": "all"} if stream == "threads" else {}
        parameters |= {"since": since} if since else {}
        key = f"{path} {since} {number}"
        page = client.get(
            path, {**parameters, "per_page": PER_PAGE, "page": number}, _etag(store, key)
        )
        if page.unchanged:
            done.unchanged += 1
            return
        with store.transaction():
            for entry in page.data:
                keep(store, entry)
            if page.next:
                since, number = _behind(page.data, since, number)
            elif len(page.data) < PER_PAGE:
                _set_etag(store, key, page.etag)
            store.connection.execute(
                "INSERT OR REPLACE INTO cursors VALUES (?, ?, ?)", (stream, since, number)
            )
        count = getattr(done, stream) + len(page.data)
        setattr(done, stream, count)
        progress(stream, count, None)


def _cursor(store: Store, stream: str) -> tuple[str | None, int]:
    row = store.connection.execute(
        "SELECT since, page FROM cursors WHERE stream = ?", (stream,)
    ).fetchone()
    return (store.meta("reaches_back_to") or None, 1) if row is None else (row[0], row[1])


def _behind(
    entries: Sequence[dict[str, Any]], since: str | None, number: int
) -> tuple[str | None, int]:
    """The cursor behind a page that is not the last: a later time, else the next page."""
    last = when(records.time(entries[-1]["updated_at"], "updated_at")) if entries else None
    if last is not None:
        second_before = (last - timedelta(seconds=1)).strftime(_TIME)
        if since is None or second_before > since:
            return second_before, 1
    return since, number + 1


def _keep_thread(store: Store, entry: dict[str, Any]) -> None:
    store.put_thread(records.thread(entry))


def _keep_comment(store: Store, entry: dict[str, Any]) -> None:
    store.put_comment(records.comment(entry))


def _outdated(store: Store, scope: DetailScope) -> list[int]:
    """The threads whose details are older than they are, the newest first."""
    rows = store.connection.execute(
        "SELECT number FROM threads WHERE NOT gone AND details_of IS NOT coalesce(updated_at, '') "
        "AND (?1 = 'all' OR state = 'open') ORDER BY updated_at DESC, number DESC",
        (scope,),
    )
    return [number for (number,) in rows]


def _details(
    store: Store, client: GitHub, numbers: Sequence[int], done: Synced, progress: Progress
) -> None:
    # GraphQL answers nobody without a token.
    size = BATCH if client.authenticated else 1
    for start in range(0, len(numbers), size):
        batch = numbers[start : start + size]
        rest = _details_by_graphql(store, client, batch) if client.authenticated else batch
        for number in rest:
            _details_by_rest(store, client, number)
        done.details += len(batch)
        progress("details", start + len(batch), len(numbers))


def _details_by_graphql(store: Store, client: GitHub, numbers: Sequence[int]) -> list[int]:
    """Stores the details of `numbers`; returns those with more than one page of them."""
    owner, _, name = store.repo.partition("/")
    data = client.graphql(details_query(numbers), {"owner": owner, "name": name})
    found = {number: read_details(data, number, store.repo) for number in numbers}
    with store.transaction():
        for number, details in found.items():
            if details is None:
                store.mark_gone(number)
            elif details.complete:
                if details.columns:
                    store.put_thread({"number": number, **details.columns})
                if details.files is not None:
                    store.put_files(number, details.files)
                store.put_events(number, details.events)
                store.mark_details(number)
    return [number for number, details in found.items() if details and not details.complete]


def _details_by_rest(store: Store, client: GitHub, number: int) -> None:
    base = f"/repos/{store.repo}"
    etags: dict[str, str] = {}
    pull = files = None
    try:
        # The pull request first: it carries the time by which the rest is at least as new.
        if store.pull(number):
            pull = client.get(f"{base}/pulls/{number}").data
            files = _changed(store, client, f"{base}/pulls/{number}/files", etags)
        events = _changed(store, client, f"{base}/issues/{number}/timeline", etags)
    except NotThereError:
        with store.transaction():
            store.mark_gone(number)
        return
    with store.transaction():
        if pull is not None:
            store.put_thread(records.thread(pull, is_pull=True))
        if files is not None:
            store.put_files(number, records.paths(files))
        if events is not None:
            store.put_events(number, records.events(events, store.repo))
        store.mark_details(number)
        for path, etag in etags.items():
            _set_etag(store, path, etag)


def _one(store: Store, client: GitHub, number: int, done: Synced) -> bool:
    """Reads one thread and its comments; False if GitHub does not have it."""
    path = f"/repos/{store.repo}/issues/{number}"
    etags: dict[str, str] = {}
    try:
        page = client.get(path, None, _etag(store, path))
        comments = _changed(store, client, f"{path}/comments", etags)
    except NotThereError:
        with store.transaction():
            store.mark_gone(number)
        return False
    if page.data and page.data["number"] != number:
        return False  # moved to another repository, where it is another thread
    done.unchanged += page.unchanged
    with store.transaction():
        if page.data:
            store.put_thread(records.thread(page.data))
            _set_etag(store, path, page.etag)
        for comment in comments or ():
            store.put_comment(records.comment(comment, number))
        for key, etag in etags.items():
            _set_etag(store, key, etag)
    done.threads += 1
    done.comments += len(comments or ())
    return True


def _linked(store: Store, numbers: Iterable[int]) -> list[int]:
    """The threads that `numbers` name or are named by, and that the store lacks."""
    wanted: dict[int, None] = {}
    for number in numbers:
        for link in (*store.links_to(number), *store.links_from(number)):
            other = link.number if link.target == number else link.target
            if store.issue(other) is None:
                wanted[other] = None
    return list(wanted)


def _changed(
    store: Store, client: GitHub, path: str, etags: dict[str, str]
) -> list[dict[str, Any]] | None:
    """All entries of the list at `path`; None if they are those that were stored last.

    Only a list on one page that is not full is conditional: the tag covers what a page says, not
    that another follows. The tag is put into `etags`, to be stored with the entries.
    """
    page = client.get(path, {"per_page": PER_PAGE}, _etag(store, path))
    if page.unchanged:
        return None
    entries = list(page.data)
    if page.etag and len(entries) < PER_PAGE:
        etags[path] = page.etag
    while page.next:
        page = client.get(page.next)
        entries += page.data
    return entries


def _etag(store: Store, key: str) -> str | None:
    row = store.connection.execute("SELECT etag FROM etags WHERE url = ?", (key,)).fetchone()
    return None if row is None else str(row[0])


def _set_etag(store: Store, key: str, etag: str | None) -> None:
    if etag:
        store.connection.execute("INSERT OR REPLACE INTO etags VALUES (?, ?)", (key, etag))
