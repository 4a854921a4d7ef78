"""Asking the index: definitions, uses with their certainty, imports, tests and notes."""

from __future__ import annotations

from pathlib import Path

import pytest
from made_upstream import index_of, write_tree

from trackrecord.upstream.index.query import Index
from trackrecord.upstream.index.records import Symbol


def found(index: Index, query: str) -> Symbol:
    return index.find_symbols(query)[0]


def uses(index: Index, query: str) -> dict[str, str]:
    """Who uses a definition, and how surely."""
    return {f"{u.path}:{u.user_name}": u.certainty for u in index.callers(found(index, query))}


def index_from(tmp_path: Path, files: dict[str, str]) -> Index:
    return index_of(write_tree(tmp_path / "tree", files), tmp_path / "index.sqlite")


@pytest.mark.parametrize(
    "query",
    [
        "get_new_blocks",
        "BlockPool.get_new_blocks",
        "block_pool.BlockPool.get_new_blocks",
        "vllm.v1.core.block_pool.BlockPool.get_new_blocks",
        "vllm.v1.core.BlockPool.get_new_blocks",
    ],
)
def test_a_definition_is_found_by_every_name_that_it_has(index: Index, query: str) -> None:
    symbol = found(index, query)
    assert (symbol.path, symbol.line) == ("vllm/v1/core/block_pool.py", 10)
    assert symbol.qualname == "BlockPool.get_new_blocks"
    assert symbol.signature == "def get_new_blocks(self, count: int) -> list[int]"
    assert symbol.doc == "Take blocks out of the pool."


def test_a_lazy_export_names_what_it_stands_for(index: Index) -> None:
    assert found(index, "vllm.Scheduler").path == "vllm/v1/scheduler.py"


def test_the_project_comes_before_its_benchmarks_and_tests(tmp_path: Path) -> None:
    same = "def same():\n    pass\n"
    files = {"a/x.py": same, "tests/x.py": same, "vllm/deep/er/x.py": same}
    files["vllm/y.py"] = "def outer():\n    def same():\n        pass\n"
    with index_from(tmp_path, files) as index:
        assert [s.path for s in index.find_symbols("same")] == [
            "vllm/deep/er/x.py",
            "vllm/y.py",
            "a/x.py",
            "tests/x.py",
        ]


def test_unknown_names_have_suggestions(index: Index) -> None:
    assert index.find_symbols("get_new_block") == []
    assert index.find_symbols("Other.get_new_blocks") == []
    assert "get_new_blocks" in index.similar_names("BlockPool.get_new_block")
    assert index.similar_names("%_") == []


def test_the_definition_at_a_line_is_the_innermost_one(index: Index) -> None:
    def at(path: str, line: int) -> str:
        symbol = index.symbol_at(path, line)
        return symbol.qualname if symbol else ""

    assert at("vllm/v1/core/block_pool.py", 1) == ""
    assert at("vllm/v1/core/block_pool.py", 4) == "BlockPool"
    assert at("vllm/v1/core/block_pool.py", 20) == "BlockPool.get_new_blocks"
    assert at("vllm/model_executor/layer.py", 6) == "BACKENDS"
    assert at("no/such.py", 1) == ""


def test_uses_are_as_sure_as_the_files_say(index: Index) -> None:
    assert uses(index, "BlockPool.get_new_blocks") == {
        "vllm/v1/core/manager.py:KVManager.allocate": "sure",
        "benchmarks/bench_pool.py:main": "sure",
        "tests/v1/core/test_block_pool.py:test_takes_blocks": "sure",
    }
    assert uses(index, "KVManager.allocate") == {
        "vllm/v1/core/manager.py:SpecManager.allocate_draft": "likely",
        "vllm/v1/scheduler.py:Scheduler.schedule": "likely",
    }
    callers = index.callers(found(index, "BlockPool.get_new_blocks"))
    assert (callers[0].line, callers[0].is_test) == (9, False)
    assert callers[-1].is_test


def test_a_name_alone_ties_nothing_unless_asked_for(tmp_path: Path) -> None:
    files = {
        "vllm/a.py": "class A:\n    def close(self): pass\n",
        "vllm/b.py": "class B:\n    def close(self): pass\n",
        "vllm/c.py": "def f(thing):\n    thing.close()\n\ndef g(x, b):\n    b.close()\n",
    }
    with index_from(tmp_path, files) as index:
        symbol = found(index, "A.close")
        assert index.callers(symbol) == []
        assert {u.user_name for u in index.callers(symbol, least="possible")} == {"f", "g"}
        assert index.count_uses("close") == 2


def test_methods_of_builtins_are_nobodys_unless_the_file_says_so(tmp_path: Path) -> None:
    files = {
        "vllm/a.py": "class A:\n    def append(self, x): pass\n",
        "vllm/c.py": "def f(rows):\n    rows.append(1)\n",
    }
    with index_from(tmp_path, files) as index:
        assert index.callers(found(index, "A.append")) == []


