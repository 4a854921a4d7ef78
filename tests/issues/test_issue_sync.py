"""Whatever happens on the way, a sync that ends leaves what GitHub has."""

from __future__ import annotations

import contextlib
import dataclasses
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from github_server import FAULTS, Answer, GitHubServer, ManualClock, running, too_many
from github_world import Event, Said, Thread, World, numbered
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from store_contents import contents

from trackrecord.issues import sync as sync_module
from trackrecord.issues.errors import GitHubError
from trackrecord.issues.github import GitHub, RateLimitedError
from trackrecord.issues.store import Store
from trackrecord.issues.sync import Synced, canonical_name, sync, sync_numbers
from trackrecord.issues.terms import refresh

TOKEN = "ghp_not_a_real_token"
PAGE = 3


@pytest.fixture(autouse=True)
def _small_pages(monkeypatch: pytest.MonkeyPatch) -> None:
    """A page holds three things, so that little worlds have many."""
    for module in (sync_module,):
        monkeypatch.setattr(module, "PER_PAGE", PAGE)
        monkeypatch.setattr(module, "BATCH", 2)


def small_world() -> World:
    at = "2026-02-03T00:00:00Z"
    world = World()
    for number, changed in numbered(1, 8):
        world.add(Thread(number, title=f"Thread {number}", updated_at=changed, state="open"))
    for identity, changed in numbered(101, 8):
        said = Said(identity, 1 + identity % 8, body=f"About #{identity % 8}", updated_at=changed)
        world.add(said)
    pull = world.threads[6]
    pull.is_pull, pull.files, pull.body = True, ["engine/core.py", "tests/test_core.py"], "Fixes #2"
    pull.events = [Event("labeled", at, label="v1"), Event("reviewed", at, reason="approved")]
    world.threads[2].events = [
        Event("cross-referenced", at, number=6),
        Event("closed", at, commit="a" * 40, reason="completed"),
    ]
    world.threads[2].state = "closed"
    world.threads[3].events = [Event("labeled", at, label=f"l{n}") for n in range(PAGE + 2)]
    return world


@pytest.fixture(name="server")
def _server() -> Iterator[GitHubServer]:
    with running(GitHubServer(small_world())) as server:
        yield server


def client(server: GitHubServer, token: str | None = TOKEN, **how: Any) -> GitHub:
    return GitHub(token, server.url, clock=server.clock, **how)


def opened(folder: Path, name: str = "s") -> Store:
    return Store.open(folder / f"{name}.sqlite", "acme/engine", create=True)


def synced(server: GitHubServer, folder: Path, token: str | None = TOKEN) -> dict[str, Any]:
    """What an undisturbed sync leaves."""
    with opened(folder, f"reference-{token}") as store:
        sync(store, client(server, token))
        refresh(store)
        return contents(store)


# What is read


@pytest.mark.parametrize("token", [TOKEN, None], ids=["graphql", "rest"])
def test_everything_is_read(server: GitHubServer, tmp_path: Path, token: str | None) -> None:
    with opened(tmp_path) as store:
        sync(store, client(server, token))
        assert store.counts() == {"issues": 7, "pulls": 1, "comments": 8, "events": 9}
        pull = store.pull(6)
        assert pull is not None
        assert pull.files == ("engine/core.py", "tests/test_core.py")
        assert pull.head == "reporter:topic"
        kinds = [event.kind for event in store.timeline(2)]
        assert kinds == ["cross-referenced", "closed"]
        assert [link.number for link in store.pulls_mentioning(2) if link.kind == "closes"] == [6]


def test_both_ways_to_the_details_leave_the_same_store(
    server: GitHubServer, tmp_path: Path
) -> None:
    assert synced(server, tmp_path, TOKEN) == synced(server, tmp_path, None)


def test_more_events_than_one_query_answers(server: GitHubServer, tmp_path: Path) -> None:
    at = "2026-02-03T00:00:00Z"
    server.world.threads[3].events = [Event("labeled", at, label=f"l{n}") for n in range(103)]
    with opened(tmp_path) as store:
        sync(store, client(server))
        assert [event.detail for event in store.timeline(3)] == [f"l{n}" for n in range(103)]


