"""On the pinned release itself: what the index says, against the tree read in a second way."""

from __future__ import annotations

import ast
import json
import random
from pathlib import Path

import pytest

from trackrecord.cli import main
from trackrecord.pr.invariants import misplaced
from trackrecord.upstream.anchors import check_anchors
from trackrecord.upstream.areas import all_anchors
from trackrecord.upstream.index.query import Index
from trackrecord.upstream.nearby_tests import nearby_tests
from trackrecord.upstream.pin import Tree
from trackrecord.workspace import Workspace

pytestmark = pytest.mark.upstream
SAMPLE = 200


def modules_imported_by(path: Path, package: str) -> set[str]:
    """What the import statements of a file name, anywhere in it, as dotted modules."""
    found: set[str] = set()
    for node in ast.walk(ast.parse(path.read_bytes())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ""
            if node.level:
                above = package.split(".")[: len(package.split(".")) - node.level + 1]
                base = ".".join([*above, base] if base else above)
            found.add(base)
            found |= {f"{base}.{alias.name}" for alias in node.names}
    return found


def test_the_tests_of_a_file_are_all_that_import_it(real_index: Index, real_tree: Tree) -> None:
    importers: dict[str, set[str]] = {}
    for path in sorted((real_tree.root / "tests").rglob("test_*.py")):
        name = path.relative_to(real_tree.root).as_posix()
        for module in modules_imported_by(path, name.rpartition("/")[0].replace("/", ".")):
            importers.setdefault(module, set()).add(name)
    sources = sorted(
        path.relative_to(real_tree.root).as_posix()
        for path in (real_tree.root / "vllm").rglob("*.py")
        if path.name != "__init__.py"
    )
    sample = random.Random(22).sample(sources, SAMPLE)
    missing = {}
    some = 0
    for source in sample:
        wanted = importers.get(source.removesuffix(".py").replace("/", "."), set())
        listed = {test.path for test in nearby_tests(real_index, source)}
        some += bool(wanted)
        if wanted - listed:
            missing[source] = wanted - listed
    assert missing == {}
    assert some > SAMPLE // 10


def test_every_place_of_the_reading_map_and_every_keeper_of_an_invariant_is_there(
    real_index: Index, real_tree: Tree
) -> None:
    wrong = [c for c in check_anchors(all_anchors(), real_tree.root) if c.state != "in place"]
    assert wrong == []
    assert misplaced(real_index) == []


def test_the_block_pool_as_upstream_has_it(real_index: Index) -> None:
    [symbol] = real_index.find_symbols("BlockPool.get_new_blocks")
    assert (symbol.path, symbol.line) == ("vllm/v1/core/block_pool.py", 333)
    assert "@WoosukKwon" in real_index.owners_of(symbol.path)
    tests = {test.path for test in nearby_tests(real_index, symbol.path, [symbol])}
    assert "tests/v1/core/test_prefix_caching.py" in tests


def test_the_way_from_the_tree_to_a_plan(
    real_tree: Tree, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """As docs/workbench.md goes, without a network and without a token."""
    work = ("--workspace", str(tmp_path / "work"))

    def run(*words: str) -> tuple[int, str]:
        code = main([*words, *work])
        return code, capsys.readouterr().out

    assert run("upstream", "index")[0] == 0
    assert run("upstream", "index")[1].count("nothing changed") == 1
    code, said = run("upstream", "impact", "vllm/v1/core/block_pool.py:333")
    assert code == 0
    assert "V1 Others (CPU)" in said
    code, said = run("issues", "harvest-todo", "--json")
    assert code == 0
    best = json.loads(said)["candidates"][0]["name"]
    code, said = run("gauntlet", best, "--json")
    [report] = json.loads(said)["reports"]
    assert [check["check"] for check in report["checks"]][:2] == ["claimed", "reproducible"]
    assert code == 1  # nothing says whether somebody is at it: pull requests were never synced
    assert run("plan", best)[0] == 0
    plan = Workspace.open(tmp_path / "work").plan_path(best)
    assert run("plan", "lint", str(plan))[0] == 0
