"""What a branch changes: busywork, tests, documents, size, purpose, hooks, expectations."""

from __future__ import annotations

import pytest
from upstream_shaped import (
    BODY,
    FILES,
    HEADER,
    TRAILERS,
    Clone,
    good_change,
)

# What the branch changes.


def change(clone: Clone, path: str, old: str, new: str, title: str = "[Core] Change") -> None:
    clone.replace(path, old, new)
    clone.commit(f"{title}\n\n{TRAILERS}")


@pytest.mark.parametrize(
    ("path", "old", "new", "kind"),
    [
        ("docs/usage.md", "bloks", "blocks", "spelling"),
        ("vllm/core/pool.py", "the least recently", "the leest recently", "spelling"),
        ("vllm/core/pool.py", "cannot take", "canot take", "spelling"),
        (
            "vllm/core/pool.py",
            "self.free = list(range(size))",
            "self.free=list( range(size) )",
            "layout",
        ),
        ("vllm/core/arguments.py", "import argparse\n", "import argparse\n\n", "layout"),
    ],
)
def test_a_tiny_mechanical_edit_is_busywork(clone, preflight, path, old, new, kind):
    change(clone, path, old, new)
    (finding,) = preflight().of("busywork")
    assert finding["level"] == "error"
    assert kind in finding["message"]
    assert finding["path"] == path


def test_one_mutable_default_is_busywork_in_either_way_of_writing_it(clone, preflight):
    clone.git("checkout", "-q", "main")
    clone.write("vllm/core/a.py", HEADER + "def f(x, y=[]):\n    return y + [x]\n")
    clone.commit(f"Add\n\n{TRAILERS}")
    clone.git("checkout", "-q", "-B", "fix")
    fixed = "def f(x, y=None):\n    if y is None:\n        y = []\n    return y + [x]\n"
    clone.write("vllm/core/a.py", HEADER + fixed)
    clone.commit(f"[Core] Default\n\n{TRAILERS}")
    assert "mutable default" in preflight().message("busywork")
    clone.write("vllm/core/a.py", HEADER + fixed.replace("[x]", "[x, x]"))
    clone.commit(f"[Core] Twice\n\n{TRAILERS}")
    assert not preflight("--title", "[Core] x").of("busywork")


@pytest.mark.parametrize(
    ("path", "old", "new"),
    [
        ("vllm/core/pool.py", "count > len", "count >= len"),
        ("vllm/core/arguments.py", "default=16", "default=32"),
        ("vllm/core/arguments.py", '"--block-size"', '"--block-sizes"'),
        ("docs/usage.md", "The pool hands out", "The pool never hands out"),
        ("vllm/core/pool.py", "self.free[count:]", "self.free[count :][:]"),
    ],
)
def test_a_small_change_of_meaning_is_not_busywork(clone, preflight, path, old, new):
    change(clone, path, old, new)
    assert not preflight().of("busywork")


def test_a_mechanical_edit_beside_substantive_work_is_only_pointed_out(clone, preflight):
    clone.replace("vllm/core/arguments.py", "import argparse\n", "import argparse\n\n\n")
    good_change(clone)
    found = preflight()
    assert not found.of("busywork")
    assert any("layout" in finding["message"] for finding in found.of("concise"))


def test_code_asks_for_tests_and_documents_do_not(clone, preflight):
    change(clone, "vllm/core/pool.py", "return taken", "return list(taken)")
    (finding,) = preflight().of("tests")
    lines = (clone.root / "vllm/core/pool.py").read_text().splitlines()
    assert finding["path"] == "vllm/core/pool.py"
    assert lines[finding["line"] - 1].endswith("return list(taken)")
    clone.git("reset", "-q", "--hard", "main")
    change(clone, "docs/usage.md", "# Usage", "# How it is used by people\n\nSlowly.")
    assert not preflight().of("tests")


def test_a_new_flag_setting_or_variable_asks_for_documents(clone, preflight):
    flag = '    parser.add_argument("--swap-space", type=int)\n'
    old = '    parser.add_argument("--old-switch"'
    change(clone, "vllm/core/arguments.py", old, flag + old)
    assert "flag --swap-space" in preflight().message("docs")
    setting = '    swap_space: int = 4\n    """GiB."""\n'
    clone.write("vllm/config/cache.py", FILES["vllm/config/cache.py"] + setting)
    clone.commit(f"[Core] Setting\n\n{TRAILERS}")
    messages = " ".join(f["message"] for f in preflight("--title", "[Core] x").of("docs"))
    assert "setting CacheConfig.swap_space" in messages
    clone.write("docs/swap.md", "# Swap\n\nThere is some.\n")
    clone.commit(f"[Doc] Swap\n\n{TRAILERS}")
    assert not preflight("--title", "[Core] x").of("docs")


