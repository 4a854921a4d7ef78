"""What the documents point at is there.

An anchor is `path symbol` into this tree (paths from `src/`), or `path:line symbol` into vLLM's.
Those into this tree are resolved always; those into vLLM must be complete, and are resolved when
TRACKRECORD_VLLM_TREE names a folder with vLLM's sources (that of its source distribution).
"""

from __future__ import annotations

import ast
import os
import re
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
DOCUMENTS = sorted((ROOT / "docs").glob("*.md"))
LIFE = ROOT / "docs/life-of-a-request.md"
CODE = re.compile(r"`((?:mini_vllm|trackrecord|vllm)/[^`\n]+?\.py[^`\n]*)`")
HERE = re.compile(r"(?P<path>[\w/]+\.py)(?: (?P<symbol>[\w.]+))?")
THERE = re.compile(r"(?P<path>[\w/]+\.py)(?::(?P<line>[1-9]\d*) (?P<symbol>[\w.]+))?")


def anchors(document: Path) -> tuple[list[str], list[str]]:
    """The anchors of a document, into this tree and into vLLM's."""
    found = CODE.findall(document.read_text(encoding="utf-8"))
    there = [anchor for anchor in found if anchor.startswith("vllm/")]
    return [anchor for anchor in found if anchor not in there], there


@cache
def symbols(path: Path) -> dict[str, int]:
    """Line of every class, function and module-level name of a file; `Class.method` for methods.

    Of definitions that share a name (overloads, properties) the first one counts.
    """
    lines: dict[str, int] = {}

    def visit(body: list[ast.stmt], prefix: str) -> None:
        for node in body:
            if isinstance(node, (ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)):
                lines.setdefault(prefix + node.name, node.lineno)
                if isinstance(node, ast.ClassDef):
                    visit(node.body, f"{prefix}{node.name}.")
            elif isinstance(node, (ast.Assign, ast.AnnAssign)):
                targets = node.targets if isinstance(node, ast.Assign) else [node.target]
                for target in targets:
                    if isinstance(target, ast.Name):
                        lines.setdefault(prefix + target.id, node.lineno)

    visit(ast.parse(path.read_text(encoding="utf-8")).body, "")
    return lines


def problem_here(anchor: str, tree: Path) -> str | None:
    """What is wrong with an anchor into this tree."""
    match = HERE.fullmatch(anchor)
    if match is None:
        return "is not 'path symbol'"
    path = tree / match["path"]
    if not path.is_file():
        return "names no file"
    if match["symbol"] and match["symbol"] not in symbols(path):
        return "names no symbol of that file"
    return None


def problem_there(anchor: str, tree: Path | None) -> str | None:
    """What is wrong with an anchor into vLLM; without its tree, only the form is looked at."""
    match = THERE.fullmatch(anchor)
    if match is None:
        return "is not 'path:line symbol'"
    if tree is None:
        return None
    path = tree / match["path"]
    if not path.is_file():
        return "names no file"
    if match["symbol"]:
        line = symbols(path).get(match["symbol"])
        if line is None:
            return "names no symbol of that file"
        if line != int(match["line"]):
            return f"is out of place: the symbol is in line {line}"
    return None


def problems(document: Path, vllm_tree: Path | None) -> list[str]:
    here, there = anchors(document)
    found = [(anchor, problem_here(anchor, ROOT / "src")) for anchor in here]
    found += [(anchor, problem_there(anchor, vllm_tree)) for anchor in there]
    return [f"{anchor}: {problem}" for anchor, problem in found if problem is not None]


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)
def test_every_anchor_leads_somewhere(document: Path) -> None:
    tree = os.environ.get("TRACKRECORD_VLLM_TREE")
    assert problems(document, Path(tree) if tree else None) == []


def test_the_life_of_a_request_is_told_beside_vllms() -> None:
    here, there = anchors(LIFE)
    assert len(here) > 40
    assert len(there) > 40
    bare = [anchor for anchor in there if ":" not in anchor]
    assert bare == [], "an anchor into vLLM needs its line and symbol here"


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    source = "LIMIT = 5\n\nclass Pool:\n    size: int = 0\n\n    def take(self):\n        pass\n"
    (tmp_path / "vllm").mkdir()
    (tmp_path / "vllm/pool.py").write_text(source)
    return tmp_path


@pytest.mark.parametrize(
    ("anchor", "problem"),
    [
        ("vllm/pool.py", None),
        ("vllm/pool.py:6 Pool.take", None),
        ("vllm/pool.py:3 Pool", None),
        ("vllm/pool.py:1 LIMIT", None),
        ("vllm/pool.py:4 Pool.size", None),
        ("vllm/pool.py:7 Pool.take", "is out of place: the symbol is in line 6"),
        ("vllm/pool.py:6 Pool.give", "names no symbol of that file"),
        ("vllm/none.py:6 Pool.take", "names no file"),
        ("vllm/pool.py Pool.take", "is not 'path:line symbol'"),
        ("vllm/pool.py:6", "is not 'path:line symbol'"),
        ("vllm/pool.py:0 Pool.take", "is not 'path:line symbol'"),
    ],
)
def test_a_wrong_anchor_into_vllm_is_noticed(anchor: str, problem: str | None, tree: Path) -> None:
    assert problem_there(anchor, tree) == problem


@pytest.mark.parametrize(
    ("anchor", "problem"),
    [
        ("vllm/pool.py", None),
        ("vllm/pool.py Pool.take", None),
        ("vllm/pool.py take", "names no symbol of that file"),
        ("vllm/none.py Pool", "names no file"),
        ("vllm/pool.py:6 Pool.take", "is not 'path symbol'"),
    ],
)
def test_a_wrong_anchor_into_this_tree_is_noticed(
    anchor: str, problem: str | None, tree: Path
) -> None:
    assert problem_here(anchor, tree) == problem


def test_without_its_tree_an_anchor_into_vllm_is_still_held_to_its_form() -> None:
    assert problem_there("vllm/anything.py:6 Pool.take", None) is None
    assert problem_there("vllm/anything.py Pool.take", None) == "is not 'path:line symbol'"
