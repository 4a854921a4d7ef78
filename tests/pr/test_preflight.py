"""`trackrecord preflight`: a made branch from red to green; commits, statements, duplicates."""

from __future__ import annotations

import json
import os

import pytest
from upstream_shaped import (
    AUTHOR,
    BODY,
    FILES,
    HEADER,
    STATED,
    TRAILERS,
    Checked,
    good_change,
    run_command,
)

from trackrecord.issues.importer import import_file
from trackrecord.issues.store import Store
from trackrecord.pr.preflight.commits import names_tool
from trackrecord.upstream.pin import find_pin
from trackrecord.workspace import Workspace

SIGN_OFF = f"Signed-off-by: {AUTHOR[0]} <{AUTHOR[1]}>"


# From red to green.


def test_a_branch_goes_from_red_to_green(clone, tmp_path, capsys):
    words = ("--repo", clone.root, "--workspace", tmp_path / "work", "--issue", 7)
    words += ("--hooks", "never", "--format", "json")
    body = tmp_path / "body.md"

    def check(*more):
        code = run_command("preflight", *words, *more)
        return Checked(code, json.loads(capsys.readouterr().out))

    clone.write(
        "vllm/core/helper.py", "import pickle\n\n\ndef help_(x):\n    return pickle.dumps(x)\n"
    )
    clone.replace("vllm/core/pool.py", '"""A pool', '"""A small pool')
    clone.replace("vllm/core/pool.py", "return taken", "return list(taken)")
    clone.commit("take blocks faster")
    red = check()
    assert red.code == 1
    assert red.blocking == {
        *("ai-statement", "human-review", "human-tests", "human-defence", "duplicate-check"),
        *("dco", "title-prefix", "template", "performance", "tests"),
        *("hook-spdx", "hook-forbidden-imports"),
    }

    # The code: no pickle, a header, a test. Then the commit and the description.
    clone.write(
        "vllm/core/helper.py", HEADER + "def help_(x: list[int]) -> list[int]:\n    return x[:]\n"
    )
    clone.write(
        "tests/core/test_helper.py",
        HEADER
        + "from vllm.core.helper import help_\n\n\n"
        + "def test_help():\n    assert help_([1]) == [1]\n",
    )
    clone.git("add", "-A")
    clone.git("commit", "-q", "--amend", "-m", f"[Core] Copy what is taken\n\n{TRAILERS}")
    amber = check()
    assert amber.blocking == {
        *("ai-statement", "human-review", "human-tests", "human-defence"),
        *("duplicate-check", "template"),
    }

    body.write_text(BODY)
    green = check("--pr-body", body, *STATED)
    assert (green.code, green.blocking) == (0, set())
    assert green.report["ready"] is True
    # What was said holds for the next run, and not for the next commit.
    assert check("--pr-body", body).code == 0
    clone.commit(f"[Core] More\n\n{TRAILERS}")
    again = check("--pr-body", body, "--title", "[Core] Copy what is taken")
    assert again.blocking == {
        *("ai-statement", "human-review", "human-tests", "human-defence", "duplicate-check"),
    }
    assert "the branch has changed since" in again.message("human-review")


def test_every_finding_names_its_rule_and_the_line_it_is_written_on(clone, preflight):
    clone.write("vllm/core/x y.py", "import pickle\nwith a() and b():\n    pass\n")
    clone.commit("faster")
    found = preflight(body="nothing")
    assert len(found.blocking) > 12
    for finding in found.findings:
        assert finding["sources"], finding
        for source in finding["sources"]:
            line = FILES[source["path"]].splitlines()[source["line"] - 1]
            assert line.strip() == source["quote"]
            assert source["tree"] == "clone"


def test_rules_are_those_of_the_commit_that_the_branch_started_from(clone, preflight):
    clone.replace("AGENTS.md", "must review every changed line", "may look at it")
    clone.replace("docs/contributing/README.md", "`[Core]`", "`[Anything]`")
    good_change(clone)
    found = preflight("--title", "[Anything] Take no block")
    assert found.of("human-review")
    assert "[Core]" in found.message("title-prefix")