def test_a_flag_that_goes_has_to_be_deprecated_first(clone, preflight):
    line = '    parser.add_argument("--old-switch", action="store_true")\n'
    change(clone, "vllm/core/arguments.py", line, "")
    assert "flag --old-switch removed" in preflight().message("deprecation")


def test_a_flag_that_moves_is_neither_new_nor_gone(clone, preflight):
    line = '    parser.add_argument("--old-switch", action="store_true")\n'
    clone.replace("vllm/core/arguments.py", line, "")
    clone.write("vllm/core/more.py", HEADER + f"def more(parser):\n{line}")
    clone.commit(f"[Core] Move\n\n{TRAILERS}")
    found = preflight()
    assert not found.of("deprecation")
    assert not found.of("docs")


def test_size_counts_what_the_guide_counts(clone, preflight):
    lines = "".join(f"x{i} = {i}\n" for i in range(60))
    clone.write("tests/core/test_long.py", HEADER + lines)
    clone.write("csrc/long.cu", lines)
    clone.commit(f"[Core] Long tests\n\n{TRAILERS}")
    assert not preflight().of("size")
    clone.write("vllm/core/long.py", HEADER + lines)
    clone.commit(f"[Core] Long\n\n{TRAILERS}")
    found = preflight("--title", "[Core] x")
    assert "62 lines change" in found.message("size")
    assert "more than 40" in found.message("size")
    body = BODY.replace("Fixes #7", "See the RFC #30. Fixes #7")
    assert not preflight("--title", "[Core] x", body=body).of("size")


def test_files_that_have_nothing_to_do_with_each_other_are_pointed_out(clone, preflight):
    good_change(clone)
    clone.write("vllm/models/other/thing.py", "ANSWER = 42\n")
    clone.commit(f"[Core] Other\n\n{TRAILERS}")
    (finding,) = preflight("--title", "[Core] x").of("concise")
    assert "vllm/models/other/thing.py" in finding["message"]
    assert finding["level"] == "warning"


# Local hooks.


@pytest.mark.parametrize(
    ("path", "text", "rule", "line"),
    [
        ("vllm/core/a.py", "x = 1\n", "hook-spdx", 1),
        ("vllm/core/a.py", HEADER + "import pickle\n", "hook-forbidden-imports", 3),
        ("vllm/core/a.py", HEADER + "def f():\n    import re\n", "hook-forbidden-imports", 4),
        ("vllm/core/a.py", HEADER + "torch.cuda.synchronize()\n", "hook-torch-cuda", 3),
        ("vllm/core/a.py", HEADER + "with a() and b():\n    pass\n", "hook-boolean-context", 3),
        ("vllm/__init__.py", HEADER + "from vllm.core import pool\n", "hook-lazy-imports", 3),
        ("vllm/config/a.py", HEADER + "@config\nclass A:\n    x: int\n", "hook-config-fields", 5),
        ("vllm/core/a b.py", HEADER, "hook-filenames", 1),
    ],
)
def test_local_hooks_are_read_and_not_run(clone, preflight, path, text, rule, line):
    clone.write(path, text)
    clone.commit(f"[Core] Change\n\n{TRAILERS}")
    finding = preflight().of(rule)[0]
    assert (finding["path"], finding["line"], finding["level"]) == (path, line, "error")
    assert finding["sources"][0]["path"] == ".pre-commit-config.yaml"


@pytest.mark.parametrize(
    ("path", "text"),
    [
        ("vllm/core/trusted.py", HEADER + "import pickle\n"),
        ("vllm/core/a.py", HEADER + "import regex as re\n"),
        ("vllm/platforms/a.py", HEADER + "torch.cuda.synchronize()\n"),
        ("vllm/third_party/a.py", "import pickle\n"),
        ("vllm/core/a.py", HEADER + "with a(), b():\n    pass\n"),
        (
            "vllm/__init__.py",
            HEADER + "import typing\nif typing.TYPE_CHECKING:\n    import vllm.x\n",
        ),
        ("vllm/core/empty.py", ""),
    ],
)
def test_hooks_make_the_exceptions_that_their_tables_make(clone, preflight, path, text):
    clone.write(path, text)
    clone.commit(f"[Core] Change\n\n{TRAILERS}")
    assert not {rule for rule in preflight().blocking if rule.startswith("hook")}


def test_hooks_that_nothing_stands_in_for_are_named(clone, preflight):
    good_change(clone)
    finding = preflight().of("hooks")[0]
    assert finding["level"] == "warning"
    assert finding["message"].endswith("ruff-check")


# Expectations.


def test_ci_steps_owners_and_labels_are_those_of_the_clone(clone, preflight):
    good_change(clone)
    expected = preflight().report["expected"]
    assert [(s["label"], s["devices"], s["line"]) for s in expected["steps"]] == [
        ("Core on CPU", "cpu", 3)
    ]
    assert [owner["owner"] for owner in expected["owners"]] == ["@alan", "@grace"]
    assert [label["label"] for label in expected["labels"]] == ["core"]
