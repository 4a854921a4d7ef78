"""`trackrecord review`: the riskiest first, with reasons; `--diff`, a clone, or a stored number."""

from __future__ import annotations

import json
import shutil

import pytest
from upstream_shaped import HEADER, TRAILERS, good_change, run_command

from trackrecord.issues import records
from trackrecord.issues.importer import import_file
from trackrecord.issues.store import Store
from trackrecord.pr import invariants
from trackrecord.pr.preflight.rulebook import Rulebook
from trackrecord.pr.review import changes_from_names, prepare
from trackrecord.upstream.diffs import parse_diff
from trackrecord.upstream.index.build import build_index
from trackrecord.upstream.index.query import Index
from trackrecord.upstream.pin import MANIFEST, find_pin
from trackrecord.workspace import Workspace

USER = "from vllm.core.pool import Pool\n\n\ndef use():\n    return Pool(1).take(1)\n"
KEEPS_ORDER = invariants.Invariant(
    *("order", "blocks come in order", "they do not", "look at them"),
    (invariants.Keeper("vllm/core/pool.py", "Pool.take"),),
)


@pytest.fixture
def workspace(clone, tmp_path):
    """A workspace with the clone's `main` pinned and indexed."""
    clone.git("checkout", "-q", "main")
    for number in range(4):
        clone.write(f"vllm/core/user{number}.py", HEADER + USER)
    clone.commit(f"Users\n\n{TRAILERS}")
    clone.git("checkout", "-q", "-B", "fix")
    workspace = Workspace.open(tmp_path / "work")
    pin = find_pin(workspace)
    shutil.copytree(clone.root, pin.tree_path, ignore=shutil.ignore_patterns(".git"))
    (pin.tree_path / MANIFEST).write_text("{}")
    workspace.create()
    workspace.index_path(pin.name).parent.mkdir()
    build_index(pin.tree_path, workspace.index_path(pin.name), pin.name, processes=1)
    return workspace


@pytest.fixture
def review(workspace, capsys):
    def run(*words):
        code = run_command("review", *words, "--workspace", workspace.root, "--json")
        streams = capsys.readouterr()
        return code, json.loads(streams.out) if streams.out else streams.err

    return run


def test_what_much_depends_on_is_read_first(clone, workspace, review, tmp_path):
    clone.replace("vllm/core/pool.py", "return taken", "return list(taken)")
    clone.write("docs/usage.md", "# Usage\n\nMore words.\n")
    clone.replace("vllm/core/arguments.py", "default=16", "default=32")
    clone.commit(f"[Core] x\n\n{TRAILERS}")
    (tmp_path / "x.diff").write_text(clone.git("diff", "main", "fix") + "\n")
    code, found = review("--diff", tmp_path / "x.diff", "--title", "[Core] x")
    assert code == 0
    paths = [item["path"] for item in found["reading"]]
    assert paths == ["vllm/core/pool.py", "vllm/core/arguments.py", "docs/usage.md"]
    reasons = " ".join(reason for _, reason in found["reading"][0]["reasons"])
    assert "files import it" in reasons
    assert "no test changes" in reasons
    assert [owner["owner"] for owner in found["owners"]] == ["@alan", "@grace"]
    assert [step["label"] for step in found["steps"]] == ["Core on CPU"]


def test_tests_that_are_missing_are_named_with_those_that_are_near(clone, review):
    clone.replace("vllm/core/pool.py", "return taken", "return list(taken)")
    clone.commit(f"[Core] x\n\n{TRAILERS}")
    _, found = review("--repo", clone.root, "--base", "main")
    (missing,) = [m for m in found["missing_tests"] if m["path"] == "vllm/core/pool.py"]
    assert missing["near"] == ["tests/core/test_pool.py"]
    clone.git("reset", "-q", "--hard", "main")
    good_change(clone)
    _, found = review("--repo", clone.root)
    assert not [m for m in found["missing_tests"] if m["path"] == "vllm/core/pool.py"]


@pytest.fixture
def order_matters(monkeypatch):
    monkeypatch.setattr(invariants, "catalogue", lambda: (KEEPS_ORDER,))


