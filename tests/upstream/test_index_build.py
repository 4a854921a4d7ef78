"""Building the index: whole or not at all, and the same however it came about."""

from __future__ import annotations

import os
import shutil
import sqlite3
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, rule
from made_upstream import CODE, FILES, PIN, index_of, write_tree

from trackrecord.errors import UpstreamError
from trackrecord.upstream.index import build, workers
from trackrecord.upstream.index.build import BuildReport, build_index, count_changes
from trackrecord.upstream.index.query import Index
from trackrecord.upstream.pin import Tree
from trackrecord.upstream.where import where_is


def contents(path: Path) -> dict[str, object]:
    """Everything an index says, without the numbers that say it, nor words that nothing uses."""
    with sqlite3.connect(path) as db:
        queries = {
            "file": "SELECT path, size, is_test, pytestmark, gpu_line, gpu_sign, problem FROM file",
            "symbol": "SELECT f.path, w.text, s.qualname, s.kind, s.line, s.end_line, s.signature, "
            "s.doc, s.marks, s.gpu_line, s.gpu_sign FROM symbol s JOIN file f ON f.id = s.file "
            "JOIN word w ON w.id = s.name",
            "base": "SELECT s.qualname, w.text FROM base b JOIN symbol s ON s.id = b.symbol "
            "JOIN word w ON w.id = b.word",
            "import": "SELECT f.path, i.line, m.text, n.text, b.text, i.kind FROM import i "
            "JOIN file f ON f.id = i.file JOIN word m ON m.id = i.module "
            "JOIN word n ON n.id = i.name JOIN word b ON b.id = i.bound",
            "edge": "SELECT a.path, b.path, e.line, e.kind FROM edge e "
            "JOIN file a ON a.id = e.importer JOIN file b ON b.id = e.imported",
            "reference": "SELECT f.path, n.text, o.text, s.qualname, r.line FROM reference r "
            "JOIN file f ON f.id = r.file JOIN word n ON n.id = r.name "
            "JOIN word o ON o.id = r.owner LEFT JOIN symbol s ON s.id = r.symbol",
            "note": "SELECT f.path, n.line, n.text FROM note n JOIN file f ON f.id = n.file",
            "document": "SELECT name, content FROM document",
        }
        return {name: sorted(db.execute(query), key=repr) for name, query in queries.items()}


def build_(tree: Path, path: Path, **options: object) -> BuildReport:
    return build_index(tree, path, PIN.name, **{"processes": 1, **options})  # type: ignore[arg-type]


def test_a_first_build_reads_everything_and_a_second_nothing(tree: Path, tmp_path: Path) -> None:
    path = tmp_path / "w" / "index.sqlite"
    first = build_(tree, path)
    assert first.cold
    assert first.read == first.files == len(FILES)
    assert first.problems == 0
    again = build_(tree, path)
    assert (again.cold, again.read, again.removed) == (False, 0, 0)
    assert (again.files, again.symbols) == (first.files, first.symbols)
    assert [p.name for p in path.parent.iterdir()] == ["index.sqlite"]


