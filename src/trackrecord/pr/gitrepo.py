"""A person's clone, read through the git binary and never changed.

A clone is configured by whoever made it: hooks, external diffs, text conversions, content filters
and file system monitors are programs that git would run. None of them runs here.

Invariant: no function writes to the working tree, the index or a branch; `worktree` adds a second
tree elsewhere and takes it away again. Names and messages are decoded, never trusted: what is not
UTF-8 is replaced, and whoever shows them escapes them.
"""

from __future__ import annotations

import os
import re
import subprocess
import tempfile
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

from trackrecord.errors import TrackRecordError

SECONDS = 60
MAX_BLOB_BYTES = 4_000_000
"""Larger files are listed and counted, but not read."""
_BASES = (
    *("upstream/main", "upstream/master", "origin/main", "origin/master"),
    *("upstream/HEAD", "origin/HEAD", "main", "master"),
)
_QUIET_SETTINGS = (
    f"core.hooksPath={os.devnull}",
    "core.fsmonitor=false",
    f"core.attributesFile={os.devnull}",
    "core.quotePath=false",
    "diff.external=",
    "log.showSignature=false",
    "protocol.allow=never",
    "submodule.recurse=false",
    "gc.auto=0",
)
_HUNK = re.compile(rb"@@ -(\d+)(?:,\d+)? \+(\d+)(?:,\d+)? @@")
_FILTER = re.compile(r"filter\..+\.(clean|smudge|process|required)")


class GitError(TrackRecordError):
    """git is missing, refused, or does not know what it was asked for."""


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
        done = _run(["-C", str(folder), "rev-parse", "--show-toplevel"], ())
        if done.returncode:
            raise GitError(f"{str(folder)!r} is not inside a git repository: {_reason(done)}")
        return cls(Path(done.stdout.decode(errors="replace").rstrip("\n")))

    def git(self, *words: str, text_in: bytes | None = None, seconds: float = SECONDS) -> bytes:
        """Runs git in the clone and returns what it printed.

        Raises:
            GitError: it failed, or took longer than `seconds`.
        """
        done = _run(["-C", str(self.root), *words], self._disarmed, text_in, seconds)
        if done.returncode:
            raise GitError(f"git {words[0]} failed: {_reason(done)}")
        return done.stdout

    @cached_property
    def _disarmed(self) -> tuple[str, ...]:
        """Settings that empty every content filter that the configuration names."""
        listed = _run(["-C", str(self.root), "config", "--list", "--name-only", "-z"], ())
        found = map(_FILTER.fullmatch, sorted(set(_strings(listed.stdout))))
        return tuple(f"{m[0]}={'false' if m[1] == 'required' else ''}" for m in found if m)

    # What there is.

    def commit_id(self, revision: str) -> str:
        """The full id of the commit that `revision` names.

        Raises:
            GitError: it names none.
        """
        words = ["rev-parse", "--verify", "--quiet", "--end-of-options", f"{revision}^{{commit}}"]
        done = _run(["-C", str(self.root), *words], self._disarmed)
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
        done = _run(["-C", str(self.root), "merge-base", "--", base, head], self._disarmed)
        if done.returncode:
            raise GitError(
                f"{base[:12]} and {head[:12]} have no common commit here; in a shallow clone run "
                f"`git fetch --unshallow`"
            )
        return done.stdout.decode().split()[0]

    def branch(self) -> str:
        """The name of the branch checked out, or "" if there is none."""
        done = _run(["-C", str(self.root), "symbolic-ref", "--short", "-q", "HEAD"], ())
        return done.stdout.decode(errors="replace").strip()

    def identity(self) -> Person:
        """Who git would name as the author of a commit made now; empty where it is not set up."""
        name, email = (
            _run(["-C", str(self.root), "config", "--get", key], ()).stdout for key in _IDENTITY
        )
        return Person(name.decode(errors="replace").strip(), email.decode(errors="replace").strip())

    def uncommitted(self) -> list[str]:
        """Paths whose content differs from the last commit's, new files included."""
        words = ("status", "--porcelain=v1", "-z", "--no-renames", "--untracked-files=normal")
        return [entry[3:] for entry in _strings(self.git(*words)) if entry]

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
        plain = ("--no-ext-diff", "--no-textconv", "--no-color", "--no-relative", "-M")
        raw = self.git("diff", "--raw", "-z", "--no-abbrev", *plain, base, head, "--")
        lines = ("-p", "-U0", "--inter-hunk-context=0", "--submodule=short")
        patch = self.git("diff", *lines, *plain, base, head, "--")
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
        """The files of a commit in a folder of their own, which is gone when the block ends."""
        commit = self.commit_id(revision)
        with tempfile.TemporaryDirectory(prefix="trackrecord-") as folder:
            place = Path(folder) / commit[:12]
            self.git("worktree", "add", "--quiet", "--detach", str(place), commit, seconds=600)
            try:
                yield place
            finally:
                _run(["-C", str(self.root), "worktree", "remove", "--force", str(place)], ())
                _run(["-C", str(self.root), "worktree", "prune"], ())


_IDENTITY = ("user.name", "user.email")


def environment() -> dict[str, str]:
    """The caller's environment without what would make git look elsewhere, ask, or lock."""
    kept = {key: value for key, value in os.environ.items() if not key.startswith("GIT_")}
    return kept | {
        "GIT_TERMINAL_PROMPT": "0",
        "GIT_OPTIONAL_LOCKS": "0",
        "GIT_NO_REPLACE_OBJECTS": "1",
        "GIT_NO_LAZY_FETCH": "1",
        "GIT_ATTR_NOSYSTEM": "1",
        "GIT_PAGER": "cat",
        "LC_ALL": "C",
    }


def _run(
    words: list[str],
    settings: Iterable[str],
    text_in: bytes | None = None,
    seconds: float = SECONDS,
) -> subprocess.CompletedProcess[bytes]:
    command = ["git", "--no-pager", "--literal-pathspecs"]
    for setting in (*_QUIET_SETTINGS, *settings):
        command += ["-c", setting]
    try:
        return subprocess.run(  # noqa: S603
            [*command, *words],
            input=text_in if text_in is not None else b"",
            capture_output=True,
            timeout=seconds,
            env=environment(),
            check=False,
        )
    except FileNotFoundError:
        raise GitError("git is not installed: install it") from None
    except ValueError as error:  # a zero byte
        raise GitError(f"git cannot be asked that: {error}") from None
    except subprocess.TimeoutExpired:
        raise GitError(f"git gave no answer for {seconds:g} s") from None


def _reason(done: subprocess.CompletedProcess[bytes]) -> str:
    lines = done.stderr.decode(errors="replace").strip().splitlines()
    return lines[0] if lines else f"exit code {done.returncode}"


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
