"""A person's clone, read through the git binary and never changed.

A clone is configured by whoever made it, and git is only asked through `upstream.clone`, which
lets none of the programs run that a configuration names.

Invariant: no function writes to the working tree, the index or a branch; `worktree` adds a second
tree elsewhere and takes it away again, and no other. Names and messages are decoded, never trusted:
what is not UTF-8 is replaced, and whoever shows them escapes them.
"""

from __future__ import annotations

import fcntl
import re
import shutil
import tempfile
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

from trackrecord.upstream import clone
from trackrecord.upstream.clone import PLAIN_DIFF, SECONDS, Setting
from trackrecord.upstream.clone import GitError as GitError

MAX_BLOB_BYTES = 4_000_000
"""Larger files are listed and counted, but not read."""
_BASES = (
    *("upstream/main", "upstream/master", "origin/main", "origin/master"),
    *("upstream/HEAD", "origin/HEAD", "main", "master"),
)
_HUNK = re.compile(rb"@@ -(\d+)(?:,\d+)? \+(\d+)(?:,\d+)? @@")
_CHECKOUT_SECONDS = 600
_TREE_PREFIX = "trackrecord-"
_TREE_LOCK = "in-use"


@dataclass(frozen=True)
class Person:
    """An author or committer as the commit names them."""

    name: str
    email: str

    def __str__(self) -> str:
        return f"{self.name} <{self.email}>"


@dataclass(frozen=True)
class Commit:
    """One commit; `authored_at` is ISO 8601."""

    sha: str
    parents: tuple[str, ...]
    author: Person
    committer: Person
    authored_at: str
    message: str

    @property
    def subject(self) -> str:
        return self.message.partition("\n")[0]

    @property
    def short(self) -> str:
        return self.sha[:10]

    @property
    def is_merge(self) -> bool:
        return len(self.parents) > 1


@dataclass(frozen=True)
class Hunk:
    """Lines that replace other lines; line numbers count from 1."""

    old_start: int
    removed: tuple[str, ...]
    new_start: int
    added: tuple[str, ...]


@dataclass(frozen=True)
class Change:
    """What a branch does to one file.

    `status` is git's letter: A, M, D, R (renamed from `old_path`), C or T. A blob is "" where the
    file did not exist on that side, or is no file (a submodule).
    """

    status: str
    path: str
    old_path: str
    old_blob: str
    new_blob: str
    new_mode: str
    hunks: tuple[Hunk, ...] = ()

    @property
    def added(self) -> int:
        return sum(len(hunk.added) for hunk in self.hunks)

    @property
    def removed(self) -> int:
        return sum(len(hunk.removed) for hunk in self.hunks)

    @property
    def first_line(self) -> int:
        """The first line of the new file that changed, or 1."""
        return max(1, self.hunks[0].new_start) if self.hunks else 1


