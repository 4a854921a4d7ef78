"""Entries that have the right hash and data that this program never wrote."""

from __future__ import annotations

import copy

import pytest
from upstream_shaped import STATED, good_change, run_command

from trackrecord.errors import WorkspaceError
from trackrecord.portfolio.contributions import contributions_page
from trackrecord.pr.entry_shape import wrong_with
from trackrecord.pr.journal import Entry, Journal
from trackrecord.workspace import Workspace

RUN = {
    "command": ["pytest"],
    "role": "test",
    "exit_code": 0,
    "commit": "c",
    "dirty": False,
    "seconds": 1.5,
    "output_sha256": "0" * 64,
    "tail": "1 passed",
}
SIDE = {"commit": "c", "median": 1.0, "samples": [1.0]}
EFFECT = {"ratio": 1.0, "low": 0.9, "high": 1.1, "pairs": 1, "verdict": "no difference shown"}
BENCH = {
    "command": ["true"],
    "unit": "s",
    "metric": "wall clock",
    "effect": EFFECT,
    "before": SIDE,
    "after": SIDE,
}
STATEMENT = {"what": "waiver", "value": "because", "rule": "size", "by": "Ada <a@example.org>"}
GOOD = {"run": RUN, "bench": BENCH, "statement": STATEMENT}
DROP = object()


def changed(kind, place, value):
    """Good data with one value, given by its keys, replaced or dropped."""
    data = copy.deepcopy(GOOD[kind])
    inner = data
    *outer, last = place.split(".")
    for key in outer:
        inner = inner[key]
    if value is DROP:
        del inner[last]
    else:
        inner[last] = value
    return data


ODD = [
    ("run", "command", 5),
    ("run", "command", ["pytest", 5]),
    ("run", "seconds", "x"),
    ("run", "seconds", 10**400),
    ("run", "exit_code", None),
    ("run", "exit_code", "0"),
    ("run", "output_sha256", DROP),
    ("run", "tail", ["a"]),
    ("run", "environment", 5),
    ("run", "environment", {"gpus": 5}),
    ("bench", "effect", {}),
    ("bench", "effect.ratio", "x"),
    ("bench", "effect.surprise", 1),
    ("bench", "after", [1]),
    ("bench", "before.samples", 5),
    ("bench", "unit", DROP),
    ("statement", "what", DROP),
    ("statement", "by", ["Ada"]),
]


def entry(kind, data, at="2026-11-27T00:00:00Z"):
    return Entry(1, kind, at, data, "", "")


@pytest.fixture
def workspace(clone, tmp_path, monkeypatch):
    monkeypatch.chdir(clone.root)
    good_change(clone)
    return Workspace.open(tmp_path / "work")


@pytest.mark.parametrize(("kind", "data"), GOOD.items())
def test_good_data_is_without_a_complaint(kind, data):
    assert wrong_with(entry(kind, data)) == ""
    assert wrong_with(entry(kind, data | {"new in a later version": 1})) == ""


@pytest.mark.parametrize(("kind", "place", "value"), ODD)
def test_a_value_of_another_type_is_named(kind, place, value):
    assert place.partition(".")[0] in wrong_with(entry(kind, changed(kind, place, value)))


def test_the_rest_of_an_entry_is_looked_at_too():
    deep = {}
    for _ in range(100_000):
        deep = {"x": deep}
    for odd in (
        *(entry("wish", RUN), entry(["run"], RUN), entry("run", RUN, at=5)),
        *(entry("run", RUN | {"more": float("inf")}), entry("run", RUN | {"more": deep})),
    ):
        assert wrong_with(odd)


def test_what_the_commands_write_is_good(workspace, capfd):
    place = ("--workspace", workspace.root)
    run_command("evidence", "run", *place, "--", "echo", "x")
    run_command("evidence", "bench", *place, "--before", "main", "--runs", "1", "--", "true")
    run_command("preflight", *place, "--hooks", "never", *STATED)
    entries = Journal(workspace).entries()
    assert {entry.kind for entry in entries} == set(GOOD)
    assert [wrong_with(entry) for entry in entries] == [""] * len(entries)


@pytest.mark.parametrize(("kind", "place", "value"), ODD)
def test_what_quotes_the_journal_says_so_in_one_line(workspace, clone, capfd, kind, place, value):
    head = clone.git("rev-parse", "HEAD")
    data = changed(kind, place, value)
    data |= {"commit": head} if kind == "run" else {}
    Journal(workspace).append(kind, data)
    with pytest.raises(WorkspaceError, match="entry E1 of the journal was not written by"):
        contributions_page(workspace)
    words = ("pr", "body", "--purpose", "Why.", "--workspace", workspace.root)
    assert run_command(*words) == 2
    streams = capfd.readouterr()
    assert (streams.out, streams.err.count("\n")) == ("", 1)
