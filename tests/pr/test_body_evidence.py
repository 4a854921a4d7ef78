"""Which recorded runs count as a test result, in a description and against one."""

from __future__ import annotations

import json
import sys

import pytest
from upstream_shaped import BODY, STATED, good_change, run_command

from trackrecord.pr.journal import Journal
from trackrecord.pr.preflight.description import shows_tests
from trackrecord.workspace import Workspace

COUNT = ("evidence", "run", "--as", "test", "--", sys.executable, "-c", "print('3 passed in 1s')")


@pytest.fixture
def command(clone, tmp_path, capfd, monkeypatch):
    """Runs a command on a branch about which a person has stated everything."""
    monkeypatch.chdir(clone.root)
    good_change(clone)

    def run(name, *words):
        cut = words.index("--") if "--" in words else len(words)
        place = ("--workspace", tmp_path / "work")
        code = run_command(name, *words[:cut], *place, *words[cut:])
        return code, capfd.readouterr().out

    run("preflight", "--hooks", "never", *STATED)
    return run


@pytest.fixture
def compose(command):
    def run(*words):
        return json.loads(command("pr", "body", "--purpose", "Why.", "--json", *words)[1])

    return run


@pytest.fixture
def finding(command, tmp_path):
    """(level, message) of what preflight says about the result in a description, or None."""

    def run(plan, result="2 passed in 0.02s"):
        body = BODY.replace("pytest tests/core/test_pool.py", plan)
        (tmp_path / "body.md").write_text(body.replace("2 passed in 0.02s", result))
        words = ("--issue", 7, "--hooks", "never", "--json", "--pr-body", tmp_path / "body.md")
        found = json.loads(command("preflight", *words)[1])["findings"]
        about = [(f["level"], f["message"]) for f in found if f["rule"] == "test-result"]
        return about[0] if about else None

    return run


@pytest.mark.parametrize(
    ("output", "counts"),
    [
        ("2 passed in 0.02s", True),
        ("===== 1 failed, 20 skipped in 3.1s =====", True),
        ("Ran 3 tests in 0.001s\n\nOK", True),
        ("100% tests passed, 0 tests failed out of 5", True),
        ("test result: ok. 5 passed; 0 failed", True),
        ("ok  \texample.org/pool\t0.003s\n", True),
        ("|gsm8k|3|exact_match|0.851|", True),
        ("", False),
        ("pytest 9.0.2", False),
        ("5 tests collected in 0.02s", False),
        ("no tests ran in 0.01s", False),
        ("show all tests passed, took 3 s", False),
    ],
)
def test_an_output_shows_tests_where_it_says_what_they_came_to(output, counts):
    assert shows_tests(output) is counts


@pytest.mark.parametrize(
    "words",
    [
        ("--", sys.executable, "-m", "pytest", "--version"),
        ("--as", "test", "--", "true"),
    ],
)
def test_a_run_without_a_count_of_tests_is_no_result(command, compose, words):
    assert command("evidence", "run", *words)[0] == 0
    (missing,) = compose()["missing"]
    assert "a test run at" in missing
    assert "shows no test (E" in missing
    command(*COUNT)
    body = compose()["body"]
    assert "3 passed" in body
    assert "--version" not in body


def test_a_mistyped_test_command_does_not_stand_in_the_way(command, compose, finding):
    for path in ("tests/core/no_such_test.py", "vllm/core/pool.py"):  # exit codes 4 and 5
        assert command("evidence", "run", "--", sys.executable, "-m", "pytest", path)[0] == 1
    (missing,) = compose()["missing"]
    assert missing.count("shows no test (E") == 2
    command(*COUNT)
    assert "no_such_test" not in compose()["body"]
    level, message = finding(f"{sys.executable} -m pytest tests/core/no_such_test.py")
    assert level == "warning"
    assert "ran no test when it was recorded" in message


def test_a_failure_is_settled_by_the_same_command_or_in_words(command, compose, tmp_path):
    script = tmp_path / "check.sh"
    script.write_text("echo 1 failed; exit 1\n")
    words = ("evidence", "run", "--as", "test", "--", "sh", script)
    command(*words)
    command(*COUNT)
    (missing,) = compose()["missing"]
    assert "run the same command again" in missing
    assert "--section 'Test Result=TEXT'" in missing
    told = compose("--section", "Test Result=1 failed, as it does without this change.")["body"]
    assert f"sh {script}" in told  # it stays in the test plan
    script.write_text("echo 1 passed\n")
    command(*words)
    assert compose()["written"]


def test_a_result_that_says_what_fails_is_no_contradiction(command, finding):
    command("evidence", "run", "--as", "test", "--", "git", "no-such-command")
    assert finding("git no-such-command")[0] == "error"
    assert finding("git no-such-command", "2 passed, 0 failed")[0] == "error"
    assert finding("git no-such-command", "2 passed, 1 failed: no such command")[0] == "warning"


def test_a_command_without_tests_in_its_output_is_no_test_of_a_description(command, finding):
    command("evidence", "run", "--as", "test", "--", "git", "--version")
    level, message = finding("git --version")
    assert level == "error"
    assert "shows no test in its output" in message


def test_a_description_quotes_the_journals_last_hash(command, compose, tmp_path):
    command(*COUNT)
    last = Journal(Workspace.open(tmp_path / "work")).entries()[-1]
    body = compose()["body"]
    assert f"up to {last.name} of a journal with the hash `{last.hash}`" in body