def test_an_invariant_is_touched_where_its_definition_changes(clone, workspace, order_matters):
    def touched(old, new):
        clone.git("checkout", "-q", "-B", "fix", "main")
        clone.replace("vllm/core/pool.py", old, new)
        clone.commit(f"[Core] x\n\n{TRAILERS}")
        changes = parse_diff(clone.git("diff", "main", "fix") + "\n")
        with Index.open(workspace) as index:
            book = Rulebook.of_tree(index.tree)
            return [i["name"] for i in prepare(index, book, "", changes).invariants]

    assert touched("return taken", "return taken[::-1]") == ["order"]
    assert touched("list(range(size))", "list(range(size))[::-1]") == []


def test_where_only_names_are_known_a_whole_file_is_touched(workspace, order_matters):
    with Index.open(workspace) as index:
        book = Rulebook.of_tree(index.tree)
        changes = changes_from_names(["vllm/core/pool.py"])
        found = prepare(index, book, "", changes, names_only=True)
    assert [item["name"] for item in found.invariants] == ["order"]
    assert found.files[0].added is None


def test_reminders_are_quoted_from_the_tree(review, clone):
    good_change(clone)
    _, found = review("--repo", clone.root)
    assert found["etiquette"]
    for source in found["etiquette"]:
        lines = (clone.root / source["path"]).read_text().splitlines()
        assert lines[source["line"] - 1].strip() == source["quote"]


def test_a_stored_pull_request_by_its_number(workspace, review):
    repo = find_pin(workspace).repository
    pull = {"number": 5, "title": "Take \x1b[1m none", "state": "open", "user": {"login": "x"}}
    path = workspace.root / "threads.jsonl"
    lines = [
        {"type": "pull", "data": pull | {"files": [{"filename": "vllm/core/pool.py"}]}},
        {"type": "pull", "data": pull | {"number": 6}},
    ]
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    with Store.open(workspace.issues_db(repo), repo, create=True) as store:
        import_file(store, path)
    code, found = review("5")
    assert code == 0
    assert [item["path"] for item in found["reading"]] == ["vllm/core/pool.py"]
    assert "\x1b" not in found["title"]
    for number in ("6", "7", "9" * 30):
        code, error = review(number)
        assert (code, error.count("\n")) == (2, 1)


@pytest.mark.parametrize("text", ["", "no diff at all", "--- a/x\n+++ b/x\n@@ -1,9 +1,9 @@\n x\n"])
def test_what_is_no_diff_is_one_line(review, tmp_path, text):
    (tmp_path / "x.diff").write_text(text)
    code, error = review("--diff", tmp_path / "x.diff")
    assert (code, error.count("\n")) == (2, 1)


def test_no_filter_of_the_clone_runs(review, clone, tmp_path):
    mark = tmp_path / "ran"
    good_change(clone)
    clone.git("config", "filter.a=b.clean", f"touch {mark}; cat")
    clone.write(".git/info/attributes", "*.py filter=a=b\n")
    clone.write("vllm/core/pool.py", "# changed\n")
    code, found = review("--repo", clone.root, "--base", "main")
    assert code == 0
    assert "vllm/core/pool.py" in [item["path"] for item in found["reading"]]
    assert not mark.exists()


def test_a_damaged_store_is_one_line(workspace, review, clone, capsys):
    path = workspace.issues_db(find_pin(workspace).repository)
    with Store.open(path, find_pin(workspace).repository, create=True) as store:
        for number in range(1, 400):
            record = {"number": number, "title": "T", "body": "word " * 200}
            with store.transaction():
                store.put_thread(records.thread(record, is_pull=True))
        store.connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    content = bytearray(path.read_bytes())
    content[3 * 4096 :] = b"\xa5" * (len(content) - 3 * 4096)
    path.write_bytes(content)
    good_change(clone)
    place = ("--workspace", workspace.root)
    for words in (
        ("review", "300"),
        ("trust", "ada"),
        ("preflight", "--repo", clone.root, "--issue", "300", "--hooks", "never"),
    ):
        assert run_command(*words, *place) == 2
        error = capsys.readouterr().err
        assert error.count("\n") == 1
        assert "move it away and sync again" in error


def test_without_an_index_or_a_store_it_is_one_line(clone, tmp_path, capsys):
    good_change(clone)
    for words in (("--repo", clone.root), ("5",)):
        assert run_command("review", *words, "--workspace", tmp_path / "none") == 2
        assert capsys.readouterr().err.count("\n") == 1
