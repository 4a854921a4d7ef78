"""What became of an issue: claimed, fixed, a duplicate, free, or not to be known."""

from __future__ import annotations

import gzip
import json
import os
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from gauntlet_threads import HOME, events, issue, merged, pull, put, says, store_of

from trackrecord.issues.importer import import_file
from trackrecord.issues.store import Store
from trackrecord.pr.gauntlet.agreement import compare, read_judgements
from trackrecord.pr.gauntlet.case import CaseError
from trackrecord.pr.gauntlet.claimed import Judgement, check_claimed, judge
from trackrecord.pr.gauntlet.thread import Thread, newest

NOW = datetime(2026, 3, 1, tzinfo=UTC)
CLOSED = {"state": "closed", "closed_at": "2026-02-28T00:00:00Z"}
STALE = {"state": "closed", "labels": ["bug", "stale"]}
Entry = dict[str, Any]


def judged(folder: Path, *entries: Entry, number: int = 1, now: datetime = NOW) -> Judgement:
    with store_of(folder, *entries) as store:
        thread = store.issue(number)
        assert thread is not None
        return judge(Thread(store, thread, now))


FREE: dict[str, list[Entry]] = {
    "nothing said": [issue()],
    "others have it too": [issue(), says("ada", "02-01", "+1"), says("bob", "02-02", "Same here.")],
    "asked, and nobody answered": [issue(), says("ada", "02-01", "Is anyone working on this?")],
    "contributions are welcome": [issue(), says("dev", "02-01", "PRs welcome!")],
    "a bot has much to say": [
        issue(),
        says("some-bot[bot]", "02-01", "I will fix this. Fixed by #7. Duplicate of #8."),
    ],
    "a claim that is only quoted": [issue(), says("ada", "02-01", "> I'll take this.\n\n+1")],
    "an open issue with the label stale": [issue(labels=["stale"])],
    "a bare address of an issue": [issue(), says("ada", "02-01", f"{HOME}/issues/77")],
    "a pull request that broke it": [
        issue(),
        says("ada", "02-01", "Bisected to #7, which introduced this."),
    ],
    "a claim given up": [
        issue(),
        says("ada", "02-01", "I'll work on this."),
        says("ada", "02-20", "Sorry, no time for it, feel free to take over."),
    ],
    "a pull request closed without merging": [
        issue(),
        pull(7, "Fixes #1", state="closed", merged=False, closed_at="2026-02-10T00:00:00Z"),
    ],
    "a claim whose pull request was closed": [
        issue(),
        says("author", "02-01", f"I opened {HOME}/pull/7 for this."),
        pull(7, state="closed", merged=False),
    ],
    "a report that speaks of work": [
        issue(body="We are working on a benchmark and I want to use this model.")
    ],
    "works with an older version": [
        issue(body="Seen with vllm 0.9.1"),
        says("ada", "02-01", "With v0.8.5 it works."),
    ],
}

CLAIMED: dict[str, list[Entry]] = {
    "assigned": [issue(assignees=[{"login": "ada"}])],
    "said so": [issue(), says("ada", "02-20", "I'd like to work on this.")],
    "in another language": [issue(), says("ada", "02-20", "我来修复这个问题")],
    "a sign of life after long": [
        issue(),
        says("ada", "01-02", "I'll work on this."),
        says("bob", "02-18", "@ada how is it going?"),
        says("ada", "02-20", "The tests are missing, the rest is there."),
    ],
    "an open pull request closes it": [issue(), pull(7, "Fixes #1")],
    "an open pull request named in a comment": [
        issue(),
        says("ada", "01-05", f"See {HOME}/pull/7"),
        pull(7),
    ],
    "a pull request of unknown fate": [issue(), says("ada", "01-05", f"{HOME}/pull/7")],
    "an offer that was accepted": [
        issue(body="It breaks. I'd be happy to open a PR if you agree."),
        says("dev", "02-20", "Please do!"),
    ],
    "invited, and said yes": [
        issue(),
        says("dev", "02-19", "@reporter would you like to open a PR for it?"),
        says("reporter", "02-20", "Sure, will do."),
    ],
    "given by a maintainer": [issue(), says("dev", "02-20", "Assigned to @ada.")],
    "somebody else is at it": [issue(), says("dev", "02-20", "@ada is working on this.")],
    "taken over from somebody who left": [
        issue(),
        says("ada", "01-02", "I'll work on this."),
        says("ada", "02-01", "No time anymore, sorry."),
        says("bob", "02-20", "Then I'll take it."),
    ],
    "claimed in another thread": [
        issue(),
        issue(2),
        says("ada", "02-20", "I will do the work on #1 instead.", number=2),
    ],
    "told to go ahead": [issue(), says("dev", "02-20", "@ada go ahead!")],
    "claimed, and closed since": [
        issue(state="closed"),
        says("ada", "02-27", "I'll send a PR."),
    ],
    "a draft that nobody touches": [
        issue(),
        pull(7, "Fixes #1", draft=True, updated_at="2026-01-05T00:00:00Z"),
    ],
}

