"""Running the clone's hooks with the real pre-commit."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest
from upstream_shaped import TRAILERS, good_change, run_command

CONFIG = """repos:
- repo: local
  hooks:
  - id: no-shouting
    name: No shouting
    entry: bash tools/no_shouting.sh
    language: system
    types: [python]
"""
SCRIPT = """#!/bin/sh
for file in "$@"; do
  sed -i 's/[ ]*$//' "$file"
  if grep -n -H SHOUT "$file" | sed 's/:SHOUT.*/: shouting/' | grep .; then exit 1; fi
done
exit 0
"""


@pytest.fixture
def preflight(clone, tmp_path, capsys, monkeypatch):
    folder = Path(sys.executable).parent
    assert (folder / "pre-commit").exists(), "install it with `make test`"
    monkeypatch.setenv("PATH", f"{folder}:/usr/bin:/bin")
    monkeypatch.setenv("PRE_COMMIT_HOME", str(tmp_path / "pre-commit"))
    clone.git("checkout", "-q", "main")
    clone.write(".pre-commit-config.yaml", CONFIG)
    clone.write("tools/no_shouting.sh", SCRIPT)
    clone.commit(f"Hooks\n\n{TRAILERS}")
    clone.git("checkout", "-q", "-B", "fix")

    def run(*words):
        code = run_command(
            *("preflight", "--repo", clone.root, "--workspace", tmp_path / "work"),
            *("--title", "[Core] x", "--json", *words),
        )
        streams = capsys.readouterr()
        assert code == 1, streams.err
        return [f for f in json.loads(streams.out)["findings"] if f["rule"] == "hooks"]

    return run


def test_hooks_that_pass_leave_nothing_to_say(clone, preflight):
    good_change(clone)
    assert preflight() == []


def test_a_hook_that_fails_is_named_at_the_line_it_names(clone, preflight):
    good_change(clone)
    clone.write("vllm/core/a.py", "x = 1\nSHOUT = 2   \n")
    clone.commit(f"[Core] Shout\n\n{TRAILERS}")
    placed, whole = preflight()
    assert (placed["path"], placed["line"]) == ("vllm/core/a.py", 2)
    assert "no-shouting" in whole["message"]
    # A hook that rewrites files has rewritten a copy.
    assert (clone.root / "vllm/core/a.py").read_text().endswith("2   \n")


def test_a_result_is_remembered_for_its_commit(clone, preflight, tmp_path):
    good_change(clone)
    clone.write("vllm/core/a.py", "SHOUT = 2\n")
    clone.commit(f"[Core] Shout\n\n{TRAILERS}")
    first = preflight()
    journal = tmp_path / "work" / "evidence" / "journal.jsonl"
    entries = len(journal.read_text().splitlines())
    assert preflight() == first
    assert len(journal.read_text().splitlines()) == entries
    clone.write("vllm/core/a.py", "quiet = 2\n")
    clone.commit(f"[Core] Quiet\n\n{TRAILERS}")
    assert preflight() == []


def test_hooks_that_the_branch_itself_changes_do_not_run_unasked(clone, preflight, tmp_path):
    mark = tmp_path / "ran"
    good_change(clone)
    clone.write("tools/no_shouting.sh", f"touch {mark}\n")
    clone.commit(f"[Core] Hook\n\n{TRAILERS}")
    findings = preflight()
    assert "tools/no_shouting.sh" in findings[0]["message"]
    assert findings[0]["level"] == "warning"
    assert not mark.exists()
    preflight("--hooks", "always")
    assert mark.exists()


def test_hooks_that_cannot_be_set_up_have_not_passed(clone, preflight):
    clone.git("checkout", "-q", "main")
    broken = CONFIG.replace("language: system", "language: no-such-language")
    clone.write(".pre-commit-config.yaml", broken)
    clone.commit(f"Broken\n\n{TRAILERS}")
    clone.git("checkout", "-q", "-B", "fix")
    good_change(clone)
    findings = preflight()
    assert findings
    assert all(finding["level"] in ("warning", "error") for finding in findings)


def test_hooks_do_not_run_where_their_outcome_cannot_be_recorded(clone, preflight, tmp_path):
    good_change(clone)
    assert preflight() == []
    journal = tmp_path / "work" / "evidence" / "journal.jsonl"
    journal.write_text("")
    clone.write("vllm/core/a.py", "SHOUT = 2\n")
    clone.commit(f"[Core] Shout\n\n{TRAILERS}")
    (finding, *_) = preflight("--hooks", "always")
    assert finding["level"] == "warning"
    assert "could not be recorded" in finding["message"]
    assert journal.read_text() == ""


def test_what_hooks_print_is_kept_without_secrets(clone, preflight, tmp_path, monkeypatch):
    monkeypatch.setenv("MY_TOKEN", "very-private-value")
    good_change(clone)
    clone.write("vllm/core/a.py", "SHOUT = 'very-private-value'\n")
    clone.write("tools/no_shouting.sh", 'cat "$@"; exit 1\n')
    clone.commit(f"[Core] Shout\n\n{TRAILERS}")
    assert preflight("--hooks", "always")
    kept = (tmp_path / "work" / "evidence" / "journal.jsonl").read_text()
    assert "[hidden]" in kept
    assert "very-private-value" not in kept