def test_a_rule_that_is_written_nowhere_is_not_applied_and_said_so(clone, preflight):
    clone.git("checkout", "-q", "main")
    clone.git("rm", "-q", "DCO", "AGENTS.md", "docs/contributing/deprecation_policy.md")
    clone.replace("docs/contributing/README.md", "Include sufficient tests", "Be sensible")
    clone.commit("Fewer rules")
    clone.git("checkout", "-q", "-B", "fix")
    clone.replace("vllm/core/pool.py", "return taken", "return list(taken)")
    clone.commit(f"[Core] Copy\n\n{TRAILERS}")
    found = preflight()
    assert {"human-defence", "tests", "deprecation"} <= set(found.report["unwritten"])
    assert not found.of("tests")
    assert not found.of("human-defence")


# Commits.


def signed(name, mail):
    return f"Signed-off-by: {name} <{mail}>"


@pytest.mark.parametrize(
    ("trailer", "accepted"),
    [
        (signed(*AUTHOR), True),
        (signed("ADA example", "ADA@Example.org"), True),
        (signed("Ada Example", "other@example.org"), False),
        (signed("Someone Else", "ada@example.org"), False),
        (f"{signed('Someone Else', 'else@example.org')}\n{signed(*AUTHOR)}", True),
        ("Signed-off-by: Ada Example", False),
        ("signed off by me", False),
        ("", False),
    ],
)
def test_sign_off_is_judged_as_the_dco_app_does(clone, preflight, trailer, accepted):
    clone.write("docs/more.md", "More.\n")
    clone.commit(f"[Doc] More\n\nCo-authored-by: Claude\n{trailer}")
    assert (not preflight().of("dco")) is accepted


def test_sign_off_is_asked_of_every_commit_but_merges_and_bots(clone, preflight):
    good_change(clone)
    clone.git("checkout", "-q", "-b", "side", "main")
    clone.write("docs/side.md", "Aside.\n")
    clone.commit(f"[Doc] Aside\n\n{SIGN_OFF}")
    clone.git("checkout", "-q", "fix")
    clone.git("merge", "-q", "--no-ff", "-m", "Merge side", "side")
    bot = {"GIT_AUTHOR_NAME": "dependabot[bot]", "GIT_AUTHOR_EMAIL": "bot@example.org"}
    clone.commit("Bump", **bot)
    assert not preflight("--title", "[Doc] x").of("dco")
    unsigned = clone.commit("Not signed")
    (finding,) = preflight("--title", "[Doc] x").of("dco")
    assert finding["commit"] == unsigned


def test_ai_trailers_and_what_was_stated_must_agree(clone, preflight):
    clone.write("docs/more.md", "More.\n")
    clone.commit(f"[Doc] More\n\n{SIGN_OFF}")
    assert "no commit carries a trailer" in preflight("--ai-assistance", "used").message(
        "ai-trailer"
    )
    clone.commit(f"[Doc] More\n\n{TRAILERS}")
    assert not preflight("--ai-assistance", "used").of("ai-trailer")
    found = preflight("--ai-assistance", "none", body=BODY.replace("AI assistance", "Nothing"))
    assert "names an AI tool" in found.message("ai-trailer")


def test_what_upstream_serves_is_no_sign_of_assistance(clone, preflight):
    clone.write("docs/more.md", "More.\n")
    clone.commit(f"[Doc] Tokens generated by Llama\n\nFor the OpenAI server.\n\n{SIGN_OFF}")
    body = BODY.replace("AI assistance was used: Claude drafted the test.", "We used LLM.generate.")
    found = preflight("--ai-assistance", "none", body=body)
    assert not found.of("ai-trailer")
    assert not found.of("ai-disclosure")


@pytest.mark.parametrize(
    ("value", "tool"),
    [
        ("Claude", True),
        ("Claude Opus 4.5 <noreply@anthropic.com>", True),
        ("GitHub Copilot", True),
        ("Claude Dupont <claude@dupont.example>", False),
        ("Jules Verne <jules@example.org>", False),
        ("Cursor Agent <cursoragent@cursor.com>", True),
        ("Grace Hopper <grace@example.org>", False),
    ],
)
def test_people_with_the_names_of_tools_are_people(value, tool):
    assert names_tool(value) is tool


def test_without_ai_nobody_has_to_answer_for_it(clone, preflight):
    clone.write("docs/more.md", "More.\n")
    clone.commit(f"[Doc] More\n\n{SIGN_OFF}")
    body = BODY.replace("AI assistance was used: Claude drafted the test.", "")
    found = preflight("--ai-assistance", "none", body=body)
    assert found.blocking == {"duplicate-check"}


