from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
from upstream_shaped import BODY, Checked, Clone, make_clone, run_command


@pytest.fixture(scope="session")
def clone_template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_clone(tmp_path_factory.mktemp("upstream") / "clone").root


@pytest.fixture
def clone(clone_template: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Clone:
    """A fresh copy of the clone; neither a pinned tree nor an issue store is there."""
    monkeypatch.setenv("TRACKRECORD_CACHE", str(tmp_path / "cache"))
    shutil.copytree(clone_template, tmp_path / "clone", symlinks=True)
    return Clone(tmp_path / "clone")


@pytest.fixture
def preflight(clone: Clone, tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    """Runs preflight on the clone without its hooks, for issue 7; what it found."""

    def run(*words, body=BODY, issue=7):
        text = tmp_path / "body.md"
        text.write_text(body)
        words = ("--repo", clone.root, "--workspace", tmp_path / "work", *words)
        words += ("--pr-body", text, "--issue", issue, "--hooks", "never", "--json")
        code = run_command("preflight", *words)
        streams = capsys.readouterr()
        assert not streams.err, streams.err
        return Checked(code, json.loads(streams.out))

    return run
