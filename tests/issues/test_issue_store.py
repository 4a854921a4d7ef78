"""The store keeps what GitHub said: once, the newest of it, and nothing by halves."""

from __future__ import annotations

import os
import sqlite3
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trackrecord.issues import records
from trackrecord.issues.errors import IssuesError, RecordError
from trackrecord.issues.models import Event, when
from trackrecord.issues.store import Store


@pytest.fixture(name="store")
def _store(tmp_path: Path) -> Store:
    return Store.open(tmp_path / "s.sqlite", "acme/engine", create=True)


def put(store: Store, number: int, **fields: Any) -> bool:
    with store.transaction():
        return store.put_thread(records.thread({"number": number, "title": "T", **fields}))


def test_a_partial_record_changes_only_what_it_knows(store: Store) -> None:
    put(store, 1, body="long", labels=[{"name": "bug"}], state="open")
    put(store, 1, state="closed")
    issue = store.issue(1)
    assert issue is not None
    assert (issue.body, issue.labels, issue.state) == ("long", ("bug",), "closed")


def test_null_means_known_to_be_empty(store: Store) -> None:
    put(store, 1, state="closed", closed_at="2026-01-01T00:00:00Z", state_reason="completed")
    put(store, 1, state="open", closed_at=None, state_reason=None)
    issue = store.issue(1)
    assert issue is not None
    assert (issue.closed_at, issue.state_reason) == (None, None)


def test_an_older_record_does_not_replace_a_newer_one(store: Store) -> None:
    put(store, 1, title="new", updated_at="2026-05-01T00:00:00Z")
    assert not put(store, 1, title="old", updated_at="2026-04-01T00:00:00Z")
    assert store.issue(1).title == "new"  # type: ignore[union-attr]


def test_merged_is_unknown_until_somebody_says(store: Store) -> None:
    with store.transaction():
        store.put_thread(records.thread({"number": 1}, is_pull=True))
        store.put_thread(records.thread({"number": 2, "merged": True}, is_pull=True))
        store.put_thread(records.thread({"number": 3, "merged_at": None}, is_pull=True))
    assert [pull.merged for pull in store.all_pulls()] == [None, True, False]


def test_files_that_were_not_fetched_are_not_no_files(store: Store) -> None:
    with store.transaction():
        store.put_thread(records.thread({"number": 1}, is_pull=True))
        store.put_thread(records.thread({"number": 2}, is_pull=True))
        store.put_files(2, [])
    assert [pull.files for pull in store.all_pulls()] == [None, ()]


def test_pulls_that_change_a_file(store: Store) -> None:
    with store.transaction():
        store.put_thread(records.thread({"number": 1}, is_pull=True))
        store.put_files(1, ["a.py", "b.py"])
    assert [pull.number for pull in store.pulls_changing("b.py")] == [1]
    assert store.pulls_changing("c.py") == []


def test_links_come_from_titles_bodies_comments_and_timelines(store: Store) -> None:
    with store.transaction():
        store.put_thread(records.thread({"number": 1}))
        store.put_thread(
            records.thread({"number": 2, "title": "Fix #1", "body": "see #1"}, is_pull=True)
        )
        store.put_comment(records.comment({"id": 9, "body": "also #1\n> and #7"}, 3))
        store.put_events(1, [Event("cross-referenced", None, "a", 4, True)])
        store.put_events(1, [Event("cross-referenced", None, "a", 4, True)])
    found = [(link.number, link.kind, link.where, link.is_pull) for link in store.links_to(1)]
    assert found == [
        (2, "closes", "title", True),
        (4, "cross-referenced", "timeline", True),
        (2, "mentions", "body", True),
        (3, "mentions", "comment 9", False),
    ]
    assert [link.number for link in store.pulls_mentioning(1)] == [2, 4, 2]
    assert [link.target for link in store.links_from(3)] == [1]


def test_an_edit_takes_its_links_back(store: Store) -> None:
    put(store, 2, body="Fixes #1")
    put(store, 2, body="Fixes nothing")
    assert store.links_to(1) == []


def test_another_repositorys_thread_is_no_link(store: Store) -> None:
    put(store, 2, body="Fixes other/project#1 and https://github.com/other/project/issues/1")
    assert store.links_to(1) == []


def test_comments_come_in_order_and_only_once(store: Store) -> None:
    with store.transaction():
        for identity in (30, 10, 20, 10):
            store.put_comment(records.comment({"id": identity, "body": str(identity)}, 1))
    assert [comment.body for comment in store.comments(1)] == ["10", "20", "30"]


def test_equal_comments_without_an_id_are_both_kept(store: Store) -> None:
    record = records.comment({"body": "+1", "user": {"login": "a"}}, 1)
    for _ in range(2):
        with store.transaction():
            store.put_comment(record, 0)
            store.put_comment(record, 1)
    assert [comment.body for comment in store.comments(1)] == ["+1", "+1"]


def test_a_failed_transaction_leaves_nothing(store: Store) -> None:
    def fail_halfway() -> None:
        with store.transaction():
            store.put_thread(records.thread({"number": 1}))
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        fail_halfway()
    assert store.counts()["issues"] == 0