def test_a_description_that_speaks_of_ai_contradicts_a_statement_that_there_was_none(
    clone, preflight
):
    clone.write("docs/more.md", "More.\n")
    clone.commit(f"[Doc] More\n\n{SIGN_OFF}")
    found = preflight("--ai-assistance", "none")
    assert "Claude drafted the test" in found.message("ai-disclosure")


# Statements and waivers.


def test_a_statement_needs_a_name(clone, tmp_path, capsys, monkeypatch):
    good_change(clone)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
    clone.git("config", "--unset", "user.name")
    code = run_command(
        *("preflight", "--repo", clone.root, "--workspace", tmp_path / "w"), "--i-ran-the-tests"
    )
    streams = capsys.readouterr()
    assert (code, streams.out) == (2, "")
    assert "user.name" in streams.err
    assert streams.err.count("\n") == 1


def test_a_waiver_gives_a_reason_and_is_shown(clone, preflight):
    clone.replace("vllm/core/pool.py", "return taken", "return list(taken)")
    clone.commit(f"[Core] Copy\n\n{TRAILERS}")
    assert preflight().of("tests")[0]["level"] == "error"
    found = preflight("--waive", "tests=covered by tests/core/test_pool.py already")
    (finding,) = found.of("tests")
    assert finding["level"] == "note"
    assert "covered by" in finding["waived"]
    assert AUTHOR[0] in finding["waived"]
    clone.commit(f"[Core] More\n\n{TRAILERS}")
    assert preflight().of("tests")[0]["level"] == "error"


@pytest.mark.parametrize(
    "waiver", ["dco=I would rather not sign", "tests=no", "tests", "nonsense=x"]
)
def test_what_cannot_be_waived_is_refused(clone, tmp_path, capsys, waiver):
    good_change(clone)
    words = ("--repo", clone.root, "--workspace", tmp_path / "w", "--waive", waiver)
    assert run_command("preflight", *words) == 2
    streams = capsys.readouterr()
    assert streams.err.count("\n") == 1
    assert "--waive" in streams.err
    assert not (tmp_path / "w" / "evidence").exists()


# Duplicates.


def test_a_recorded_search_is_proof_for_a_while(clone, preflight, tmp_path, monkeypatch, capsys):
    good_change(clone)
    found = preflight()
    assert "gh issue view 7" in found.of("duplicate-check")[0]["fix"]
    gh = tmp_path / "bin" / "gh"
    gh.parent.mkdir()
    gh.write_text("#!/bin/sh\necho no results\n")
    gh.chmod(0o755)
    monkeypatch.setenv("PATH", f"{gh.parent}:{os.environ['PATH']}")
    words = ("gh", "pr", "list", "--search", "7 in:body")
    assert (
        run_command("evidence", "run", "--workspace", tmp_path / "work", "--json", "--", *words)
        == 0
    )


def test_someone_elses_open_pull_request_for_the_issue_blocks(clone, preflight, tmp_path):
    workspace = Workspace.open(tmp_path / "work")
    workspace.create()
    store_with_pull(workspace, find_pin(workspace).repository)
    good_change(clone)
    found = preflight(*STATED)
    (by_issue, by_file) = found.of("duplicate-check")
    assert by_issue["level"] == "error"
    assert "#50 by rival" in by_issue["message"]
    assert "vllm/core/pool.py" in by_file["message"]
    (workspace.root / "trackrecord.toml").write_text('[user]\ngithub_login = "Rival"\n')
    assert not preflight(*STATED).of("duplicate-check")


def store_with_pull(workspace, repo):
    lines = [
        {"type": "issue", "data": {"number": 7, "title": "Pool", "state": "open"}},
        {
            "type": "pull",
            "data": {
                "number": 50,
                "title": "Take\x1b[31m none",
                "state": "open",
                "body": "Fixes #7",
                "user": {"login": "rival"},
                "files": [{"filename": "vllm/core/pool.py"}],
            },
        },
    ]
    path = workspace.root / "threads.jsonl"
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    with Store.open(workspace.issues_db(repo), repo, create=True) as store:
        import_file(store, path)