@dataclass(frozen=True)
class Repository:
    """A clone; `root` is the top of its working tree."""

    root: Path

    @classmethod
    def open(cls, folder: Path | None = None) -> Repository:
        """The clone that `folder`, by default the current one, lies in.

        Raises:
            GitError: it lies in none.
        """
        folder = (folder or Path.cwd()).expanduser().absolute()
        if not folder.is_dir():
            raise GitError(f"no folder {str(folder)!r}")
        done = clone.ask(folder, ["rev-parse", "--show-toplevel"])
        if done.returncode:
            raise GitError(f"{str(folder)!r} is not inside a git repository: {clone.reason(done)}")
        return cls(Path(done.stdout.decode(errors="replace").rstrip("\n")))

    def git(self, *words: str, text_in: bytes = b"", seconds: float = SECONDS) -> bytes:
        """Runs git in the clone and returns what it printed.

        Raises:
            GitError: it failed, or took longer than `seconds`.
        """
        done = clone.ask(self.root, words, self._disarmed, text_in, seconds)
        if done.returncode:
            raise GitError(f"git {words[0]} failed: {clone.reason(done)}")
        return done.stdout

    @cached_property
    def _disarmed(self) -> tuple[Setting, ...]:
        return clone.disarmed(self.root)

    # What there is.

    def commit_id(self, revision: str) -> str:
        """The full id of the commit that `revision` names.

        Raises:
            GitError: it names none.
        """
        words = ["rev-parse", "--verify", "--quiet", "--end-of-options", f"{revision}^{{commit}}"]
        done = clone.ask(self.root, words, self._disarmed)
        if done.returncode:
            raise GitError(f"no commit {revision!r} in {self.root.name}: give another revision")
        return done.stdout.decode().strip()

    def default_base(self) -> str:
        """The first of the usual names of upstream's main branch that exists here.

        Raises:
            GitError: none does.
        """
        asked = "".join(f"{name}\n" for name in _BASES).encode()
        out = self.git("cat-file", "--batch-check=%(objecttype)", text_in=asked)
        for name, answer in zip(_BASES, out.decode().splitlines(), strict=True):
            if answer == "commit":
                return name
        raise GitError(f"none of {', '.join(_BASES)} exists here: say what to compare with, --base")

    def merge_base(self, base: str, head: str) -> str:
        """The commit at which `head` left `base`.

        Raises:
            GitError: their histories have nothing in common (in a shallow clone: are not here).
        """
        return clone.merge_base(self.root, base, head, self._disarmed)

    def branch(self) -> str:
        """The name of the branch checked out, or "" if there is none."""
        done = clone.ask(self.root, ["symbolic-ref", "--short", "-q", "HEAD"])
        return done.stdout.decode(errors="replace").strip()

    def identity(self) -> Person:
        """Who git would name as the author of a commit made now; empty where it is not set up."""
        name, email = (clone.ask(self.root, ["config", "--get", key]).stdout for key in _IDENTITY)
        return Person(name.decode(errors="replace").strip(), email.decode(errors="replace").strip())

    def uncommitted(self) -> list[str]:
        """Paths whose content differs from the last commit's, new files included. A submodule is
        asked for its commit alone: for its files, git would run the programs it names."""
        out = self.git(
            *("status", "--porcelain=v1", "-z", "--no-renames", "--untracked-files=normal"),
            "--ignore-submodules=dirty",
        )
        return [entry[3:] for entry in _strings(out) if entry]

    def commits(self, base: str, head: str) -> list[Commit]:
        """The commits of `base..head`, oldest first."""
        form = "%H%n%P%n%an%n%ae%n%cn%n%ce%n%aI%n%B"
        out = self.git(
            *("log", "-z", "--reverse", "--topo-order", "--no-mailmap", "--encoding=UTF-8"),
            *(f"--format={form}", f"{base}..{head}", "--"),
        )
        return [_commit(entry) for entry in _strings(out) if entry]

    def changes(self, base: str, head: str) -> list[Change]:
        """What differs between two commits, file by file, with every changed line."""
        raw = self.git("diff", "--raw", "-z", "--no-abbrev", *PLAIN_DIFF, base, head, "--")
        lines = ("-p", "-U0", "--inter-hunk-context=0")
        patch = self.git("diff", *lines, *PLAIN_DIFF, base, head, "--")
        return list(_with_hunks(_raw_changes(raw), patch))

    def files(self, revision: str) -> dict[str, str]:
        """Every regular file of a commit: path to blob id."""
        out = self.git("ls-tree", "-r", "-z", "--full-tree", revision)
        found = {}
        for entry in _strings(out):
            facts, tab, path = entry.partition("\t")
            if tab and facts.startswith("100"):
                found[path] = facts.split(" ")[2]
        return found

    def read(self, blobs: Iterable[str]) -> dict[str, bytes]:
        """The content of blobs by id; those larger than `MAX_BLOB_BYTES` are left out."""
        wanted = sorted(set(blobs) - {""})
        if not wanted:
            return {}
        asked = "".join(f"{blob}\n" for blob in wanted).encode()
        sizes = self.git("cat-file", "--batch-check=%(objectname) %(objectsize)", text_in=asked)
        small = [
            line.split(" ")[0]
            for line in sizes.decode().splitlines()
            if line.split(" ")[1].isdigit() and int(line.split(" ")[1]) <= MAX_BLOB_BYTES
        ]
        out = self.git("cat-file", "--batch", text_in="".join(f"{b}\n" for b in small).encode())
        found, position = {}, 0
        for blob in small:
            end = out.index(b"\n", position)
            size = int(out[position:end].split(b" ")[2])
            found[blob] = out[end + 1 : end + 1 + size]
            position = end + 1 + size + 1
        return found

    # A second tree.

    @contextmanager
    def worktree(self, revision: str) -> Iterator[Path]:
        """The files of a commit in a folder of their own, which is gone when the block ends.

        A program that was killed leaves such a folder behind; the next one takes it away.
        """
        commit = self.commit_id(revision)
        self._remove_abandoned()
        with tempfile.TemporaryDirectory(prefix=_TREE_PREFIX) as folder, _held(Path(folder)):
            place = Path(folder).resolve() / commit[:12]
            try:
                words = ("--quiet", "--detach", "--no-checkout", str(place), commit)
                self.git("worktree", "add", *words, seconds=_CHECKOUT_SECONDS)
                # Filled by a git of its own: other filters may be configured for that place.
                filled = Repository(place)
                filled.git("reset", "--hard", "--quiet", seconds=_CHECKOUT_SECONDS)
                yield place
            finally:
                self._remove(place)

    def _remove(self, place: Path) -> None:
        """Takes one worktree away, even where its folder is damaged or gone."""
        shutil.rmtree(place, ignore_errors=True)
        words = ["worktree", "remove", "--force", "--force", str(place)]
        clone.ask(self.root, words, self._disarmed)

    def _remove_abandoned(self) -> None:
        """Takes away the worktrees that `worktree` made and whose program is gone."""
        mine = Path(tempfile.gettempdir()).resolve()
        listed = self.git("worktree", "list", "--porcelain").decode(errors="replace")
        for line in listed.splitlines():
            place = Path(line.removeprefix("worktree "))
            folder = place.parent
            ours = folder.parent == mine and folder.name.startswith(_TREE_PREFIX)
            if line.startswith("worktree ") and ours and not _is_held(folder):
                self._remove(place)
                if (folder / _TREE_LOCK).is_file():
                    shutil.rmtree(folder, ignore_errors=True)


