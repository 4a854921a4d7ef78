"""The blast radius of a change, and how a diff becomes the definitions that it touches."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from made_upstream import CODE, git, git_repository, index_of, write_tree

from trackrecord.errors import UpstreamError
from trackrecord.upstream.diffs import Hunk, diff_of_repository, parse_diff, place_hunk
from trackrecord.upstream.impact import (
    Impact,
    Target,
    impact_of,
    targets_of_diff,
    targets_of_sources,
)
from trackrecord.upstream.index.query import Index

POOL = "vllm/v1/core/block_pool.py"


def dependents(impact: Impact) -> dict[str, int]:
    return {d.qualname: d.distance for d in impact.dependents}


def features(impact: Impact) -> dict[str, list[str]]:
    return {f.feature: [f"{h.how} {h.qualname}".strip() for h in f.hops] for f in impact.features}


def test_who_depends_on_a_definition_and_at_which_distance(index: Index) -> None:
    impact = impact_of(index, [Target(POOL, 20)])
    assert [s.qualname for s in impact.symbols] == ["BlockPool.get_new_blocks"]
    found = dependents(impact)
    assert found["KVManager.allocate"] == found["main"] == 1
    assert found["Scheduler.schedule"] == found["SpecManager.allocate_draft"] == 2
    assert [d.distance for d in impact.dependents] == sorted(found.values())
    allocate = next(d for d in impact.dependents if d.qualname == "KVManager.allocate")
    assert (allocate.path, allocate.line) == ("vllm/v1/core/manager.py", 9)
    assert (allocate.uses, allocate.certainty) == ("BlockPool.get_new_blocks", "sure")


def test_what_a_change_sets_off(index: Index) -> None:
    impact = impact_of(index, [Target(POOL, 20)])
    assert impact.tests[0].name == "test_takes_blocks"
    assert next(s.label for s in impact.steps if s.runs == "runs") == "Core (CPU)"
    assert impact.owners == ["@pool"]
    assert [hit.labels for hit in impact.labels] == [("v1",)]
    assert impact.importers[0] == 4


def test_features_come_with_the_path_that_shows_them(index: Index) -> None:
    impact = impact_of(index, [Target(POOL, 20)])
    found = features(impact)
    assert found["LoRA"] == [
        "BlockPool.get_new_blocks",
        "used by KVManager.allocate",
        "used by Scheduler.schedule",
    ]
    assert found["async scheduling"][-1] == "inherited by AsyncScheduler"
    assert found["speculative decoding"][-1] == "used by SpecManager.allocate_draft"
    assert "multimodal" not in found
    lora = next(f for f in impact.features if f.feature == "LoRA")
    assert lora.evidence in index.tree.read_lines(lora.path)[lora.line - 1]


def test_a_whole_file_touches_what_it_defines_and_its_tests_are_those_that_import_it(
    index: Index,
) -> None:
    impact = impact_of(index, [Target(POOL)])
    assert [s.qualname for s in impact.symbols] == ["BlockPool"]
    assert [t.path for t in impact.tests] == ["tests/v1/core/test_block_pool.py"]


def test_several_files_and_new_ones(index: Index) -> None:
    impact = impact_of(
        index,
        [Target(POOL, 20), Target("vllm/v1/scheduler.py", None, "Scheduler"), Target("docs/n.md")],
        title="[LoRA] x",
    )
    assert impact.paths == (POOL, "vllm/v1/scheduler.py", "docs/n.md")
    assert impact.new_paths == ("docs/n.md",)
    assert impact.owners == ["@pool", "@core", "@second"]
    assert {owned.path: owned.line for owned in impact.owned} == {
        POOL: 4,
        "vllm/v1/scheduler.py": 3,
        "docs/n.md": 5,
    }
    assert [hit.labels for hit in impact.labels] == [("v1",), ("documentation",)]


def test_what_is_not_there_is_remarked(index: Index) -> None:
    impact = impact_of(index, [Target(POOL, None, "Nobody")], remarks=["before"])
    assert impact.remarks == ("before", f"{POOL}: Nobody is not in this tree")
    assert impact_of(index, []).steps == ()


def test_a_circle_of_uses_ends(tmp_path: Path) -> None:
    files = {"vllm/a.py": "def f(): g()\ndef g(): h()\ndef h(): f()\n"}
    index = index_of(write_tree(tmp_path / "tree", files), tmp_path / "index.sqlite")
    assert dependents(impact_of(index, [Target("vllm/a.py", 1)])) == {"h": 1, "g": 2}


def test_a_search_that_stops_early_says_so(tmp_path: Path) -> None:
    chain = "".join(f"def f{i}(): f{i - 1}()\n" for i in range(1, 400))
    wide = "".join(f"def w{i}(): f0()\n" for i in range(200))
    files = {"vllm/a.py": f"def f0(): pass\n{chain}{wide}"}
    index = index_of(write_tree(tmp_path / "tree", files), tmp_path / "index.sqlite")
    impact = impact_of(index, [Target("vllm/a.py", 1)])
    assert max(dependents(impact).values()) <= 5
    assert any("stopped after" in remark for remark in impact.remarks)


# Diffs.

DIFF = """diff --git a/vllm/v1/core/block_pool.py b/vllm/v1/core/block_pool.py
index 1..2 100644
--- a/vllm/v1/core/block_pool.py
+++ b/vllm/v1/core/block_pool.py
@@ -18,3 +18,4 @@ class BlockPool:
         # TODO: evict when the queue is longer than
         # the pool.
