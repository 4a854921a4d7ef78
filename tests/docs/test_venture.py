"""docs/venture.md, run as it stands."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from docs.test_workbench import run

DOCS = (Path(__file__).parents[2] / "docs/venture.md").read_text(encoding="utf-8")


@pytest.mark.slow
def test_the_session_prints_what_it_says(tmp_path: Path) -> None:
    text = "".join(re.findall(r"^```console\n(.*?)^```$", DOCS, re.DOTALL | re.MULTILINE))
    parts = re.split(r"^\$ (.*)\n", text, flags=re.MULTILINE)[1:]
    run(list(zip(parts[::2], parts[1::2], strict=True)), tmp_path)
    assert (tmp_path / "venture/venture.html").is_file()
