"""Asking git about a hostile clone: nothing that its configuration names is run."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest
from made_upstream import git, git_repository

from trackrecord.errors import UpstreamError
from trackrecord.upstream.diffs import diff_of_repository

CHANGED = "vllm/v1/scheduler.py"


@pytest.fixture(name="trap")
def _trap(tree: Path, tmp_path: Path) -> tuple[Path, str]:
    """A clone with a changed file, and a command that leaves a mark where it is run."""
    git_repository(tree)
    (tree / CHANGED).write_text("# more above\n" + (tree / CHANGED).read_text())
    mark = tmp_path / "ran"
    return mark, f"touch {mark}; cat"


@pytest.mark.parametrize("name", [b"plain", b"a=b", b"", b"x.clean", b"\xff"])
@pytest.mark.parametrize("key", ["clean", "process"])
def test_no_filter_runs_whatever_it_is_called(
    tree: Path, trap: tuple[Path, str], name: bytes, key: str
) -> None:
    mark, command = trap
    with (tree / ".git" / "config").open("ab") as file:
        file.write(b'[filter "%s"]\n\t%s = "%s"\n' % (name, key.encode(), command.encode()))
    (tree / ".git" / "info" / "attributes").write_bytes(
        b'"*.py" filter=%s\n*.py filter=%s\n' % (name, name)
    )
    assert [change.path for change in diff_of_repository(str(tree), "v1.0")] == [CHANGED]
    assert not mark.exists()


def test_no_other_program_of_the_configuration_runs(tree: Path, trap: tuple[Path, str]) -> None:
    mark, command = trap
    hook = tree / "hooks" / "post-index-change"
    hook.parent.mkdir()
    hook.write_text(f"#!/bin/sh\n{command}\n")
    hook.chmod(0o755)
    for key in ("core.fsmonitor", "diff.external", "diff.py.command", "diff.py.textconv"):
        git(tree, "config", key, f"sh -c '{command}'")
    git(tree, "config", "core.hooksPath", str(hook.parent))
    (tree / ".git" / "info" / "attributes").write_text("*.py diff=py\n")
    assert [change.path for change in diff_of_repository(str(tree), "v1.0")] == [CHANGED]
    assert not mark.exists()


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("diff.mnemonicPrefix", "true"),
        ("diff.noprefix", "true"),
        ("diff.interHunkContext", "50"),
        ("color.ui", "always"),
    ],
)
def test_no_configuration_gives_a_diff_another_form(
    tree: Path, trap: tuple[Path, str], key: str, value: str
) -> None:
    with (tree / CHANGED).open("a") as file:
        file.write("# more below\n")
    wanted = diff_of_repository(str(tree), "v1.0")
    assert len(wanted[0].hunks) == 2
    git(tree, "config", key, value)
    assert diff_of_repository(str(tree), "v1.0") == wanted


def test_a_git_that_does_not_hear_the_settings_is_not_asked(
    tree: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    git_repository(tree)
    old = tmp_path / "bin" / "git"
    old.parent.mkdir()
    old.write_text('#!/bin/sh\nunset GIT_CONFIG_COUNT\nexec "$REAL_GIT" "$@"\n')
    old.chmod(0o755)
    real = subprocess.run(["which", "git"], capture_output=True, text=True, check=True)
    monkeypatch.setenv("REAL_GIT", real.stdout.strip())
    monkeypatch.setenv("PATH", f"{old.parent}{os.pathsep}{os.environ['PATH']}")
    with pytest.raises(UpstreamError, match="too old"):
        diff_of_repository(str(tree), "v1.0")


def test_histories_without_a_common_commit_are_said_to_be_so(tree: Path) -> None:
    git_repository(tree)
    git(tree, "checkout", "--quiet", "--orphan", "other")
    git(tree, "commit", "--quiet", "-m", "anew")
    with pytest.raises(UpstreamError, match=r"v1\.0 and HEAD have no common commit"):
        diff_of_repository(str(tree), "v1.0")
