"""Reading a clone: every changed line is accounted for, and odd names are no trouble."""

from __future__ import annotations

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