def test_text_that_no_database_takes_is_made_storable(store: Store) -> None:
    put(store, 1, body="a\x00b\ud800c")
    assert store.issue(1).body == "a\ufffdb\ufffdc"  # type: ignore[union-attr]


def test_reading_where_nothing_is_stored_says_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(IssuesError, match="issues sync acme/engine"):
        Store.open(tmp_path / "none.sqlite", "acme/engine")
    assert list(tmp_path.iterdir()) == []


def test_a_damaged_file_is_said_to_be_one(tmp_path: Path) -> None:
    path = tmp_path / "s.sqlite"
    path.write_bytes(b"not a database, but long enough to be one " * 30)
    with pytest.raises(IssuesError, match="move it away"):
        Store.open(path, "acme/engine")


def damaged(tmp_path: Path) -> Path:
    path = tmp_path / "s.sqlite"
    with Store.open(path, "acme/engine", create=True) as store:
        for number in range(1, 400):
            put(store, number, body="word " * 200)
        store.connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    content = bytearray(path.read_bytes())
    content[3 * 4096 :] = b"\xa5" * (len(content) - 3 * 4096)
    path.write_bytes(content)
    return path


def test_damage_that_shows_while_reading_is_one_error(tmp_path: Path) -> None:
    path = damaged(tmp_path)
    with pytest.raises(IssuesError, match="move it away"), Store.open(path, "acme/engine") as store:
        list(store.all_issues())


def test_a_store_that_somebody_writes_is_not_called_damaged(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    connect = sqlite3.connect
    monkeypatch.setattr(sqlite3, "connect", lambda *a, **kw: connect(*a, **kw | {"timeout": 0}))
    with (
        store.transaction(),
        pytest.raises(IssuesError, match="another program is writing") as caught,
        Store.open(store.path, "acme/engine") as other,
    ):
        put(other, 1)
    assert "move" not in str(caught.value)


def test_reading_needs_no_right_to_write(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    put(store, 1, body="word")
    store.close()
    # As on a read-only disk, also for root.
    monkeypatch.setattr(os, "access", lambda path, mode: mode != os.W_OK)
    before = sorted(store.path.parent.iterdir())
    with Store.open(store.path, "acme/engine") as read_only:
        assert read_only.issue(1) is not None
        assert sorted(store.path.parent.iterdir()) == before
        with pytest.raises(IssuesError, match="not writable"):
            put(read_only, 2)


def test_a_number_that_no_thread_can_have_is_unknown(store: Store) -> None:
    for number in (10**30, 2**63, 0, -1):
        assert store.issue(number) is None
        assert store.pull(number) is None
        assert not store.is_gone(number)
        assert store.comments(number) == store.timeline(number) == []
        assert store.links_to(number) == store.links_from(number) == []


def test_a_store_of_another_repository_or_version_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "s.sqlite"
    Store.open(path, "acme/engine", create=True).close()
    with pytest.raises(IssuesError, match="acme/engine"):
        Store.open(path, "acme/other")
    connection = sqlite3.connect(path)
    connection.execute("PRAGMA user_version = 99")
    connection.close()
    with pytest.raises(IssuesError, match="another version"):
        Store.open(path, "acme/engine")


@pytest.mark.parametrize(
    ("data", "field"),
    [
        ({}, "number"),
        ({"number": True}, "number"),
        ({"number": -1}, "number"),
        ({"number": 10**30}, "number"),
        ({"number": 1, "title": 3}, "title"),
        ({"number": 1, "state": "ajar"}, "state"),
        ({"number": 1, "labels": "bug"}, "labels"),
        ({"number": 1, "user": "me"}, "user"),
        ({"number": 1, "created_at": "yesterday"}, "created_at"),
        ({"number": 1, "created_at": 5}, "created_at"),
    ],
)
def test_a_record_of_the_wrong_form_names_the_field(data: dict[str, Any], field: str) -> None:
    with pytest.raises(RecordError, match=field):
        records.thread(data)


FIELDS = ("title", "body", "state", "labels", "user", "assignees", "created_at", "event", "source")


@given(
    st.dictionaries(
        st.sampled_from(FIELDS), st.none() | st.integers() | st.text() | st.lists(st.none())
    )
)
def test_any_object_is_a_record_or_an_error(data: dict[str, Any]) -> None:
    try:
        assert records.thread({"number": 1, **data})["number"]
        records.comment(data, 1)
        records.events([data], "o/r")
    except RecordError as error:
        assert str(error).isprintable() or "\\" in str(error)  # noqa: PT017


@pytest.mark.parametrize(
    ("given_time", "stored"),
    [
        ("2026-08-27T02:00:00+02:00", "2026-08-27T00:00:00Z"),
        ("2026-08-27T00:00:00.123Z", "2026-08-27T00:00:00Z"),
        ("2026-08-27", "2026-08-27T00:00:00Z"),
    ],
)
def test_times_are_stored_in_one_form(given_time: str, stored: str) -> None:
    assert records.time(given_time, "t") == stored
    assert when(stored) is not None


def test_no_time_is_no_moment() -> None:
    assert when(None) is None
    assert when("soon") is None
