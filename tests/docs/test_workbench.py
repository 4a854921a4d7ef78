"""docs/workbench.md, run as it stands: its first part on the pinned tree, its second anywhere."""

from __future__ import annotations

import doctest
import gzip
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from pr.upstream_shaped import make_clone

DOCS = (Path(__file__).parents[2] / "docs/workbench.md").read_text(encoding="utf-8")


DATA = Path(__file__).parents[1] / "data"
LOOSELY = doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE


def session_of(title: str) -> list[tuple[str, str]]:
    """(command, what it prints) of each example below a heading."""
    section = DOCS.split(f"\n## {title}\n")[1].split("\n## ")[0]
    text = "".join(re.findall(r"^```console\n(.*?)^```$", section, re.DOTALL | re.MULTILINE))
    parts = re.split(r"^\$ (.*)\n", text, flags=re.MULTILINE)[1:]
    return list(zip(parts[::2], parts[1::2], strict=True))


def run(session: list[tuple[str, str]], folder: Path) -> None:
    binaries = Path(sys.executable).parent
    environment = os.environ | {"PATH": f"{binaries}:{os.environ['PATH']}", "COLUMNS": "100"}
    checker = doctest.OutputChecker()
    for command, wanted in session:
        if command.startswith("cd "):
            folder = folder / command.removeprefix("cd ")
            continue
        done = subprocess.run(
            ["bash", "-c", command], cwd=folder, env=environment, capture_output=True, text=True
        )
        same = checker.check_output(wanted, done.stdout, LOOSELY)
        assert same, f"$ {command}\n{done.stdout}{done.stderr}"


@pytest.mark.upstream
def test_from_the_tree_to_a_plan(tmp_path: Path) -> None:
    run(session_of("From the tree to a plan"), tmp_path)


@pytest.mark.upstream
def test_other_peoples_work(tmp_path: Path) -> None:
    threads = DATA / "threads/winding.jsonl.gz"
    (tmp_path / "threads.jsonl").write_bytes(gzip.decompress(threads.read_bytes()))
    run(session_of("Other people's work"), tmp_path)


def test_from_a_branch_to_a_description(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TRACKRECORD_CACHE", str(tmp_path / "cache"))
    make_clone(tmp_path / "vllm")
    run(session_of("From a branch to a description"), tmp_path)