def test_only_changed_files_are_read_again(
    tree: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "index.sqlite"
    build_(tree, path)
    (tree / "vllm" / "logger.py").write_text("def other():\n    pass\n")
    (tree / "vllm" / "new.py").write_text("from vllm.logger import other\n")
    (tree / "docs" / "index.md").unlink()
    read: list[str] = []
    real = workers.read_batch
    monkeypatch.setattr(workers, "read_batch", lambda *a: read.extend(a[1]) or real(*a))
    assert count_changes(tree, path, PIN.name) == 3
    report = build_(tree, path)
    assert (report.read, report.removed) == (2, 1)
    assert sorted(read) == ["vllm/logger.py", "vllm/new.py"]
    with Index.open_at(path, Tree(tree, PIN)) as index:
        assert [s.qualname for s in index.symbols_in("vllm/logger.py")] == ["other"]
        assert [i.path for i in index.importers("vllm/logger.py")] == [
            "vllm/model_executor/layer.py",
            "vllm/new.py",
        ]
        assert not index.has_path("docs/index.md")
    assert count_changes(tree, path, PIN.name) == 0


def test_a_change_of_the_same_size_is_seen_by_its_time(tree: Path, tmp_path: Path) -> None:
    path, file = tmp_path / "index.sqlite", tree / "vllm" / "logger.py"
    build_(tree, path)
    stat = file.stat()
    file.write_text(file.read_text().replace("init_logger", "make_logger"))
    os.utime(file, ns=(stat.st_atime_ns, stat.st_mtime_ns + 1))
    assert build_(tree, path).read == 1


def test_rules_are_read_again_when_they_change(tree: Path, tmp_path: Path) -> None:
    path = tmp_path / "index.sqlite"
    build_(tree, path)
    (tree / ".github" / "CODEOWNERS").write_text("* @new\n")
    build_(tree, path)
    with Index.open_at(path, Tree(tree, PIN)) as index:
        assert index.owners_of("vllm/v1/scheduler.py") == ["@new"]


EDITS = {
    "vllm/v1/core/block_pool.py": [
        CODE["vllm/v1/core/block_pool.py"],
        "class BlockPool:\n    def other(self): pass\n",
        "def broken(:\n",
        None,
    ],
    "vllm/extra.py": [
        "from vllm.v1.core import BlockPool\nBlockPool(1).other()\n",
        "x = 1\n",
        None,
    ],
    "vllm/v1/core/__init__.py": [CODE["vllm/v1/core/__init__.py"], "", None],
    ".github/CODEOWNERS": ["* @a\n", "* @b\n", None],
    ".buildkite/test_areas/core.yaml": ["group: [\n", "steps: []\n", None],
}


class Edits(RuleBasedStateMachine):
    """Any series of edits, each followed by an update, ends where a fresh build ends."""

    folder: Path
    runs = 0

    @initialize()
    def start(self) -> None:
        Edits.runs += 1
        self.here = self.folder / str(Edits.runs)
        self.tree = write_tree(self.here / "tree")
        self.clock = 0
        build_(self.tree, self.here / "index.sqlite")

    @rule(edits=st.lists(st.sampled_from(sorted(EDITS)), min_size=1, max_size=3), data=st.data())
    def edit(self, edits: list[str], data: st.DataObject) -> None:
        for name in edits:
            text = data.draw(st.sampled_from(EDITS[name]))
            file = self.tree / name
            if text is None:
                file.unlink(missing_ok=True)
            else:
                file.write_text(text)
                self.clock += 1
                os.utime(file, ns=(self.clock, self.clock))
        build_(self.tree, self.here / "index.sqlite")

    def teardown(self) -> None:
        if hasattr(self, "here"):
            build_(self.tree, self.here / "fresh.sqlite")
            assert contents(self.here / "index.sqlite") == contents(self.here / "fresh.sqlite")
            shutil.rmtree(self.here)


def test_updates_end_where_a_fresh_build_ends(tmp_path: Path) -> None:
    from hypothesis.stateful import run_state_machine_as_test

    Edits.folder = tmp_path
    run_state_machine_as_test(
        Edits,
        settings=settings(
            max_examples=12,
            stateful_step_count=4,
            deadline=None,
            suppress_health_check=list(HealthCheck),
        ),
    )


def test_processes_make_no_difference(tree: Path, tmp_path: Path) -> None:
    build_(tree, tmp_path / "one.sqlite", processes=1)
    build_(tree, tmp_path / "two.sqlite", processes=2)
    assert contents(tmp_path / "one.sqlite") == contents(tmp_path / "two.sqlite")


def test_an_interruption_leaves_the_old_index(
    tree: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "index.sqlite"
    build_(tree, path)
    before = contents(path)
    (tree / "vllm" / "logger.py").write_text("changed = True\n")

    def breaks(_self: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(build._Writer, "write_edges", breaks)
        for force in (False, True):
            with pytest.raises(KeyboardInterrupt):
                build_(tree, path, force=force)
            assert contents(path) == before
    assert [p.name for p in tmp_path.iterdir() if "sqlite" in p.name] == ["index.sqlite"]
    assert build_(tree, path).read == 1


def damage_truncate(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:5000])


def damage_garbage(path: Path) -> None:
    path.write_bytes(b"no database at all" * 100)


def damage_empty(path: Path) -> None:
    path.write_bytes(b"")


def damage_half_written(path: Path) -> None:
    path.unlink()
    with sqlite3.connect(path) as db:
        db.executescript("CREATE TABLE meta (key TEXT, value TEXT)")


def damage_version(path: Path) -> None:
    with sqlite3.connect(path) as db:
        db.execute("PRAGMA user_version = 999")


@pytest.mark.parametrize(
    "damage",
    [damage_truncate, damage_garbage, damage_empty, damage_half_written, damage_version],
)
def test_a_damaged_index_is_refused_with_one_line_and_built_anew(
    tree: Path, tmp_path: Path, damage: Callable[[Path], None]
) -> None:
    path = tmp_path / "index.sqlite"
    build_(tree, path)
    damage(path)

    def ask() -> None:
        with Index.open_at(path, Tree(tree, PIN)) as index:
            index.find_symbols("BlockPool")
            list(index.todo_notes())

    with pytest.raises(UpstreamError, match="run `trackrecord upstream index") as caught:
        ask()
    assert "\n" not in str(caught.value)
    assert build_(tree, path).cold
    ask()


def test_an_index_of_another_pin_is_built_anew(tree: Path, tmp_path: Path) -> None:
    path = tmp_path / "index.sqlite"
    build_index(tree, path, "another", processes=1)
    with pytest.raises(UpstreamError, match="not of made"):
        count_changes(tree, path, PIN.name)
    assert build_(tree, path).cold


def test_no_tree_and_no_index_are_said_so(tree: Path, tmp_path: Path) -> None:
    with pytest.raises(UpstreamError, match="cannot read the tree"):
        build_(tmp_path / "nothing", tmp_path / "index.sqlite")
    with pytest.raises(UpstreamError, match="there is no index"):
        count_changes(tree, tmp_path / "index.sqlite", PIN.name)
    (tmp_path / "file").write_text("")
    with pytest.raises(UpstreamError, match="cannot write the index"):
        build_(tree, tmp_path / "file" / "index.sqlite")


def test_bad_files_cost_only_themselves_and_are_named(tree: Path, tmp_path: Path) -> None:
    (tree / "vllm" / "broken.py").write_text("def f(:\n")
    (tree / "vllm" / "latin.py").write_bytes(b"x = '\xe9'\n")
    (tree / "vllm" / "huge.py").write_bytes(b"#" * 5_000_000)
    (tree / ".buildkite" / "test_areas" / "bad.yaml").write_text("steps: [\n")
    (tree / ".github" / "mergify.yml").write_text("a: *undefined\n")
    (tree / "vllm" / "loop.py").symlink_to(tree / "vllm" / "loop.py")
    with index_of(tree, tmp_path / "index.sqlite") as index:
        problems = dict(index.unreadable())
        assert sorted(problems) == [
            ".buildkite/test_areas/bad.yaml",
            ".github/mergify.yml",
            "vllm/broken.py",
            "vllm/huge.py",
            "vllm/latin.py",
        ]
        assert all(problem and "\n" not in problem for problem in problems.values())
        assert index.steps
        assert index.owners_of("vllm/v1/scheduler.py") == ["@core", "@second"]
        assert index.labels_for(["docs/x.md"]) == []
        assert index.find_symbols("BlockPool")


def test_a_name_that_is_no_text_costs_only_its_file(tree: Path, tmp_path: Path) -> None:
    path = tmp_path / "index.sqlite"
    with index_of(tree, path) as index:
        before = index.counts()["file"]
    odd = Path(os.fsdecode(os.fsencode(tree / "vllm") + b"/\xff.py"))
    odd.write_text("x = 1\n")
    folder = Path(os.fsdecode(os.fsencode(tree / "tests") + b"/\xfe"))
    folder.mkdir()
    (folder / "test_x.py").write_text("")
    assert count_changes(tree, path, PIN.name) == 2
    with index_of(tree, path) as index:
        assert index.counts()["file"] == before
        problem = "its name is not UTF-8"
        assert index.unreadable() == [("tests/\\xfe", problem), ("vllm/\\xff.py", problem)]
    assert count_changes(tree, path, PIN.name) == 0
    odd.unlink()
    shutil.rmtree(folder)
    with index_of(tree, path) as index:
        assert index.unreadable() == []


def test_a_question_that_is_no_text_finds_nothing(tree: Path, tmp_path: Path) -> None:
    with index_of(tree, tmp_path / "index.sqlite") as index:
        for question in ("\udcff", "vllm/\udcff.py", "BlockPool.\udcff", "\udcff.py:3"):
            with pytest.raises(UpstreamError, match="not in this tree"):
                where_is(index, question)
