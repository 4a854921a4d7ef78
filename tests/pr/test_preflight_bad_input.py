"""Preflight on what nobody meant it for: broken, odd and hostile clones."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest
from upstream_shaped import (
    HEADER,
    STATED,
    TRAILERS,
    good_change,
    run_command,
)

# Bad input.


def test_a_branch_without_commits_and_a_folder_without_git_are_one_line(clone, tmp_path, capsys):
    for words in (
        ("--repo", clone.root),
        ("--repo", tmp_path),
        ("--repo", tmp_path / "missing"),
        ("--repo", clone.root, "--base", "no-such-thing"),
        ("--repo", clone.root, "--base=--output=x"),
        ("--repo", clone.root, "--pr-body", tmp_path / "missing.md"),
    ):
        assert run_command("preflight", "--workspace", tmp_path / "w", *words) == 2
        streams = capsys.readouterr()
        assert streams.out == ""
        assert streams.err.count("\n") == 1


def test_malformed_policy_files_cost_only_themselves_and_are_named(clone, preflight):
    clone.git("checkout", "-q", "main")
    clone.write(".github/mergify.yml", "pull_request_rules: [")
    clone.write(".buildkite/test_areas/bad.yaml", "\t- x: [\n")
    clone.write(".pre-commit-config.yaml", "repos: {")
    clone.write(".github/CODEOWNERS", b"\xff\xfe /vllm @x\n/vllm/core @grace\n")
    clone.commit(f"Break\n\n{TRAILERS}")
    clone.git("checkout", "-q", "-B", "fix")
    good_change(clone)
    found = preflight(*STATED)
    assert found.code == 0
    assert [owner["owner"] for owner in found.report["expected"]["owners"]] == ["@grace"]
    named = {f["path"]: f for f in found.of("unreadable")}
    assert sorted(named) == [
        ".buildkite/test_areas/bad.yaml",
        ".github/mergify.yml",
        ".pre-commit-config.yaml",
    ]
    for path, finding in named.items():
        assert finding["level"] == "warning"
        assert finding["message"].startswith(f"{path}: not checked")
        assert finding["sources"][0]["path"] == path


@pytest.mark.parametrize(
    ("path", "text"),
    [
        (".pre-commit-config.yaml", "just words\n"),
        (".pre-commit-config.yaml", "repos: 5\n"),
        (".pre-commit-config.yaml", "# " + "x" * 2_000_000),
        (".buildkite/ci_config.yaml", "[]\n"),
        (".buildkite/test_areas/core.yaml", "7\n"),
        (".github/mergify.yml", "- no mapping\n"),
        (".github/CODEOWNERS", b"\x00\xff\x00 no pattern\n"),
        (".github/CODEOWNERS", "/vllm @grace\n" * 200_000),
    ],
)
def test_a_policy_file_that_says_nothing_is_not_taken_for_one_without_rules(
    clone, preflight, path, text
):
    clone.git("checkout", "-q", "main")
    clone.write(path, text)
    clone.commit(f"Break\n\n{TRAILERS}")
    clone.git("checkout", "-q", "-B", "fix")
    good_change(clone)
    assert [f["path"] for f in preflight(*STATED).of("unreadable")] == [path]


def test_where_every_policy_file_can_be_read_none_is_named(clone, preflight):
    clone.git("checkout", "-q", "main")
    clone.write(".github/CODEOWNERS", "# nobody yet\n")
    clone.write(".buildkite/test_areas/later.yaml", "group: Later\nsteps: []\n")
    clone.commit(f"Less\n\n{TRAILERS}")
    clone.git("checkout", "-q", "-B", "fix")
    good_change(clone)
    assert preflight(*STATED).of("unreadable") == []


def test_unparsable_binary_and_oddly_encoded_files_are_survived(clone, preflight):
    clone.write("vllm/core/broken.py", HEADER + "def f(:\n")
    clone.write("vllm/core/latin.py", HEADER.encode() + b"x = '\xe9'\n")
    clone.write("vllm/core/binary.py", b"\0\1\2" * 4000)
    clone.write("docs/deep.md", "[" * 10_000)
    clone.write("vllm/core/deep.py", HEADER + "(" * 3000 + ")" * 3000 + "\n")
    (clone.root / "vllm/core/link.py").symlink_to("/etc/passwd")
    clone.commit(f"[Core] Odd\n\n{TRAILERS}")
    found = preflight()
    assert found.code == 1
    assert "passwd" not in json.dumps(found.report)


def test_hostile_names_and_messages_are_made_visible(clone, preflight, tmp_path, capsys):
    clone.write("vllm/core/a\x1b[31m\nb.py", "x = 1\n")
    clone.commit("Red \x1b[31m \x9b31m title")
    words = ("--repo", clone.root, "--workspace", tmp_path / "w", "--hooks", "never")
    for form in ("text", "json", "sarif", "github"):
        assert run_command("preflight", *words, "--format", form) == 1
        out = capsys.readouterr().out
        assert "\x1b" not in out
        assert "\x9b" not in out


def test_a_clone_cannot_make_git_run_anything(clone, preflight, tmp_path):
    mark = tmp_path / "ran"
    script = tmp_path / "script"
    script.write_text(f"#!/bin/sh\ntouch {mark}\ncat\n")
    script.chmod(0o755)
    for key in (
        *("core.fsmonitor", "diff.external", "diff.x.textconv", "diff.x.command", "core.pager"),
        *(
            "filter.x.clean",
            "filter.x.smudge",
            "filter.x.process",
            "core.sshCommand",
            "gpg.program",
        ),
    ):
        clone.git("config", key, str(script))
    clone.git("config", "filter.x.required", "true")
    clone.git("config", "log.showSignature", "true")
    hooks = clone.root / ".git" / "hooks"
    for name in ("post-checkout", "pre-commit", "post-index-change", "reference-transaction"):
        (hooks / name).write_text(f"#!/bin/sh\ntouch {mark}\n")
        (hooks / name).chmod(0o755)
    clone.write(".gitattributes", "*.py diff=x filter=x\n")
    clone.replace("vllm/core/pool.py", "return taken", "return list(taken)")
    words = ("-c", "core.fsmonitor=false", "-c", f"core.hooksPath={os.devnull}")
    words += ("-c", "filter.x.clean=", "-c", "filter.x.process=", "-c", "filter.x.required=false")
    clone.git(*words, "add", "-A")
    clone.git(*words, "commit", "-q", "-m", f"[Core] x\n\n{TRAILERS}")
    mark.unlink(missing_ok=True)
    clone.write("vllm/core/pool.py", "changed = 1\n")
    preflight()
    assert not mark.exists()


def test_the_environment_cannot_point_git_elsewhere(clone, preflight, monkeypatch, tmp_path):
    good_change(clone)
    monkeypatch.setenv("GIT_DIR", str(tmp_path))
    monkeypatch.setenv("GIT_EXTERNAL_DIFF", "false")
    monkeypatch.setenv("GIT_INDEX_FILE", str(tmp_path / "index"))
    assert preflight(*STATED).code == 0


def test_nothing_is_written_into_the_clone(clone, preflight):
    good_change(clone)
    before = snapshot(clone.root)
    preflight(*STATED)
    assert snapshot(clone.root) == before


def snapshot(root: Path) -> dict[str, tuple[int, bytes]]:
    return {
        str(path.relative_to(root)): (path.stat().st_mtime_ns, path.read_bytes())
        for path in sorted(root.rglob("*"))
        if path.is_file()
    }