def test_more_threads_in_one_second_than_fit_a_page(tmp_path: Path) -> None:
    world = World()
    for number in range(1, 12):
        world.add(Thread(number, updated_at="2026-02-01T10:00:00Z"))
    world.add(Thread(12, updated_at="2026-02-01T10:00:01Z"))
    with running(GitHubServer(world)) as server, opened(tmp_path) as store:
        sync(store, client(server))
        assert store.counts()["issues"] == 12


def test_only_what_changed_is_read_again(server: GitHubServer, tmp_path: Path) -> None:
    with opened(tmp_path) as store:
        sync(store, client(server))
        server.world.threads[4].title = "Another title"
        server.world.threads[4].updated_at = "2026-05-01T00:00:00Z"
        before = len(server.requests)
        done = sync(store, client(server))
        assert store.issue(4).title == "Another title"  # type: ignore[union-attr]
        assert done.details == 1
        assert len(server.requests) - before <= 4


def test_nothing_changed_costs_nothing(server: GitHubServer, tmp_path: Path) -> None:
    with opened(tmp_path) as store:
        sync(store, client(server))
        before = contents(store)
        done = sync(store, client(server))
        assert (done.threads, done.comments, done.details, done.unchanged) == (0, 0, 0, 2)
        assert contents(store) == before


def test_a_resting_page_that_is_full_is_never_taken_as_unchanged(tmp_path: Path) -> None:
    """Its tag covers what it lists, not that a further page has appeared."""
    world = World()
    for number, changed in numbered(1, PAGE):
        world.add(Thread(number, updated_at=changed))
    with running(GitHubServer(world)) as server, opened(tmp_path) as store:
        sync(store, client(server))
        world.add(Thread(99, updated_at="2026-06-01T00:00:00Z"))
        sync(store, client(server))
        assert store.issue(99) is not None


def test_since_reaches_back_only_so_far_and_can_be_widened(
    server: GitHubServer, tmp_path: Path
) -> None:
    with opened(tmp_path) as store:
        sync(store, client(server), since="2026-02-01T00:05:00Z")
        assert [issue.number for issue in store.all_issues()] == [7, 8]
        sync(store, client(server))
        assert store.counts()["issues"] == 2
        sync(store, client(server), since="2026-01-01T00:00:00Z")
        assert store.counts()["issues"] == 7


def test_chosen_numbers_bring_what_they_are_linked_to(server: GitHubServer, tmp_path: Path) -> None:
    with opened(tmp_path) as store:
        done = sync_numbers(store, client(server, None), [2, 4000])
        assert done.missing == [4000]
        assert store.pull(6) is not None
        assert [c.number for c in store.comments(2)] == [2]
        assert store.issue(5) is None


def test_chosen_numbers_that_did_not_change_cost_nothing(
    server: GitHubServer, tmp_path: Path
) -> None:
    server.hourly_limit = 60
    with opened(tmp_path) as store:
        sync_numbers(store, client(server, None), [4])
        before = contents(store)
        used = server._used
        sync_numbers(store, client(server, None), [4])
        assert server._used == used
        assert contents(store) == before


def test_a_thread_that_is_gone_is_kept_out_of_the_lists(
    server: GitHubServer, tmp_path: Path
) -> None:
    with opened(tmp_path) as store:
        sync(store, client(server))
        del server.world.threads[5]
        sync_numbers(store, client(server), [5])
        assert 5 not in [issue.number for issue in store.all_issues()]


def test_a_renamed_repository_is_found_under_its_new_name(server: GitHubServer) -> None:
    server.world.old_names = ["acme/motor"]
    assert canonical_name(client(server), "acme/motor") == "acme/engine"


# What goes wrong


@pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: fault.__name__)
@pytest.mark.parametrize("token", [TOKEN, None], ids=["graphql", "rest"])
def test_one_fault_anywhere_changes_nothing(
    fault: Any, token: str | None, server: GitHubServer, tmp_path: Path
) -> None:
    expected = synced(server, tmp_path, token)
    needed = len(server.requests)
    for place in range(1, needed + 1, 4):
        server.requests.clear()
        server.faults = {place: fault}
        with opened(tmp_path, f"{place}") as store:
            sync(store, client(server, token))
            refresh(store)
            assert contents(store) == expected