def test_a_use_through_a_subclass_or_a_base_is_a_good_guess(tmp_path: Path) -> None:
    files = {
        "vllm/base.py": "class Base:\n    def run(self): pass\n\n    def go(self): self.run()\n",
        "vllm/child.py": "from vllm.base import Base\nclass Child(Base):\n  def run(self): pass\n",
        "vllm/user.py": "from vllm.child import Child\ndef f(c: Child):\n    c.run()\n",
        "vllm/other.py": "class Other:\n    def run(self): pass\n",
    }
    with index_from(tmp_path, files) as index:
        assert uses(index, "Child.run") == {
            "vllm/base.py:Base.go": "likely",
            "vllm/user.py:f": "sure",
        }
        assert uses(index, "Base.run") == {
            "vllm/base.py:Base.go": "sure",
            "vllm/user.py:f": "likely",
        }
        assert [s.qualname for s in index.subclasses(found(index, "Base"))] == ["Child"]


def test_forward_is_used_by_whoever_uses_the_class(index: Index) -> None:
    assert "vllm/model_executor/model.py:Model.__init__" in uses(index, "Layer.forward")


def test_who_imports_a_file_and_how(index: Index) -> None:
    importers = {i.path: (i.kind, i.is_test) for i in index.importers("vllm/v1/core/block_pool.py")}
    assert importers == {
        "vllm/v1/core/__init__.py": ("module", False),
        "vllm/v1/scheduler.py": ("function", False),
        "benchmarks/bench_pool.py": ("module", False),
        "tests/v1/core/test_block_pool.py": ("module", True),
    }
    manager = {i.path: i.kind for i in index.importers("vllm/v1/core/manager.py")}
    assert manager["tests/v1/test_engine.py"] == "string"


def test_importers_at_each_distance(index: Index) -> None:
    levels = index.importers_by_distance(["vllm/v1/core/block_pool.py"])
    assert "vllm/v1/core/manager.py" in levels[1]
    assert len({path for level in levels for path in level}) == sum(map(len, levels))
    assert index.importers_by_distance([]) == []


def test_paths(index: Index) -> None:
    assert index.has_path("docs/index.md")
    assert not index.has_path("docs")
    assert index.has_folder("docs/")
    assert not index.has_folder("doc")
    assert index.paths_like("core/block_pool.py") == ["vllm/v1/core/block_pool.py"]
    assert index.paths_like("pool.py") == []
    assert index.paths_below("tests/v1/core") == [
        "tests/v1/core/__init__.py",
        "tests/v1/core/helpers.py",
        "tests/v1/core/test_block_pool.py",
        "tests/v1/core/test_scheduler.py",
    ]


def test_identifiers(index: Index) -> None:
    assert index.has_identifier("num_draft_tokens")
    assert index.has_identifier("lora_config")
    assert not index.has_identifier("no_such_thing")
    assert not index.has_identifier("not an identifier")


def test_notes_know_where_they_stand(index: Index) -> None:
    [note] = index.todo_notes()
    assert note.text == "TODO: evict when the queue is longer than the pool."
    assert (note.path, note.line) == ("vllm/v1/core/block_pool.py", 18)
    assert note.symbol == found(index, "get_new_blocks")


def test_names_that_a_body_uses(index: Index) -> None:
    used = index.names_used(found(index, "Scheduler.schedule"))
    assert {"allocate", "kv_manager", "lora_config"} <= used


def test_counts(index: Index) -> None:
    counts = index.counts()
    assert counts["note"] == 1
    assert counts["file"] > 20


# Tests for a change.


def near(index: Index, path: str, name: str = "") -> dict[str, tuple[bool | None, str]]:
    symbol = found(index, name) if name else None
    return {f"{t.path}::{t.name}": (t.needs_gpu, t.reason) for t in index.tests_near(path, symbol)}


def test_tests_of_a_definition_come_before_those_of_its_file(index: Index) -> None:
    refs = index.tests_near("vllm/v1/core/block_pool.py", found(index, "get_new_blocks"))
    assert [(r.path, r.name, r.distance) for r in refs] == [
        ("tests/v1/core/test_block_pool.py", "test_takes_blocks", 1),
        ("tests/v1/core/test_block_pool.py", "", 3),
    ]
    assert refs[0].relation == "uses BlockPool.get_new_blocks (line 9)"


def test_a_test_that_uses_a_helper_of_tests_is_found_through_it(index: Index) -> None:
    refs = {r.path: r for r in index.tests_near("vllm/v1/scheduler.py")}
    assert refs["tests/v1/core/helpers.py"].reason == "a helper of tests"
    assert "helpers.py" in refs["tests/v1/core/test_scheduler.py"].relation


