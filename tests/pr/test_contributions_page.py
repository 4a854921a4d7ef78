"""The portfolio's contributions page: what the workspace holds, and no more."""

from __future__ import annotations

import json

import pytest
from upstream_shaped import good_change, run_command

from trackrecord.portfolio.contributions import contributions_page
from trackrecord.workspace import Workspace

PLAN = """# Plan

## Problem

It *fails* <script>alert(1)</script> and pings @grace.

## Out of scope

All else.
"""


@pytest.fixture
def workspace(tmp_path, clone):
    workspace = Workspace.open(tmp_path / "work")
    workspace.create()
    return workspace


def page_of(workspace):
    page = contributions_page(workspace)
    assert page is not None
    return {name: content.decode() for name, content in page.files.items()}, page


def test_an_empty_workspace_has_no_page(workspace, tmp_path):
    assert contributions_page(workspace) is None
    assert contributions_page(Workspace.open(tmp_path / "none")) is None


def test_evidence_and_statements_appear_without_addresses(workspace, clone, monkeypatch, capfd):
    good_change(clone)
    monkeypatch.chdir(clone.root)
    place = ("--workspace", workspace.root)
    run_command("evidence", "run", *place, "--", "echo", "<b>hello</b>")
    run_command("evidence", "bench", *place, "--before", "main", "--runs", "1", "--", "true")
    run_command("preflight", *place, "--hooks", "never", "--i-reviewed-every-line")
    files, page = page_of(workspace)
    assert "1 recorded run and 1 comparison" in page.summary
    for name in ("contributions.html", "contributions.md", "contributions.json"):
        assert "ada@example.org" not in files[name]
        assert "Ada Example" in files[name]
    assert "<b>hello" not in files["contributions.html"]
    assert json.loads(files["contributions.json"])["journal"]["intact"] is True


def test_a_plan_appears_with_its_gauntlet_and_is_escaped(workspace):
    for folder, name, text in (
        ("plans", "7.md", PLAN),
        ("plans", "T4.md", PLAN),
        ("plans", "notes.md", "# Mine\n\nPrivate.\n"),
        ("gauntlet", "7.json", json.dumps({"checks": [{"check": "claimed", "verdict": "pass"}]})),
        ("gauntlet", "T4.json", "not json"),
    ):
        (workspace.root / folder).mkdir(exist_ok=True)
        (workspace.root / folder / name).write_text(text)
    files, page = page_of(workspace)
    assert page.summary.startswith("A plan for #7, T4 of")
    assert "<script>alert" not in files["contributions.html"]
    assert "What could have disqualified #7" in files["contributions.html"]
    assert "What could have disqualified T4" not in files["contributions.html"]
    assert "Private" not in files["contributions.json"]


def test_a_journal_that_was_changed_is_shown_as_such(workspace, clone, capfd):
    run_command("evidence", "run", "--workspace", workspace.root, "--", "true")
    path = workspace.root / "evidence" / "journal.jsonl"
    path.write_text(path.read_text().replace('"exit_code": 0', '"exit_code": 1'))
    (workspace.root / "plans").mkdir()
    (workspace.root / "plans" / "7.md").write_text(PLAN)
    files, _ = page_of(workspace)
    assert "was changed after it was written" in files["contributions.md"]