+        assert count
         return [self.free.pop() for _ in range(count)]
diff --git a/vllm/logger.py b/vllm/log.py
similarity index 100%
rename from vllm/logger.py
rename to vllm/log.py
diff --git a/vllm/new.py b/vllm/new.py
new file mode 100644
--- /dev/null
+++ b/vllm/new.py
@@ -0,0 +1 @@
+x = 1
diff --git a/bin.png b/bin.png
Binary files a/bin.png and b/bin.png differ
"""


def test_reading_a_diff(index: Index) -> None:
    pool, renamed, new, binary = parse_diff(DIFF)
    assert (pool.path, pool.old_path, pool.is_new) == (POOL, POOL, False)
    [hunk] = pool.hunks
    assert (hunk.old_lines, hunk.new_lines) == ([19], [20])
    assert (renamed.path, renamed.old_path) == ("vllm/log.py", "vllm/logger.py")
    assert (new.path, new.is_new) == ("vllm/new.py", True)
    assert binary.path == "bin.png"
    targets, remarks = targets_of_diff(index, [pool, renamed, new])
    assert remarks == []
    assert targets == [
        Target(POOL, 19),
        Target("vllm/logger.py"),
        Target("vllm/log.py"),
        Target("vllm/new.py"),
    ]


def test_a_diff_for_another_version_is_placed_by_its_context(index: Index) -> None:
    [change] = parse_diff(DIFF.partition("diff --git a/vllm/logger")[0].replace("-18,3", "-7,3"))
    targets, remarks = targets_of_diff(index, [change])
    assert (targets, remarks) == ([Target(POOL, 19)], [])
    change.hunks[0].old[0] = "something else"
    targets, remarks = targets_of_diff(index, [change])
    assert targets == [Target(POOL)]
    assert "is not in this tree" in remarks[0]


def test_a_plain_diff_without_git_headers() -> None:
    text = "--- a/x.py\t2026-01-01\n+++ b/x.py\t2026-01-02\n@@ -1 +1 @@\n-a\n+b\n"
    [change] = parse_diff(text)
    assert (change.path, change.hunks[0].old_lines) == ("x.py", [1])


def test_lines_that_look_like_headers_inside_of_a_hunk() -> None:
    text = "--- a/x.sql\n+++ b/x.sql\n@@ -1,2 +1 @@\n--- old\n-- kept\n+++ new\n"
    [change] = parse_diff(text)
    assert change.hunks[0].old == ["-- old", "- kept"]


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("", "not a unified diff"),
        ("hello\nworld\n", "not a unified diff"),
        ("@@ -1 +1 @@\n-a\n+b\n", "belongs to no file"),
        ("--- a/x\n+++ b/x\n@@ -1,2 +1,2 @@\n-a\n", "cut off in x"),
        ("--- a/x\n+++ b/x\n@@ -1,2 +1,2 @@\n-a\n*\n", "line 5"),
    ],
)
def test_what_is_no_diff_is_said_so(text: str, says: str) -> None:
    with pytest.raises(UpstreamError, match=says):
        parse_diff(text)


LINES = st.lists(st.sampled_from(["a", "b", "c", ""]), max_size=8)


@given(before=LINES, after=LINES, old=st.lists(st.sampled_from("xyz"), min_size=1, max_size=4))
def test_a_hunk_is_found_wherever_its_lines_stand_alone(
    before: list[str], after: list[str], old: list[str]
) -> None:
    hunk = Hunk(old_start=1, new_start=1, old=old)
    assert place_hunk(hunk, [*before, *old, *after]) == len(before)
    assert place_hunk(hunk, [*before, *after]) is None


def test_the_change_in_a_clone(tree: Path, index: Index) -> None:
    git_repository(tree)
    (tree / POOL).write_text(CODE[POOL].replace("self.free += blocks", "self.free.extend(blocks)"))
    git(tree, "commit", "--all", "--quiet", "-m", "one")
    (tree / "vllm" / "v1" / "scheduler.py").write_text(
        "# more above\n" + CODE["vllm/v1/scheduler.py"].replace("allocate(1)", "allocate(2)")
    )
    changes = diff_of_repository(str(tree), "v1.0")
    sources = {c.path: (tree / c.path).read_bytes() for c in changes}
    targets = targets_of_sources(index, changes, sources)
    assert {t.qualname for t in targets if t.qualname} == {
        "BlockPool.free_blocks",
        "Scheduler.schedule",
    }
    impact = impact_of(index, targets)
    assert {s.qualname for s in impact.symbols} == {"BlockPool.free_blocks", "Scheduler.schedule"}
    assert diff_of_repository(str(tree), "HEAD")[0].path == "vllm/v1/scheduler.py"


def test_a_repository_that_is_none_and_a_revision_that_is_an_option(tree: Path) -> None:
    with pytest.raises(UpstreamError, match="not a git repository"):
        diff_of_repository(str(tree), "main")
    git_repository(tree)
    with pytest.raises(UpstreamError, match="Not a valid object name"):
        diff_of_repository(str(tree), "nothing")
    with pytest.raises(UpstreamError, match="not a revision"):
        diff_of_repository(str(tree), "--output=x")
    assert diff_of_repository(str(tree), "main") == []
