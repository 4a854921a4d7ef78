"""`trackrecord upstream impact`: what it takes as the name of something to change."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

from mini_vllm import console
from trackrecord.commands import upstream
from trackrecord.errors import UpstreamError
from trackrecord.upstream.diffs import FileChange
from trackrecord.upstream.impact import targets_of_sources
from trackrecord.upstream.index.query import Index
from trackrecord.workspace import Workspace

POOL = "vllm/v1/core/block_pool.py"
Run = Callable[..., tuple[int, str, str]]


@pytest.fixture(name="impact")
def _impact(workspace: Workspace, capsys: pytest.CaptureFixture[str]) -> Run:
    def main(argv: Sequence[str]) -> int:
        parser = console.Parser(prog="trackrecord upstream")
        upstream.configure(parser)
        return upstream.run(parser.parse_args(argv))

    def run(*words: object) -> tuple[int, str, str]:
        argv = [*map(str, words), "--workspace", str(workspace.root)]
        code = console.run("trackrecord", main, argv)
        out, err = capsys.readouterr()
        return code, out, err

    console.run("trackrecord", main, ["index", "--workspace", str(workspace.root)])
    capsys.readouterr()
    return lambda *words: run("impact", *words)


@pytest.mark.parametrize("words", [POOL, "block_pool.py", f"{POOL}:20", f"{POOL}::BlockPool"])
def test_a_file_a_line_and_a_name_are_found(impact: Run, words: str) -> None:
    code, out, _ = impact(words)
    assert code == 0
    assert POOL in out


@pytest.mark.parametrize(
    ("words", "says"),
    [
        ("../../etc/passwd", "not a path inside the tree"),
        ("/etc/passwd", "not a path inside the tree"),
        (f"/{POOL}", "not a path inside the tree"),
        ("", "not a path inside the tree"),
        (f"{POOL}:", "names no line"),
        (f"{POOL}:0", "names no line"),
        ("block_pool.py:00", "names no line"),
        ("vllm/v1/core/blok_pool.py", f"did you mean {POOL}"),
        ("vlm/v1/core/blok_pool.py", f"did you mean {POOL}"),
        ("blok_pool.py", f"did you mean {POOL}"),
        ("docs/entirely_new.md", "no file 'docs/entirely_new.md' in made-1.0 (new files: --diff"),
    ],
)
def test_what_names_nothing_in_the_tree_is_one_line(impact: Run, words: str, says: str) -> None:
    code, out, err = impact(words)
    assert (code, out, err.count("\n")) == (2, "", 1)
    assert says in err


def diff_of(path: str) -> str:
    return f"--- /dev/null\n+++ b/{path}\n@@ -0,0 +1 @@\n+x = 1\n"


def test_a_diff_may_bring_new_files_but_none_outside_of_the_tree(
    impact: Run, tmp_path: Path
) -> None:
    file = tmp_path / "x.diff"
    file.write_text(diff_of("vllm/entirely_new.py"))
    assert impact("--diff", file)[0] == 0
    for path in ("../../etc/passwd", "/etc/passwd", "vllm/../../x.py"):
        file.write_text(diff_of(path))
        code, out, err = impact("--diff", file)
        assert (code, out, err.count("\n")) == (2, "", 1)
        assert f"not a path inside the tree: '{path}'" in err


def test_a_change_to_a_clone_is_held_to_the_same(index: Index) -> None:
    for change in (FileChange("../x.py", "x.py"), FileChange("x.py", "/x.py"), FileChange("", "")):
        with pytest.raises(UpstreamError, match="not a path inside the tree"):
            targets_of_sources(index, [change], {})


def test_json_shows_what_a_terminal_would_hide(impact: Run, tmp_path: Path) -> None:
    file = tmp_path / "x.diff"
    file.write_text(diff_of("vllm/\u202eyp.exe"))
    _, out, _ = impact("--diff", file, "--json")
    assert "\\u202eyp.exe" in out
    assert out.replace("\n", "").isprintable()