STALE_CLAIM: dict[str, list[Entry]] = {
    "silent for a month": [issue(), says("ada", "01-02", "I'd like to work on this.")],
    "asked after, and no answer": [
        issue(),
        says("ada", "01-02", "I'll take this."),
        says("bob", "02-20", "@ada did you start?"),
    ],
    "closed by the stale bot": [issue(**STALE), says("ada", "01-20", "WIP")],
    "closed because the work was given up": [
        issue(state="closed"),
        says("ada", "01-02", "I want to try this one, my first contribution."),
        says("dev", "02-25", "The PR looks abandoned, closing."),
    ],
}

FIXED: dict[str, list[Entry]] = {
    "a merged pull request closes it": [issue(**CLOSED), merged(7, "Fixes #1")],
    "a list of which only the first has the word": [issue(**CLOSED), merged(7, "Fixes #2\n#1")],
    "said, with a number": [issue(**CLOSED), says("dev", "02-27", "Fixed by #7.")],
    "said, with hope": [issue(**CLOSED), says("dev", "02-27", "#7 should fix this.")],
    "gone with a version, says the reporter": [
        issue(**CLOSED),
        says("reporter", "02-27", "With v0.9.2 it seems to be gone."),
    ],
    "pointed at, and closed by the reporter": [
        issue(**CLOSED),
        says("dev", "02-20", f"See {HOME}/pull/7"),
        says("reporter", "02-27", "Great, closing."),
    ],
    "closed by a commit": [
        issue(**CLOSED),
        events(
            {"event": "closed", "created_at": "2026-02-28T00:00:00Z", "commit_id": "a" * 40},
        ),
    ],
    "open, yet fixed by what was merged": [
        issue(),
        merged(7),
        says("dev", "02-27", "This was fixed in #7."),
    ],
    "said in the thread of the fix": [
        issue(**CLOSED),
        pull(8),
        says("dev", "02-27", "#7 fixes #1, could you test both?", number=8),
    ],
}

DUPLICATE: dict[str, list[Entry]] = {
    "said plainly": [issue(**CLOSED), says("dev", "02-27", "Duplicate of #2.")],
    "closed in favour": [issue(**CLOSED), says("dev", "02-27", "Closing in favor of #2.")],
    "unsure, but closed for it": [
        issue(**CLOSED),
        says("dev", "02-27", "This looks like the same issue as #2, closing."),
    ],
    "open, said by the reporter": [issue(), says("reporter", "02-27", "Same as #2, my mistake.")],
    "marked on GitHub": [
        issue(**CLOSED, state_reason="duplicate"),
        says("dev", "02-27", "Duplicate of #2"),
    ],
    "said in the other thread": [
        issue(**CLOSED),
        issue(2),
        says("dev", "02-27", "#1 is a duplicate of this issue.", number=2),
    ],
    "in Chinese": [issue(**CLOSED), says("dev", "02-27", "和 #2 是同一个问题，先关了")],
}

