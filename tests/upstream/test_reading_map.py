"""The reading map: what it holds, which area a path is in, and finding moved anchors again."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from made_upstream import CODE

from trackrecord.errors import UpstreamError
from trackrecord.upstream.anchors import check_anchors
from trackrecord.upstream.areas import (
    AREAS,
    Anchor,
    all_anchors,
    area_of_path,
    areas_of_paths,
    load_area,
)

POOL = "vllm/v1/core/block_pool.py"


@pytest.mark.parametrize("name", AREAS)
def test_every_area_is_complete_and_says_something_about_each_place(name: str) -> None:
    area = load_area(name)
    assert area.name == name
    assert area.title
    assert area.summary.endswith(".")
    assert area.paths
    assert 8 <= len(area.anchors) <= 15
    for anchor in area.anchors:
        assert anchor.line > 0
        assert anchor.look_for.endswith((".", "?"))
        assert anchor.invariant.endswith(".")
        assert not Path(anchor.path).is_absolute()


def test_no_place_is_listed_twice() -> None:
    places = [(anchor.path, anchor.symbol) for anchor in all_anchors()]
    assert len(places) == len(set(places))


def test_an_unknown_area_names_the_known_ones() -> None:
    with pytest.raises(UpstreamError, match="known are scheduler, kv-cache"):
        load_area("../areas")


@pytest.mark.parametrize(
    ("path", "areas"),
    [
        ("vllm/v1/core/sched/scheduler.py", ["scheduler", "kv-cache"]),
        (POOL, ["kv-cache"]),
        ("vllm/v1/sample/rejection_sampler.py", ["spec-decode", "sampling"]),
        ("vllm/model_executor/layers/quantization/fp8.py", ["quantization"]),
        ("docs/design/metrics.md", ["design-docs"]),
        ("README.md", []),
        ("vllm/v1/corex/a.py", []),
    ],
)
def test_the_area_with_the_closest_claim_comes_first(path: str, areas: list[str]) -> None:
    assert area_of_path(path) == areas


def test_the_areas_of_several_paths() -> None:
    assert areas_of_paths([POOL, "README.md", "vllm/v1/core/x.py"]) == ["kv-cache"]


# Checking.


def anchor(path: str, line: int, symbol: str) -> Anchor:
    return Anchor("kv-cache", path, line, symbol, "this", "that")


ANCHORS = [
    anchor(POOL, 4, "BlockPool"),
    anchor(POOL, 10, "BlockPool.get_new_blocks"),
    anchor("AGENTS.md", 3, "Duplicate work"),
    anchor(".github/CODEOWNERS", 3, "/vllm/v1 @core"),
]


def states(tree: Path) -> list[tuple[str, str, int]]:
    return [(c.state, c.path, c.line) for c in check_anchors(ANCHORS, tree)]


def test_anchors_that_are_where_they_say(tree: Path) -> None:
    assert {state for state, _, _ in states(tree)} == {"in place"}


def test_anchors_that_moved_within_their_file(tree: Path) -> None:
    for name in (POOL, "AGENTS.md", ".github/CODEOWNERS"):
        file = tree / name
        file.write_text("\n\n" + file.read_text())
    assert states(tree) == [
        ("moved", POOL, 6),
        ("moved", POOL, 12),
        ("moved", "AGENTS.md", 5),
        ("moved", ".github/CODEOWNERS", 5),
    ]
    words = check_anchors(ANCHORS, tree)[1].words
    assert words == f"{POOL}:10: BlockPool.get_new_blocks is now at {POOL}:12"


def test_anchors_that_moved_to_another_file(tree: Path) -> None:
    new = "vllm/v2/pool.py"
    (tree / "vllm" / "v2").mkdir()
    shutil.move(tree / POOL, tree / new)
    shutil.copy(tree / new, tree / "tests" / "v1" / "copy.py")
    assert states(tree)[:2] == [("moved", new, 4), ("moved", new, 10)]


def test_anchors_whose_place_is_gone(tree: Path) -> None:
    (tree / POOL).write_text(CODE[POOL].replace("get_new_blocks", "take"))
    (tree / "AGENTS.md").unlink()
    (tree / ".github" / "CODEOWNERS").write_text("")
    checks = check_anchors(ANCHORS, tree)
    assert [c.state for c in checks] == ["in place", "gone", "gone", "gone"]
    assert checks[1].words.endswith("BlockPool.get_new_blocks is gone")


def test_of_several_of_one_name_the_nearest_is_meant(tree: Path) -> None:
    (tree / "AGENTS.md").write_text("# Other\n\n\n\n## Duplicate work\n\n\n\n## Duplicate work\n")
    assert states(tree)[2] == ("moved", "AGENTS.md", 5)


def test_a_tree_that_cannot_be_parsed_or_leads_elsewhere(tree: Path, tmp_path: Path) -> None:
    (tmp_path / "outside.md").write_text("# x\n\n## Duplicate work\n")
    (tree / "AGENTS.md").unlink()
    (tree / "AGENTS.md").symlink_to(tmp_path / "outside.md")
    (tree / POOL).write_bytes(b"class BlockPool(:\n\xff")
    assert [state for state, _, _ in states(tree)] == ["gone", "gone", "gone", "in place"]
