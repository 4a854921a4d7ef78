"""A run's journal: drafts as differences, damage said and the intact part kept, one writer."""

from __future__ import annotations

import json
import os
import signal

import pytest
from hypothesis import given
from hypothesis import strategies as st
from small_loop import CATALOGUE, Script

from trackrecord.errors import WorkspaceError
from trackrecord.journal import JournalFile
from trackrecord.loop.session import SessionError, sit
from trackrecord.loop.session.record import journal_path, load_run, runs
from trackrecord.loop.session.text import clean, delta, patched, shown

texts = st.text("ab\n", max_size=12)


@pytest.fixture
def sat(place, clock):
    """A run with two answers, left in the third."""
    steps = ["first", 5, "/next", "second", 5, "/next", "third", 5, " more"]
    return sit.start(place, CATALOGUE, Script(clock, steps), sessions=(1,), seed=3, read=clock)


@given(texts, texts)
def test_a_draft_is_the_last_one_and_what_changed(old, new):
    change = delta(old, new)
    assert patched(old, change) == new
    assert len(change.put) <= len(new)


def test_a_letter_more_costs_no_more_in_a_long_answer():
    old = "word " * 30_000
    assert delta(old, old[:70_000] + "x" + old[70_000:]).put == "x"


@given(st.text())
def test_what_is_kept_and_shown_has_no_control_characters(text):
    for safe in (clean(text), shown(text, 40), shown(clean(text), 40)):
        assert safe.replace("\n", "").replace("\t", "").isprintable()
        safe.encode()
    assert clean(clean(text)) == clean(text)


def lines_of(path):
    return path.read_bytes().splitlines(keepends=True)


def rehashed(place, run_id, change):
    """Writes the run's journal anew, with the right hashes, after `change(entries)`."""
    path = journal_path(place, run_id)
    contents = [(e.kind, e.data, e.at) for e in JournalFile(path).read().entries]
    change(contents)
    path.unlink()
    path.with_name("head.json").unlink()
    with JournalFile(path).writer() as writer:
        writer.append_all(contents)


def test_a_journal_cut_in_half_is_said_and_what_is_intact_is_kept(place, sat, clock):
    path = journal_path(place, sat.id)
    content = path.read_bytes()
    path.write_bytes(content[: len(content) * 2 // 3])
    run = load_run(place, sat.id)
    assert run.seed == sat.seed
    assert run.answers[0].text == "first"
    assert "entries are missing at the end" in run.problems[0]
    assert "intact, and are used" in run.problems[-1]


def test_a_journal_edited_by_hand_is_said_and_used_up_to_there(place, sat):
    path = journal_path(place, sat.id)
    path.write_bytes(path.read_bytes().replace(b'"second"', b'"better"'))
    run = load_run(place, sat.id)
    assert [a.text for a in run.answers] == ["first", ""]
    assert "the entry was altered" in run.problems[0]


def test_nothing_is_added_to_a_damaged_journal_but_what_is_intact_can_be_gone_on_with(
    place, sat, clock
):
    path = journal_path(place, sat.id)
    path.write_bytes(path.read_bytes().replace(b'"second"', b'"better"'))
    damaged = path.read_bytes()
    with pytest.raises(SessionError, match="--salvage"):
        sit.resume(place, CATALOGUE, Script(clock, []), read=clock)
    clock.pass_(60)
    ui = Script(clock, ["again", "/next"])
    run = sit.resume(place, CATALOGUE, ui, sat.id, salvage=True, read=clock)
    assert path.read_bytes() == damaged
    assert run.id == runs(place)[-1] != sat.id
    assert [a.text for a in run.answers] == ["first", "again", ""]
    assert run.problems == ()
    assert sat.id in run.notes[0]
    assert run.sessions[0].seconds == 75


@pytest.mark.parametrize(
    ("kind", "key", "value"),
    [
        ("run", "sessions", 5),
        ("run", "seed", "x"),
        ("begin", "session", 4),
        ("item", "item", "question:00/zz"),
        ("item", "t", float("1e300")),
        ("draft", "put", 7),
        ("draft", "keep", 10**6),
        ("draft", "typed", None),
        ("done", "t", 0),
    ],
)
def test_an_entry_with_the_right_hash_that_was_never_written_is_no_traceback(
    place, sat, kind, key, value
):
    def change(contents):
        last = max(n for n, content in enumerate(contents) if content[0] == kind)
        contents[last] = (kind, contents[last][1] | {key: value}, contents[last][2])

    rehashed(place, sat.id, change)
    if kind == "run":
        with pytest.raises(SessionError, match="was not written by trackrecord"):
            load_run(place, sat.id)
    else:
        assert "was not written by trackrecord" in load_run(place, sat.id).problems[0]


def test_a_second_loop_in_the_same_workspace_is_refused(place, sat, clock):
    class Second(Script):
        def show(self, text):
            with pytest.raises(SessionError, match="another loop is being sat"):
                sit.start(place, CATALOGUE, Script(clock, []), read=clock)
            refused.append(text)

    refused = []
    sit.resume(place, CATALOGUE, Second(clock, []), read=clock)
    assert refused
    assert len(runs(place)) == 1


def test_entries_after_the_head_count_and_a_cut_before_it_shows(tmp_path):
    journal = JournalFile(tmp_path / "journal.jsonl")
    with journal.writer() as writer:
        for n in range(3):
            writer.append("x", {"n": n})
        writer.seal()
        writer.append("x", {"n": 3})
        head = (tmp_path / "head.json").read_bytes()
    assert json.loads(head)["entries"] == 3
    (tmp_path / "head.json").write_bytes(head)  # as a kill leaves it
    assert journal.read().verdict.intact
    journal.path.write_bytes(b"".join(lines_of(journal.path)[:2]))
    assert journal.read().verdict.problems == ("1 entries are missing at the end",)
    with pytest.raises(WorkspaceError, match="nothing is added"), journal.writer():
        pass


def test_an_entry_that_a_signal_interrupts_leaves_no_half_behind(tmp_path, monkeypatch):
    journal = JournalFile(tmp_path / "journal.jsonl")
    sync = os.fsync

    def interrupted(file):
        monkeypatch.setattr(os, "fsync", sync)
        signal.raise_signal(signal.SIGINT)

    with journal.writer() as writer:
        writer.append("x", {})
        monkeypatch.setattr(os, "fsync", interrupted)
        with pytest.raises(KeyboardInterrupt):
            writer.append("y", {})
        writer.append("z", {})
    content = journal.read()
    assert content.verdict.intact
    assert [entry.kind for entry in content.entries] == ["x", "z"]


def test_a_full_disk_is_one_line_and_the_journal_stays_whole(place, clock, monkeypatch):
    def full():
        def write(file, data):
            raise OSError(28, "No space left on device")

        monkeypatch.setattr(os, "write", write)

    steps = ["kept", 5, "/next", full, " lost", 5]
    with pytest.raises(WorkspaceError, match="No space left"):
        sit.start(place, CATALOGUE, Script(clock, steps), sessions=(1,), read=clock)
    monkeypatch.undo()
    run = load_run(place, runs(place)[0])
    assert run.problems == ()
    assert run.answers[0].text == "kept"
