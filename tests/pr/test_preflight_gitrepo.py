"""Reading a clone: every changed line is accounted for, and odd names are no trouble."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from upstream_shaped import TRAILERS

from trackrecord.pr.gitrepo import GitError, Hunk, Repository, _hunks, _with_hunks
from trackrecord.pr.preflight.branch import cut_down, parse_python
from trackrecord.pr.preflight.busywork import only_spelling


def applied(old: list[str], hunks: tuple[Hunk, ...]) -> list[str]:
    """`old` with every hunk put in, as `patch` would."""
    lines, shift = list(old), 0
    for hunk in hunks:
        start = hunk.old_start - (1 if hunk.removed else 0) + shift
        assert lines[start : start + len(hunk.removed)] == list(hunk.removed)
        lines[start : start + len(hunk.removed)] = hunk.added
        shift += len(hunk.added) - len(hunk.removed)
    return lines


LINES = ("one", "-- a/x", "++ b/x", "@@ -1 +1 @@", "diff --git a/x b/x", "", "\\ no", "é", "two")


@pytest.mark.parametrize("seed", range(6))
def test_the_hunks_turn_the_old_file_into_the_new_one(clone, seed):
    from random import Random

    rng = Random(seed)
    texts = [[rng.choice(LINES) for _ in range(rng.randrange(1, 30))] for _ in range(6)]
    for number, (old, new) in enumerate(zip(texts[:3], texts[3:], strict=True)):
        clone.write(f"docs/f{number}.md", "\n".join(old) + "\n")
        texts[number + 3] = new
    base = clone.commit(f"Old\n\n{TRAILERS}")
    for number, new in enumerate(texts[3:]):
        clone.write(f"docs/f{number}.md", "\n".join(new) + "\n")
    head = clone.commit(f"New\n\n{TRAILERS}")
    for change in Repository.open(clone.root).changes(base, head):
        number = int(change.path[len("docs/f")])
        assert applied(texts[number], change.hunks) == texts[number + 3]


def test_every_kind_of_change_keeps_its_own_lines(clone):
    clone.write("docs/a b.md", "1\n2\n3\n4\n5\n6\n7\n8\n")
    clone.write("docs/kind.md", "text\n")
    clone.write("docs/gone.md", "gone\n")
    base = clone.commit("Base")
    clone.git("mv", "docs/a b.md", "docs/é\tñ.md")
    clone.replace("docs/é\tñ.md", "8\n", "nine\n")
    (clone.root / "docs/kind.md").unlink()
    (clone.root / "docs/kind.md").symlink_to("usage.md")
    (clone.root / "docs/gone.md").unlink()
    clone.write("docs/new.md", "new\n")
    clone.write("docs/x.bin", b"\0\1")
    head = clone.commit("Head")
    found = {c.path: c for c in Repository.open(clone.root).changes(base, head)}
    assert {path: c.status for path, c in found.items()} == {
        "docs/é\tñ.md": "R",
        "docs/kind.md": "T",
        "docs/gone.md": "D",
        "docs/new.md": "A",
        "docs/x.bin": "A",
    }
    renamed = found["docs/é\tñ.md"]
    assert renamed.old_path == "docs/a b.md"
    assert [(h.removed, h.added) for h in renamed.hunks] == [(("8",), ("nine",))]
    assert found["docs/kind.md"].new_blob == ""
    assert [h.added for h in found["docs/new.md"].hunks] == [("new",)]


def test_file_contents_come_back_as_they_are(clone):
    repository = Repository.open(clone.root)
    files = repository.files("HEAD")
    content = repository.read(files.values())
    for path, blob in files.items():
        assert content[blob] == (clone.root / path).read_bytes()


def test_a_worktree_is_gone_afterwards_whatever_happens(clone):
    repository = Repository.open(clone.root)
    seen = []

    def fail():
        with repository.worktree("main") as folder:
            seen.append((folder, (folder / "AGENTS.md").is_file()))
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fail()
    ((folder, was_there),) = seen
    assert was_there
    assert not folder.exists()
    assert len(clone.git("worktree", "list").splitlines()) == 1


def worktrees(clone):
    listed = clone.git("worktree", "list", "--porcelain").splitlines()
    return [line.removeprefix("worktree ") for line in listed if line.startswith("worktree ")]


def test_a_worktree_of_somebody_else_is_left_alone_even_where_it_cannot_be_seen(clone, tmp_path):
    stick = tmp_path / "stick"
    clone.git("worktree", "add", "-q", str(stick), "main")
    stick.rename(tmp_path / "unplugged")
    with Repository.open(clone.root).worktree("main"):
        pass
    assert worktrees(clone) == [str(clone.root), str(stick)]


@pytest.mark.parametrize("damage", ["git file", "folder"])
def test_a_worktree_is_gone_even_if_what_ran_there_damaged_it(clone, damage):
    with Repository.open(clone.root).worktree("main") as folder:
        if damage == "folder":
            shutil.rmtree(folder)
        else:
            (folder / ".git").unlink()
    assert worktrees(clone) == [str(clone.root)]
    assert not folder.parent.exists()


def test_the_worktree_of_a_program_that_was_killed_is_taken_away_by_the_next(clone):
    script = (
        "import sys, time; from pathlib import Path; "
        "from trackrecord.pr.gitrepo import Repository\n"
        "with Repository.open(Path(sys.argv[1])).worktree('main') as folder:\n"
        "    print(folder, flush=True); time.sleep(600)"
    )
    words = [sys.executable, "-c", script, str(clone.root)]
    with subprocess.Popen(words, stdout=subprocess.PIPE, text=True) as program:
        left = Path(program.stdout.readline().rstrip("\n"))
        with Repository.open(clone.root).worktree("main"):
            assert str(left) in worktrees(clone), "it is still in use"
        program.kill()
    assert left.is_dir()
    with Repository.open(clone.root).worktree("main"):
        assert not left.parent.exists()
    assert worktrees(clone) == [str(clone.root)]


def hostile_filter(clone, mark, folder=None):
    folder = folder or clone.root
    command = f"touch {mark}; cat"
    for key in ("clean", "smudge"):
        subprocess.run(["git", "config", f"filter.evil.{key}", command], cwd=folder, check=True)


def test_no_filter_of_a_submodule_runs(clone, tmp_path):
    clone.git("init", "-q", "sub")
    (clone.root / "sub" / "a.txt").write_text("a\n")
    (clone.root / "sub" / ".gitattributes").write_text("* filter=evil\n")
    clone.git("-C", "sub", "add", "-A")
    clone.git("-C", "sub", "-c", "user.name=x", "-c", "user.email=x@y", "commit", "-qm", "sub")
    clone.git("-c", "advice.addEmbeddedRepo=false", "add", "sub")
    clone.commit("With a submodule")
    hostile_filter(clone, tmp_path / "ran", clone.root / "sub")
    (clone.root / "sub" / "a.txt").write_text("b\n")
    assert Repository.open(clone.root).uncommitted() == []
    assert not (tmp_path / "ran").exists()


def test_no_filter_runs_that_is_configured_for_worktrees_only(clone, tmp_path):
    clone.write(".gitattributes", "*.py filter=evil\n")
    clone.commit("Attributes")
    more = tmp_path / "more"
    more.write_text(f'[filter "evil"]\n\tsmudge = "touch {tmp_path / "ran"}; cat"\n')
    clone.git("config", "includeIf.gitdir:**/worktrees/**.path", str(more))
    with Repository.open(clone.root).worktree("HEAD") as folder:
        assert (folder / "vllm/core/pool.py").is_file()
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize("revision", ["nothing", "--help", "HEAD:AGENTS.md", "", "-1", "\0"])
def test_what_is_no_commit_is_said_so(clone, revision):
    with pytest.raises(GitError):
        Repository.open(clone.root).commit_id(revision)


SOURCE = parse_python(
    "import a\n\n\nclass A:\n    x = 1\n\n    def f(self):\n        return 1\n\n\n"
    "@mark\ndef g():\n    pass\n\n\ny = 2\n"
)


@given(st.integers(0, 16), st.integers(0, 4))
def test_a_cut_keeps_whatever_the_region_touches(start, count):
    assert SOURCE is not None
    kept = {getattr(n, "name", "") for n in cut_down(SOURCE, [(start, count)]).body}
    if any(11 <= line <= 13 for line in range(start, start + count)):
        assert "g" in kept
    if any(4 <= line <= 8 for line in range(start, start + count)):
        assert "A" in kept


WORDS = st.lists(st.sampled_from(["receive", "the", "block", "is", "not", "freed"]), min_size=1)


@given(WORDS, WORDS)
def test_words_that_come_or_go_are_no_spelling(left, right):
    if {w for w in left if len(w) > 3} != {w for w in right if len(w) > 3}:
        assert not only_spelling([" ".join(left)], [" ".join(right)])


@given(st.binary(max_size=300))
def test_no_patch_breaks_the_reader(patch):
    list(_hunks(patch))
    assert list(_with_hunks([], patch)) == []
