"""The worked example of docs/issues.md, run as it stands."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest

from mini_vllm import console
from trackrecord.commands import issues

DOCS = Path(__file__).parents[2] / "docs" / "issues.md"


def test_the_worked_example_prints_what_it_says(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    section = DOCS.read_text(encoding="utf-8").split("## A worked example")[1].split("\n## ")[0]
    threads, session = re.findall(r"^```(?:json|console)\n(.*?)^```$", section, re.DOTALL | re.M)
    Path("threads.jsonl").write_text(threads, encoding="utf-8")
    shown = ""
    for line in session.splitlines():
        if line.startswith("$ "):
            shown += f"{line}\n{output_of(shlex.split(line)[3:], capsys)}"
    assert shown == session


def output_of(argv: list[str], capsys: pytest.CaptureFixture[str]) -> str:
    parser = console.Parser(prog="trackrecord issues")
    issues.configure(parser)
    assert console.run("trackrecord", lambda words: issues.run(parser.parse_args(words)), argv) == 0
    return capsys.readouterr().out