UNKNOWN: dict[str, list[Entry]] = {
    "closed without a word": [issue(**CLOSED)],
    "closed as not planned": [issue(**CLOSED, state_reason="not_planned")],
    "closed for silence": [issue(**STALE)],
    "closed as outside of the project": [
        issue(**CLOSED),
        says("dev", "02-27", "Nothing we can do here, closing."),
    ],
    "fixes that did not fix": [
        issue(**STALE, body="#7 and #8 were meant to fix this, yet 0.9 has it.")
    ],
    "somebody looks into it": [issue(), says("ada", "02-20", "I'll look into it.")],
    "an offer nobody answered": [issue(), says("ada", "02-20", "Should I open a PR?")],
    "a pull request mentions it": [issue(), pull(7, "Found while looking at #1.")],
    "may be a duplicate": [issue(), says("ada", "02-20", "Maybe the same as #2?")],
    "a number of unknown kind": [issue(), says("ada", "02-20", "#77 is about this, too.")],
    "an RFC without a word on who builds it": [issue(title="[RFC]: a new thing")],
    "a list of tasks": [issue(title="[Tracker]: all the things")],
    "merged, and it came back": [
        issue(),
        merged(7, "Fixes #1"),
        says("ada", "02-20", "I still see this on main."),
    ],
    "not a duplicate after all": [
        issue(),
        says("dev", "02-10", "Duplicate of #2."),
        says("reporter", "02-12", "This is not a duplicate, the trace differs."),
    ],
    "a yes to a claim that is not recorded": [issue(), says("dev", "02-20", "Please go ahead!")],
    "solved, but only by a setting": [
        issue(**CLOSED),
        says("reporter", "02-27", "Solved by lowering --max-model-len."),
    ],
}

OUTCOMES = {
    "free": FREE,
    "claimed": CLAIMED,
    "stale-claim": STALE_CLAIM,
    "fixed": FIXED,
    "duplicate": DUPLICATE,
    "unknown": UNKNOWN,
}
CASES = [(o, name, e) for o, cases in OUTCOMES.items() for name, e in cases.items()]


@pytest.mark.parametrize(
    ("outcome", "name", "entries"), CASES, ids=[f"{outcome}-{name}" for outcome, name, _ in CASES]
)
def test_what_became_of_it(outcome: str, name: str, entries: list[Entry], tmp_path: Path) -> None:
    found = judged(tmp_path, *entries)
    assert found.outcome == outcome, found


@pytest.mark.parametrize("name", UNKNOWN)
def test_an_unknown_says_what_would_settle_it(name: str, tmp_path: Path) -> None:
    assert judged(tmp_path, *UNKNOWN[name]).settle


def test_a_duplicate_names_its_original(tmp_path: Path) -> None:
    for number, entries in enumerate(DUPLICATE.values()):
        folder = tmp_path / str(number)
        folder.mkdir()
        assert judged(folder, *entries).duplicate_of == 2


def test_a_fix_names_its_pull_request(tmp_path: Path) -> None:
    assert judged(tmp_path, *FIXED["said, with a number"]).fixed_by == 7


def test_who_claims(tmp_path: Path) -> None:
    two = [
        issue(),
        says("Ada", "02-20", "WIP"),
        says("Bob", "02-21", "Hi, I am working on this right now!"),
    ]
    assert judged(tmp_path, *two).claimants == ("ada", "bob")


def test_an_author_without_time_and_an_offer_to_go_on_are_both_named(tmp_path: Path) -> None:
    found = judged(
        tmp_path,
        issue(),
        says("ada", "01-02", f"{HOME}/pull/7"),
        says("bob", "02-01", "@ada will you finish it? If you cannot, I could take over."),
        says("ada", "02-02", "I have no time for this at present."),
    )
    assert found.outcome == "claimed"
    assert found.claimants == ("ada", "bob")
    assert "ada has no time" in found.summary
    assert "bob offers" in found.summary


def test_silence_is_counted_up_to_now(tmp_path: Path) -> None:
    claim = [issue(), says("ada", "02-01", "I'll take this.")]
    early, late = datetime(2026, 2, 20, tzinfo=UTC), datetime(2026, 3, 20, tzinfo=UTC)
    (tmp_path / "a").mkdir()
    (tmp_path / "b").mkdir()
    assert judged(tmp_path / "a", *claim, now=early).outcome == "claimed"
    assert judged(tmp_path / "b", *claim, now=late).outcome == "stale-claim"


def test_now_is_the_last_recorded_day_of_what_was_imported(tmp_path: Path) -> None:
    with store_of(tmp_path, issue(), says("ada", "02-01", "hello")) as store:
        assert newest(store) == datetime(2026, 2, 1, tzinfo=UTC)