def test_a_test_in_a_class_is_named_by_both(index: Index) -> None:
    names = near(index, "vllm/v1/core/block_pool.py", "free_blocks")
    assert "tests/v1/core/test_block_pool.py::TestFree.test_gives_back" in names


def test_a_changed_test_file_is_to_be_run(index: Index) -> None:
    assert list(near(index, "tests/v1/test_engine.py")) == ["tests/v1/test_engine.py::"]


def test_what_tells_whether_a_test_needs_an_accelerator(index: Index, tmp_path: Path) -> None:
    assert near(index, "vllm/v1/core/block_pool.py")["tests/v1/core/test_block_pool.py::"] == (
        False,
        "marked cpu_test",
    )
    needs, reason = near(index, "vllm/v1/core/manager.py")["tests/v1/test_engine.py::"]
    assert needs is True
    assert "cuda" in reason
    needs, reason = near(index, "vllm/v1/scheduler.py")["tests/v1/core/test_scheduler.py::"]
    assert (needs, reason) == (None, "nothing tells")
    files = {
        "vllm/a.py": "def f(): pass\ndef g(): pass\ndef h(): pass\n",
        "tests/test_a.py": "from vllm.a import f, g, h\n"
        "@multi_gpu_test(num_gpus=2)\ndef test_f(): f()\n"
        "def test_g():\n    g()\n    x.cuda()\n"
        "def test_h():\n    h()\n    y(DEVICE_TYPE)\n",
    }
    with index_from(tmp_path, files) as other:
        assert near(other, "vllm/a.py", "f")["tests/test_a.py::test_f"] == (
            True,
            "marked multi_gpu_test",
        )
        assert near(other, "vllm/a.py", "g")["tests/test_a.py::test_g"][0] is True
        assert near(other, "vllm/a.py", "h")["tests/test_a.py::test_h"] == (
            None,
            "takes the platform's device (line 9)",
        )


def test_a_step_on_a_cpu_tells(tmp_path: Path) -> None:
    files = {
        "vllm/a.py": "def f(): pass\n",
        "tests/test_a.py": "from vllm.a import f\ndef test_f(): f()\n",
        ".buildkite/test_areas/a.yaml": "group: A\nsteps:\n- label: On CPU\n  device: cpu-small\n"
        "  commands: ['pytest test_a.py']\n",
    }
    with index_from(tmp_path, files) as index:
        assert near(index, "vllm/a.py")["tests/test_a.py::"] == (
            False,
            "CI runs it on cpu-small: On CPU",
        )


# What the tree says about itself.


def test_rules_through_the_index(index: Index) -> None:
    assert index.owners_of("vllm/v1/core/block_pool.py") == ["@pool"]
    assert index.owners_of("docs/index.md") == []
    assert index.owners_path == ".github/CODEOWNERS"
    assert index.labels_for(["vllm/v1/scheduler.py"]) == ["v1"]
    assert [s.label for s in index.ci_steps_for(["vllm/v1/scheduler.py"])][:2] == [
        "Core",
        "AMD: Core (mi300_1)",
    ]


def test_steps_that_run_the_tests_come_first(index: Index) -> None:
    path = "vllm/v1/core/block_pool.py"
    steps = index.ci_steps_for([path], index.tests_near(path))
    assert [(s.label, s.tests) for s in steps if s.runs == "runs"] == [
        ("Core (CPU)", 1),
        ("Core", 1),
        ("AMD: Core (mi300_1)", 1),
        ("Build", 0),
    ]


def test_guides_forms_template_and_hooks(index: Index) -> None:
    [section] = index.policy("duplicate")
    assert (section.path, section.line, section.heading) == ("AGENTS.md", 3, "Duplicate work")
    assert "# not a heading" in section.text
    assert [s.heading for s in index.policy("contributing")] == ["Contributing", "Sign-off"]
    [form] = index.issue_forms()
    assert (form.name, form.title, form.labels) == ("Bug", "[Bug]: ", ("bug",))
    [entry] = form.fields
    assert (entry.id, entry.kind, entry.label) == ("env", "textarea", "Your environment")
    assert entry.required
    template = index.pr_template()
    assert template is not None
    assert [s.heading for s in template.sections] == ["Purpose", "Test Plan", "Test Result"]
    [hook] = index.hooks()
    assert (hook.id, hook.entry, hook.types) == ("spdx", "python tools/spdx.py", ("python",))
    assert (hook.line, hook.is_local) == (4, True)


def test_a_tree_without_any_rules(tmp_path: Path) -> None:
    with index_from(tmp_path, {"vllm/a.py": "x = 1\n"}) as index:
        assert index.ci_steps_for(["vllm/a.py"]) == []
        assert index.owners_of("vllm/a.py") == []
        assert index.labels_for(["vllm/a.py"]) == []
        assert index.policy() == []
        assert index.issue_forms() == []
        assert index.pr_template() is None
        assert index.hooks() == []