_IDENTITY = ("user.name", "user.email")


@contextmanager
def _held(folder: Path) -> Iterator[None]:
    """Marks a folder as in use, for as long as the block, and this program, runs."""
    with (folder / _TREE_LOCK).open("ab") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def _is_held(folder: Path) -> bool:
    """Whether a running program marked a folder as in use, or may be about to."""
    with suppress(FileNotFoundError), (folder / _TREE_LOCK).open("rb") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            return True
    return False


def _strings(out: bytes) -> list[str]:
    return out.decode(errors="replace").split("\0")


def _commit(entry: str) -> Commit:
    sha, parents, an, ae, cn, ce, at, message = entry.split("\n", 7)
    people = (Person(an, ae), Person(cn, ce))
    return Commit(sha, tuple(parents.split()), *people, at, message.strip("\n"))


def _raw_changes(raw: bytes) -> Iterator[Change]:
    fields = iter(_strings(raw))
    for facts in fields:
        if not facts:
            continue
        old_mode, new_mode, old_blob, new_blob, status = facts[1:].split(" ")
        path = old_path = next(fields)
        if status[0] in "RC":
            path = next(fields)
        blobs = (_blob(old_mode, old_blob), _blob(new_mode, new_blob))
        yield Change(status[0], path, old_path, *blobs, new_mode)


def _blob(mode: str, blob: str) -> str:
    return blob if mode.startswith("100") and blob.strip("0") else ""


def _with_hunks(changes: Iterable[Change], patch: bytes) -> Iterator[Change]:
    """Joins the list of changes with the patch, which has the same files in the same order."""
    sections = re.split(rb"(?m)^diff --git ", patch)[1:]
    position = 0
    for change in changes:
        # A file that became a link, or the reverse, is shown as a deletion and an addition.
        count = 2 if change.status == "T" else 1
        hunks = [hunk for text in sections[position : position + count] for hunk in _hunks(text)]
        position += count
        yield replace(change, hunks=tuple(hunks))


def _hunks(section: bytes) -> Iterator[Hunk]:
    """The hunks of one file's patch, which has no context lines."""
    parts = re.split(rb"(?m)^(?=@@ -)", section)[1:]
    for part in parts:
        head, *lines = part.split(b"\n")
        found = _HUNK.match(head)
        if found:
            old, new = (
                tuple(line[1:].decode(errors="replace") for line in lines if line[:1] == sign)
                for sign in (b"-", b"+")
            )
            yield Hunk(int(found[1]), old, int(found[2]), new)
