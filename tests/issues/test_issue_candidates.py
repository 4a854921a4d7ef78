"""What the store alone can tell of an issue's chances, and why."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from trackrecord.issues import records
from trackrecord.issues.candidates import Candidate, Judgement, candidates
from trackrecord.issues.models import Issue, Note
from trackrecord.issues.store import Store

NOW = datetime(2026, 11, 1, tzinfo=UTC)
BUG = "It fails.\n```python\nfrom vllm import LLM\n```\nValueError: no"


@pytest.fixture(name="store")
def _store(tmp_path: Path) -> Store:
    return Store.open(tmp_path / "s.sqlite", "acme/engine", create=True)


def put(store: Store, number: int, *labels: str, pull: bool = False, **fields: Any) -> None:
    data = {"number": number, "title": f"Thread {number}", "body": BUG, "state": "open", **fields}
    data["labels"] = [{"name": label} for label in labels]
    with store.transaction():
        store.put_thread(records.thread(data, is_pull=pull))


def ranked(store: Store, **how: Any) -> list[Candidate]:
    return candidates(store, now=NOW, **how)


def names(store: Store, **how: Any) -> list[str]:
    return [each.name for each in ranked(store, **how)]


def test_what_is_taken_is_no_candidate(store: Store) -> None:
    put(store, 1)
    put(store, 2, state="closed")
    put(store, 3, assignees=[{"login": "someone"}])
    put(store, 4, "duplicate")
    put(store, 5)
    put(store, 6, pull=True, body="Fixes #5")
    put(store, 7)
    put(store, 8, pull=True, body="Closes #7", state="closed", merged=True)
    assert names(store) == ["#1"]


def test_an_abandoned_attempt_leaves_the_issue_open_and_is_told(store: Store) -> None:
    put(store, 1)
    put(store, 2, pull=True, body="Fixes #1", state="closed", merged=False)
    (found,) = ranked(store)
    assert "1 pull request(s) for it were closed without merging" in found.against


def test_a_pull_request_whose_fate_is_unknown_takes_the_issue(store: Store) -> None:
    put(store, 1)
    put(store, 2, pull=True, body="Fixes #1", state="closed")
    assert names(store) == []


def test_an_invitation_ranks_above_a_question(store: Store) -> None:
    put(store, 1, "usage")
    put(store, 2, "bug", "good first issue")
    put(store, 3, "bug")
    assert names(store) == ["#2", "#3", "#1"]


def test_a_report_that_shows_something_ranks_above_one_that_does_not(store: Store) -> None:
    put(store, 1, body="")
    put(store, 2)
    first, last = ranked(store)
    assert first.name == "#2"
    assert "brings code or a command to reproduce it" in first.reasons
    assert "error message: ValueError: no" in first.reasons
    assert "says nothing beyond its title" in last.against


def test_fresh_ranks_above_forgotten(store: Store) -> None:
    put(store, 1, updated_at="2024-01-01T00:00:00Z")
    put(store, 2, updated_at="2026-10-30T00:00:00Z")
    first, last = ranked(store)
    assert first.reasons[0] == "no pull request names it"
    assert "active 2 days ago" in first.reasons
    assert last.against == ["quiet for 1035 days"]


@pytest.mark.parametrize(("gpus", "out_of_reach"), [(None, True), (0, True), (2, True), (8, False)])
def test_hardware_beyond_ones_own_counts_against(
    gpus: int | None, out_of_reach: bool, store: Store
) -> None:
    put(store, 1, body="vllm serve m --tensor-parallel-size 4")
    (found,) = ranked(store, gpus=gpus)
    assert ("runs on 4 accelerators" in found.against) is out_of_reach


def test_the_gauntlets_word_outranks_every_sign(store: Store) -> None:
    put(store, 1, "good first issue")
    put(store, 2)
    put(store, 3)

    def judge(issue: Issue) -> Judgement | None:
        if issue.number == 1:
            return Judgement(disqualified=True, points=0, reason="claimed")
        return Judgement(False, 5.0, "free") if issue.number == 2 else None

    assert names(store, judge=judge) == ["#2", "#3"]
    assert "free" in ranked(store, judge=judge)[0].reasons


def test_the_gauntlet_is_asked_no_more_than_needed(store: Store) -> None:
    for number in range(1, 30):
        put(store, number)
    asked: list[int] = []

    def judge(issue: Issue) -> Judgement:
        asked.append(issue.number)
        return Judgement(issue.number % 2 == 0, 0.0, "odd")

    assert len(names(store, limit=3, judge=judge)) == 3
    assert len(asked) <= 6


@pytest.mark.parametrize(("state", "shift"), [("open", -1.0), ("closed", 1.5)])
def test_a_note_is_worth_more_once_what_it_waits_for_is_closed(
    state: str, shift: float, store: Store
) -> None:
    put(store, 35915, state=state, assignees=[{"login": "someone"}])
    note = Note(0, "a.py", 3, "TODO: remove once #35915", None, "issue", "#35915", 2.0, True)
    with store.transaction():
        store.put_notes([("key", note)])
    (found,) = ranked(store)
    assert (found.name, found.url, found.score) == ("T1", "a.py:3", 2.0 + shift)


def test_nothing_stored_is_no_candidate(store: Store) -> None:
    assert ranked(store) == []
