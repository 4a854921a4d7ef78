"""On the pinned release itself: every rule is found where it is written."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from trackrecord.pr.preflight.content import _LIMIT
from trackrecord.pr.preflight.description import title_prefixes
from trackrecord.pr.preflight.hooks import CHECKS, literals
from trackrecord.pr.preflight.rulebook import Rulebook
from trackrecord.pr.review import ETIQUETTE
from trackrecord.pr.rfc import rfc_form
from trackrecord.pr.trust import CITES, _ladder, count
from trackrecord.upstream.pin import Tree, find_pin
from trackrecord.workspace import Workspace

pytestmark = pytest.mark.upstream


@pytest.fixture(scope="module")
def tree() -> Tree:
    return Tree.open(find_pin(Workspace.open("no-workspace")))


@pytest.fixture(scope="module")
def book(tree: Tree) -> Rulebook:
    return Rulebook.of_tree(tree)


def test_every_rule_is_written_somewhere(book):
    assert book.unwritten == []


def test_every_line_cited_elsewhere_exists(book):
    cites = [*ETIQUETTE, *(cite for cites in CITES.values() for cite in cites)]
    assert [cite for cite in cites if book.source(cite) is None] == []


def test_prefixes_and_limits_are_read_from_the_guide(book):
    prefixes = title_prefixes(book)
    assert len(prefixes) == 9
    assert "[Bugfix]" in prefixes
    assert "[Hardware][Vendor]" in prefixes
    limit = _LIMIT.search(book.rules["size"].sources[0].quote)
    assert limit is not None
    assert (limit[1], limit[2]) == ("500", "kernel/data/config/test")


def test_the_tables_of_the_hooks_are_understood(book):
    scripts = {script for _, script, _ in CHECKS.values() if script}
    found = {name: literals(book.text(f"tools/pre_commit/{name}") or "") for name in scripts}
    imports = found["check_forbidden_imports.py"]["CHECK_IMPORTS"]
    assert {"pickle/cloudpickle", "base64", "re", "triton"} <= set(imports)
    assert all(entry["pattern"] and entry["tip"] for entry in imports.values())
    assert len(found["check_torch_cuda.py"]["_TORCH_CUDA_PATTERNS"]) >= 4
    assert found["check_init_lazy_imports.py"]["INIT_PATH"] == "vllm/__init__.py"


def test_the_form_for_an_rfc_is_understood(book):
    form = rfc_form(book)
    assert [field.label for field in form.fields if field.required][:2] == [
        *("Motivation.", "Proposed Change."),
    ]


def test_upstreams_own_files_break_none_of_its_hooks(tree):
    """What the checks say of files that upstream's CI accepts, found by running them on all."""
    from trackrecord.pr.preflight.hooks import _matches

    book = Rulebook.of_tree(tree)
    source = book.text("tools/pre_commit/check_forbidden_imports.py") or ""
    table = literals(source)["CHECK_IMPORTS"]
    wrong = []
    for path in sorted((tree.root / "vllm").rglob("*.py")):
        name = path.relative_to(tree.root).as_posix()
        if name.startswith("vllm/third_party/"):
            continue
        text = path.read_text(errors="replace")
        for entry in table.values():
            if name not in entry.get("allowed_files", ()):
                allowed = entry.get("allowed_pattern", "^$")
                wrong += [f"{name}:{n}" for n in _matches(entry["pattern"], text, allowed)]
    assert wrong == []


def test_the_ladder_gives_governances_figures(book, tmp_path):
    from trackrecord.issues.store import Store

    with Store.open(tmp_path / "issues.sqlite", "a/b", create=True) as store:
        figures = count(store, book, "WoosukKwon")
    needs = {need.what: need.need for need in _ladder(figures, book)[-1].needs}
    assert needs["merged pull requests"] == 30
    assert needs["other people's pull requests reviewed"] == 10
    assert figures.is_committer


def test_a_clone_of_the_real_tree_is_checked(tree, tmp_path, capsys):
    from upstream_shaped import Clone, run_command

    root = tmp_path / "clone"
    subprocess.run(["cp", "-r", str(tree.root), str(root)], check=True)
    clone = Clone(Path(root))
    clone.git("init", "-q", "-b", "main")
    for key, value in (("user.name", "Ada"), ("user.email", "ada@example.org")):
        clone.git("config", key, value)
    clone.git("add", "-A", "-f")
    clone.git("commit", "-q", "-m", "Upstream")
    clone.git("checkout", "-q", "-b", "fix")
    for number in range(10):
        with (root / "vllm/v1/core/block_pool.py").open("a") as file:
            file.write(f"\n\ndef extra_{number}() -> int:\n    return {number}\n")
        clone.commit(f"[Core] Step {number}\n\nSigned-off-by: Ada <ada@example.org>")
    words = (
        "--repo",
        root,
        "--workspace",
        tmp_path / "w",
        "--hooks",
        "never",
        "--title",
        "[Core] x",
    )
    assert run_command("preflight", *words) == 1
    out = capsys.readouterr().out
    assert "10 commits" in out
    assert "✗ tests: 1 source files change" in out
    assert "dco" not in out
    assert "@WoosukKwon" in out
