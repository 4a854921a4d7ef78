"""`trackrecord trust`: figures from the store, criteria from upstream's governance."""

from __future__ import annotations

import json

import pytest
from upstream_shaped import run_command

from trackrecord.issues.importer import import_file
from trackrecord.issues.store import Store
from trackrecord.upstream.pin import find_pin
from trackrecord.workspace import Workspace


def merged(number, day, login="ada", path="vllm/v1/core/sched/scheduler.py"):
    data = {
        "number": number,
        "title": f"Pull {number}",
        "state": "closed",
        "merged": True,
        "merged_at": f"2026-{day}T00:00:00Z",
        "user": {"login": login},
        "files": [{"filename": path}],
    }
    return {"type": "pull", "data": data}


def comment(number, login="ada"):
    user = {"login": login}
    return {"type": "comment", "issue": number, "data": {"user": user, "body": "Looks right."}}


@pytest.fixture
def trust(clone, tmp_path, capsys):
    workspace = Workspace.open(tmp_path / "work")

    def run(login, *lines):
        repo = find_pin(workspace).repository
        if lines:
            workspace.create()
            path = workspace.root / "threads.jsonl"
            path.write_text("".join(json.dumps(line) + "\n" for line in lines))
            with Store.open(workspace.issues_db(repo), repo, create=True) as store:
                import_file(store, path)
        words = (*((login,) if login else ()), "--repo", clone.root, "--json")
        code = run_command("trust", *words, "--workspace", workspace.root)
        streams = capsys.readouterr()
        return code, json.loads(streams.out) if streams.out else streams.err

    return run


def test_nobody_starts_with_a_rung(trust):
    code, found = trust("ada", merged(1, "01-01", login="other"))
    assert (code, found["rung"]) == (1, "")
    assert any("merged pull requests" in step for step in found["next_steps"])


def test_a_merged_pull_request_is_the_first_rung_whatever_the_case_of_the_login(trust):
    code, found = trust("ADA", merged(1, "01-01"))
    assert (code, found["rung"]) == (0, "first contribution")
    assert found["figures"]["merged"] == [1]


def test_sustained_means_one_area_and_some_time(trust):
    five = [merged(n, f"0{n}-01") for n in range(1, 6)]
    assert trust("ada", *five)[1]["rung"] == "sustained in an area"


def test_five_in_a_week_are_not_sustained(trust):
    _, found = trust("ada", *[merged(n, f"01-0{n}") for n in range(1, 6)])
    assert found["rung"] == "first contribution"
    assert any("days between" in step for step in found["next_steps"])


def test_reviews_are_counted_on_other_peoples_pull_requests(trust):
    lines = [merged(n, f"0{n}-01") for n in range(1, 6)]
    lines += [merged(n, "06-01", login="other") for n in range(11, 16)]
    lines += [comment(n) for n in (1, 11, 12, 13, 14)]
    _, found = trust("ada", *lines)
    assert found["figures"]["reviewed"] == [14, 13, 12, 11]
    assert found["rung"] == "sustained in an area"
    _, found = trust("ada", comment(15))
    assert found["rung"] == "reviewer"


def test_committers_and_owners_are_those_that_the_project_lists(trust):
    _, found = trust("Grace", merged(1, "01-01"))
    assert found["rung"] == "committer"
    assert found["figures"]["owns"] == ["/vllm/core (line 1)"]
    assert trust("former")[1]["rung"] == ""
    assert trust("alan")[1]["rung"] == "reviewer"


def test_the_figures_that_governance_gives_are_read_from_it(trust, clone):
    _, found = trust("ada", merged(1, "01-01"))
    needs = {need["what"]: need for need in found["rungs"][-1]["needs"]}
    lines = (clone.root / "docs/governance/process.md").read_text().splitlines()
    need = needs["merged pull requests"]
    path, _, line = need["says"].partition(":")
    assert path == "docs/governance/process.md"
    assert f"approximately {need['need']}+" in lines[int(line) - 1]


def test_what_is_not_stored_is_said(trust):
    _, found = trust("ada", {"type": "pull", "data": merged(1, "01-01")["data"] | {"files": None}})
    assert any("not synced" in remark for remark in found["remarks"])


@pytest.mark.parametrize("login", ["", "not a login", "x" * 60, "\x1b[31m"])
def test_what_is_no_login_is_one_line(trust, login):
    code, error = trust(login, merged(1, "01-01"))
    assert (code, error.count("\n")) == (2, 1)
    assert "\x1b" not in error


def test_the_login_of_the_settings_is_the_default(trust, tmp_path):
    trust("ada", merged(1, "01-01"))
    (tmp_path / "work" / "trackrecord.toml").write_text('[user]\ngithub_login = "ada"\n')
    assert trust(None)[1]["login"] == "ada"