@settings(max_examples=12, deadline=None, suppress_health_check=list(HealthCheck))
@given(data=st.data())
def test_interrupted_anywhere_and_run_again_ends_with_the_same_store(data: st.DataObject) -> None:
    """The interruption comes between any two of: a request, any single write, a commit."""
    token = data.draw(st.sampled_from([TOKEN, None]))
    interruptions = data.draw(st.lists(st.integers(1, 150), min_size=1, max_size=3))
    with (
        running(GitHubServer(small_world())) as server,
        tempfile.TemporaryDirectory() as folder,
    ):
        expected = synced(server, Path(folder), token)
        for steps in interruptions:
            with opened(Path(folder)) as store, _interrupted(store, server, token, steps):
                pass
        with opened(Path(folder)) as store:
            sync(store, client(server, token))
            refresh(store)
            assert contents(store) == expected


@settings(max_examples=12, deadline=None, suppress_health_check=list(HealthCheck))
@given(data=st.data())
def test_people_write_on_while_a_sync_is_interrupted(data: st.DataObject) -> None:
    changed = data.draw(st.lists(st.integers(1, 8), max_size=5))
    steps = data.draw(st.integers(1, 120))
    with (
        running(GitHubServer(small_world())) as server,
        tempfile.TemporaryDirectory() as folder,
    ):
        with opened(Path(folder)) as store, _interrupted(store, server, TOKEN, steps):
            pass
        for place, number in enumerate(changed):
            thread = server.world.threads[number]
            thread.body = f"Changed {place} times"
            thread.updated_at = f"2026-03-01T00:0{place}:00Z"
            thread.events.append(Event("labeled", thread.updated_at, label="new"))
        with opened(Path(folder)) as store:
            sync(store, client(server))
            refresh(store)
            # Only how far the streams got depends on the way there.
            left = contents(store, without=("cursors",))
        del (expected := synced(server, Path(folder)))["cursors"]
        assert left == expected


class _interrupted:
    """Runs a sync that is broken off after `steps` requests and writes; its own end is fine too."""

    def __init__(self, store: Store, server: GitHubServer, token: str | None, steps: int) -> None:
        self.store, self.left = store, steps
        github = client(server, token)
        for name in ("get", "graphql"):
            self._count(github, name)
        for name in ("put_thread", "put_comment", "put_events", "put_files", "mark_details"):
            self._count(store, name)
        try:
            sync(store, github)
            refresh(store)
        except KeyboardInterrupt:
            assert not store.connection.in_transaction

    def _count(self, thing: object, name: str) -> None:
        real: Callable[..., Any] = getattr(thing, name)

        def counted(*args: Any, **kwargs: Any) -> Any:
            self.left -= 1
            if self.left < 0:
                raise KeyboardInterrupt
            return real(*args, **kwargs)

        setattr(thing, name, counted)

    def __enter__(self) -> None:
        pass

    def __exit__(self, *args: object) -> None:
        pass


def test_a_limit_of_few_requests_an_hour_is_waited_for(
    server: GitHubServer, tmp_path: Path
) -> None:
    server.hourly_limit = 4
    said: list[str] = []
    with opened(tmp_path) as store:
        sync(store, client(server, max_wait=4000, say=said.append))
        assert store.counts()["issues"] == 7
    assert server.clock.slept
    assert all(seconds <= 3601 for seconds in server.clock.slept)
    assert len(said) == len(server.clock.slept)
    assert said[0].startswith("GitHub answers 403: waiting ")


def test_a_limit_that_lasts_too_long_stops_and_goes_on_later(
    server: GitHubServer, tmp_path: Path
) -> None:
    server.hourly_limit = 4
    done = Synced()
    with opened(tmp_path) as store:
        for _ in range(20):
            if store.last_sync is not None:
                break
            with contextlib.suppress(RateLimitedError):
                sync(store, client(server, None, max_wait=60), details="open", done=done)
            server.clock.time += 3601
        assert store.last_sync is not None
        assert store.counts()["issues"] == 7
    assert server.clock.slept == []


def test_a_limit_says_until_when_and_what_would_help(server: GitHubServer, tmp_path: Path) -> None:
    server.hourly_limit = 1
    with (
        opened(tmp_path) as store,
        pytest.raises(RateLimitedError, match="5,000 an hour") as caught,
    ):
        sync(store, client(server, None, max_wait=60))
    assert 3500 < caught.value.until - server.clock.now() <= 3601


