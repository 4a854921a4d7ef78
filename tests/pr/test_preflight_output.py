"""The formats of a report: what programs read of it is well-formed, whatever is in it."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
from jsonschema import Draft7Validator
from upstream_shaped import BODY, FILES, HEADER, TRAILERS, good_change, run_command

STATED = ("--ai-assistance", "used", "--i-reviewed-every-line", "--i-ran-the-tests")
SCHEMA = Path(__file__).with_name("sarif_2.1.0.schema.json")


@pytest.fixture
def report(clone, tmp_path, capsys):
    def run(form, *words):
        (tmp_path / "body.md").write_text(BODY)
        words += ("--repo", clone.root, "--workspace", tmp_path / "w", "--hooks", "never")
        code = run_command("preflight", *words, "--pr-body", tmp_path / "body.md", "--format", form)
        return code, capsys.readouterr().out

    return run


def spoil(clone):
    clone.write("vllm/core/a, b:c%.py", "import pickle\n")
    clone.commit("Take\r\n::error::no, %0A\n\nblock")


def test_sarif_is_valid_and_points_to_the_rule(clone, report):
    spoil(clone)
    code, out = report("sarif", "--waive", "tests=there is nothing to test in this one")
    log = json.loads(out)
    validator = Draft7Validator(json.loads(SCHEMA.read_text()))
    assert list(validator.iter_errors(log)) == []
    assert code == 1
    (run,) = log["runs"]
    rules = [rule["id"] for rule in run["tool"]["driver"]["rules"]]
    for result in run["results"]:
        assert rules[result["ruleIndex"]] == result["ruleId"]
    (pickle,) = [r for r in run["results"] if r["ruleId"] == "hook-forbidden-imports"]
    (location,) = pickle["locations"]
    assert location["physicalLocation"]["region"]["startLine"] == 1
    assert location["physicalLocation"]["artifactLocation"]["uri"] == (
        "vllm/core/a%2C%20b%3Ac%25.py"
    )
    assert "pre-commit-config.yaml" in pickle["relatedLocations"][0]["message"]["text"]
    (waived,) = [r for r in run["results"] if r.get("suppressions")]
    assert waived["ruleId"] == "tests"


def test_the_schema_refuses_what_is_no_sarif():
    validator = Draft7Validator(json.loads(SCHEMA.read_text()))
    assert list(validator.iter_errors({"version": "2.1.0"}))
    wrong = {"version": "2.1.0", "runs": [{"tool": {"driver": {"name": "x"}}, "results": [{}]}]}
    assert list(validator.iter_errors(wrong))


def test_workflow_commands_are_one_a_line_and_cannot_be_forged(clone, report):
    spoil(clone)
    _, out = report("github")
    lines = out.splitlines()
    command = re.compile(r"::(error|warning|notice) [^\r\n]*?title=preflight%3A [\w-]+::[^\r\n]+")
    assert lines
    assert all(command.fullmatch(line) for line in lines)
    assert not [line for line in lines if line.startswith("::error::no")]
    (named,) = [line for line in lines if "forbidden import" in line]
    assert "file=vllm/core/a%2C b%3Ac%25.py,line=1," in named


def test_text_says_what_to_do_and_what_to_expect(clone, report):
    good_change(clone)
    code, out = report("text", *STATED)
    assert code == 1
    assert "do: once it is true: --i-can-defend-this-change" in out
    lines = FILES["AGENTS.md"].splitlines()
    number = next(n for n, line in enumerate(lines, 1) if "must understand and defend" in line)
    assert f"rule: AGENTS.md:{number} “Accountability”: {lines[number - 1]}" in out
    assert "Core on CPU on cpu: tests/core (tests/core/test_pool.py)" in out
    assert out.rstrip().splitlines()[-1].startswith("not ready: 2 findings")


def test_json_has_everything(clone, report):
    good_change(clone)
    _, out = report("json")
    document = json.loads(out)
    assert {"ready", "findings", "checked", "unwritten", "expected", "base", "head"} <= set(
        document
    )
    assert document["unwritten"] == []


def test_every_rule_is_found_in_the_shape_of_upstream(clone, report):
    clone.write("vllm/core/a.py", HEADER)
    clone.commit(f"[Core] Add\n\n{TRAILERS}")
    assert json.loads(report("json")[1])["unwritten"] == []