def test_now_is_the_last_sync_where_there_was_one(tmp_path: Path) -> None:
    with store_of(tmp_path, issue()) as store:
        store.set_meta("last_sync", "2026-04-01T00:00:00Z")
        assert newest(store) == datetime(2026, 4, 1, tzinfo=UTC)


def test_comments_without_a_time_keep_their_place(tmp_path: Path) -> None:
    undated = says("ada", "02-21", "I give up on this.")
    del undated["data"]["created_at"]
    found = judged(tmp_path, issue(), says("ada", "02-20", "I'll take this."), undated)
    assert found.outcome == "free"


def test_evidence_is_quoted_with_its_place(tmp_path: Path) -> None:
    found = judged(tmp_path, issue(), says("ada", "02-20", "Hello!\n\nI'll take this.", id=42))
    (entry,) = found.evidence
    assert (entry.text, entry.author, entry.date) == ("I'll take this.", "ada", "2026-02-20")
    assert entry.url == f"{HOME}/issues/1#issuecomment-42"
    assert entry.line == 3


def test_the_check_fails_what_is_taken_and_leaves_a_stale_claim_open(tmp_path: Path) -> None:
    verdicts = {"claimed": "fail", "stale-claim": "unknown", "fixed": "fail", "free": "pass"}
    for number, (outcome, verdict) in enumerate(verdicts.items()):
        folder = tmp_path / str(number)
        folder.mkdir()
        with store_of(folder, *next(iter(OUTCOMES[outcome].values()))) as store:
            thread = store.issue(1)
            assert thread is not None
            result = check_claimed(Thread(store, thread, NOW))
            assert (result.verdict, result.details["outcome"]) == (verdict, outcome)
            assert (result.verdict == "unknown") == bool(result.settle)


# How far it can be trusted.

THREADS = Path(__file__).parents[1] / "data/threads"


@pytest.mark.parametrize("name", ["plain", "winding"])
def test_threads_in_peoples_own_ways_of_saying_it_are_judged_well(
    tmp_path: Path, name: str
) -> None:
    """Written by hand without a look at the lexicon; the second set was only measured with."""
    file = tmp_path / "threads.jsonl"
    file.write_bytes(gzip.decompress((THREADS / f"{name}.jsonl.gz").read_bytes()))
    judged = read_judgements(THREADS / f"{name}.judged.json")
    with Store.open(tmp_path / "store.sqlite", "vllm-project/vllm", create=True) as store:
        assert not import_file(store, file).problems
        found = compare(store, judged, newest(store))
    assert found.false_free == 0
    assert found.agreeing >= 0.9 * found.decided
    assert found.decided >= 0.7 * len(judged)


def test_judged_outcomes_are_compared(tmp_path: Path) -> None:
    with store_of(tmp_path, issue(), issue(2), issue(3)) as store:
        put(store, tmp_path, says("ada", "02-20", "I'll take this.", number=2))
        found = compare(store, {1: "free", 2: "free", 3: "claimed", 9: "free"}, NOW)
    assert (found.decided, found.agreeing, found.false_free) == (3, 1, 1)
    assert found.missing == (9,)
    assert not found.good_enough


@pytest.mark.parametrize(
    "text", ["[]", "{", '{"1": {"claimed": "maybe"}}', '{"x": {"claimed": "free"}}']
)
def test_judgements_that_cannot_be_read_are_refused(tmp_path: Path, text: str) -> None:
    file = tmp_path / "judged.json"
    file.write_text(text)
    with pytest.raises(CaseError):
        read_judgements(file)


@pytest.mark.skipif(
    "TRACKRECORD_JUDGED" not in os.environ,
    reason="TRACKRECORD_JUDGED names no folder with dev.jsonl and dev.truth.json",
)
def test_real_threads_are_judged_as_people_judged_them(tmp_path: Path) -> None:
    folder = Path(os.environ["TRACKRECORD_JUDGED"])
    truth = json.loads((folder / "dev.truth.json").read_text())
    with Store.open(tmp_path / "dev.sqlite", "vllm-project/vllm", create=True) as store:
        assert not import_file(store, folder / "dev.jsonl").problems
        found = compare(store, {int(n): t["claimed"] for n, t in truth.items()}, newest(store))
    assert found.good_enough, found.to_json()
    assert found.decided >= 0.5 * len(truth)