def test_retry_after_is_honoured_to_the_second(server: GitHubServer, tmp_path: Path) -> None:
    server.faults = {1: too_many}
    with opened(tmp_path) as store:
        sync(store, client(server))
    assert server.clock.slept == [5.0]


def test_a_server_that_stays_down_is_given_up(server: GitHubServer, tmp_path: Path) -> None:
    server.faults = dict.fromkeys(range(1, 100), FAULTS[2])
    with opened(tmp_path) as store, pytest.raises(GitHubError, match=r"502 \(6 tries\)"):
        sync(store, client(server))
    assert server.clock.slept == [1, 2, 4, 8, 16]


def graphql_faults(document: Any) -> dict[int, Any]:
    """What GraphQL answers to the first query; REST is left alone."""
    asked: list[str] = []

    def fault(server: GitHubServer, answer: Answer) -> Answer:
        if not server.requests[-1].endswith("/graphql") or asked:
            return answer
        asked.append(server.requests[-1])
        return Answer(200, document)

    return dict.fromkeys(range(1, 100), fault)


def test_a_query_that_went_wrong_is_asked_again(server: GitHubServer, tmp_path: Path) -> None:
    expected = synced(server, tmp_path)
    server.requests.clear()
    wrong = {"data": None, "errors": [{"message": "Something went wrong while executing"}]}
    server.faults = graphql_faults(wrong)
    with opened(tmp_path) as store:
        sync(store, client(server))
        refresh(store)
        assert contents(store) == expected
    assert server.clock.slept == [1.0]


def test_a_query_over_the_limit_waits(server: GitHubServer, tmp_path: Path) -> None:
    limit = {"errors": [{"type": "RATE_LIMITED", "message": "API rate limit exceeded"}]}
    server.faults = graphql_faults(limit)
    with opened(tmp_path) as store:
        sync(store, client(server))
        assert store.pull(6).files is not None  # type: ignore[union-attr]
    assert server.clock.slept == [60.0]


def test_a_repository_that_graphql_hides_does_not_empty_the_store(
    server: GitHubServer, tmp_path: Path
) -> None:
    hidden = {"data": {"repository": None}, "errors": [{"type": "NOT_FOUND", "message": "no"}]}
    server.faults = graphql_faults(hidden)
    with opened(tmp_path) as store:
        with pytest.raises(GitHubError):
            sync(store, client(server))
        assert store.counts()["issues"] == 7


def test_a_proxy_that_answers_in_html_is_no_crash(server: GitHubServer, tmp_path: Path) -> None:
    server.faults = {
        1: lambda _, answer: dataclasses.replace(answer, status=403, document="<html>")
    }
    with opened(tmp_path) as store, pytest.raises(GitHubError, match="does not allow"):
        sync(store, client(server))


def test_nobody_listens(tmp_path: Path) -> None:
    nowhere = GitHub(None, "http://127.0.0.1:9", clock=ManualClock())
    with opened(tmp_path) as store, pytest.raises(GitHubError, match="connection to GitHub broke"):
        sync(store, nowhere)


def test_an_expired_token_is_said_to_be_one_and_is_not_repeated(
    server: GitHubServer, tmp_path: Path
) -> None:
    server.token = "another"
    with opened(tmp_path) as store, pytest.raises(GitHubError) as caught:
        sync(store, client(server))
    assert "refused the token" in str(caught.value)
    assert TOKEN not in str(caught.value)


def test_the_token_is_sent_and_stored_nowhere(server: GitHubServer, tmp_path: Path) -> None:
    with opened(tmp_path) as store:
        sync(store, client(server))
    assert server.seen_authorization == {f"token {TOKEN}"}
    written = b"".join(path.read_bytes() for path in tmp_path.rglob("*") if path.is_file())
    assert TOKEN.encode() not in written


@pytest.mark.parametrize(
    "document", ["text", {"a": 1}, [1], [{"number": "one"}], [{"number": 1, "title": 3}]]
)
def test_what_is_not_githubs_form_is_an_error_and_changes_nothing(
    document: Any, server: GitHubServer, tmp_path: Path
) -> None:
    server.faults = {
        1: lambda _, answer: dataclasses.replace(answer, document=document, headers={})
    }
    with opened(tmp_path) as store, pytest.raises(GitHubError):
        sync(store, client(server))
    with opened(tmp_path) as store:
        assert store.counts()["issues"] == 0
