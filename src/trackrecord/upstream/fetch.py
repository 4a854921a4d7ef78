"""Bringing the tree of a pin to this machine: from the package index, an archive, git or a folder.

Every way ends the same: the files are unpacked into a draft folder beside the final place by
`archive`, the commit is confirmed there, a manifest says how, and one rename puts it in place.

Invariant: a tree that replaces another does so whole; a failure at any point leaves what was there.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
import tarfile
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import IO

from trackrecord.errors import UpstreamError
from trackrecord.upstream import package_index
from trackrecord.upstream.archive import Unpacked, unpack_tar
from trackrecord.upstream.git import open_git, run_git
from trackrecord.upstream.pin import MANIFEST, Pin, Tree, new_pin

Progress = Callable[[str, int, int], None]
"""Called with what is going on, how many bytes are done, and how many there are or 0."""

_VERSION_FILE_BYTES = 20_000
_COMMIT_IN_FILE = re.compile(r"commit_id\s*=\s*['\"]g?([0-9a-f]{7,40})['\"]")
_SKIPPED_FOLDERS = {".git", ".hg", ".venv", "__pycache__", "node_modules", ".trackrecord"}


def bring_release(pin: Pin, progress: Progress) -> Tree:
    """The source distribution from the package index; its size and sha256 must be the pin's.

    A pin without a sha256, of a version that the person names, takes the index's word for it.
    """
    settings = package_index.pip_settings()
    file = package_index.find_file(pin.project, f"{pin.project}-{pin.version}.tar.gz", settings)
    total = pin.size or file.size
    with _draft(pin) as draft, tempfile.TemporaryDirectory(dir=pin.tree_path.parent) as folder:
        archive = Path(folder) / file.name
        digest = package_index.download(
            file,
            archive,
            settings,
            size=pin.size,
            sha256=pin.sha256,
            progress=lambda done: progress("downloading", done, total),
        )
        pin = replace(pin, sha256=digest, size=archive.stat().st_size)
        return _from_archive(pin, archive, draft, "source distribution", progress)


def bring_version(template: Pin, version: str, commit: str, progress: Progress) -> Tree:
    """Another version's source distribution, pinned to what the package index has of it.

    Args:
        template: the pin whose project, repository and version file it shares.
        commit: what it must be; "" for whatever the archive says.
    """
    settings = package_index.pip_settings()
    name = f"{template.project}-{version}"
    file = package_index.find_file(template.project, f"{name}.tar.gz", settings)
    parent = template.tree_path.parent
    parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=parent) as folder:
        archive = Path(folder) / file.name
        digest = package_index.download(
            file, archive, settings, progress=lambda done: progress("downloading", done, file.size)
        )
        found = commit or commit_of_archive(archive, template.version_file)
        if not found:
            raise UpstreamError(f"{file.name} does not say which commit it is: give --commit")
        pin = new_pin(template, version, found)
        pin = replace(pin, size=archive.stat().st_size, sha256=digest)
        return bring_archive(pin, archive, progress)


def bring_archive(pin: Pin, path: Path, progress: Progress) -> Tree:
    """A source distribution that is on this machine already, checked like a downloaded one."""
    try:
        size = path.stat().st_size
        digest = _sha256(path)
    except OSError as error:
        raise UpstreamError(f"cannot read {str(path)!r}: {error.strerror}") from None
    if pin.sha256 and (digest != pin.sha256 or size != pin.size):
        raise UpstreamError(
            f"{path.name} is not {pin.project} {pin.version}: {size:,} bytes with sha256 {digest}, "
            f"expected {pin.size:,} with {pin.sha256}"
        )
    with _draft(pin) as draft:
        pin = replace(pin, sha256=digest, size=size)
        return _from_archive(pin, path, draft, "source distribution", progress)


def bring_git(pin: Pin, location: str, progress: Progress) -> Tree:
    """The pin's tag, or commit, out of a git repository at a URL or in a folder.

    The files come through `git archive`, so that no hook, filter or submodule of it ever runs.

    Raises:
        UpstreamError: the tag names another commit, or git fails.
    """
    if location.startswith("-"):
        raise UpstreamError(f"not a git repository: {location!r}")
    folder = Path(location).expanduser()
    source = str(folder.absolute()) if folder.is_dir() else location
    with _draft(pin) as draft, tempfile.TemporaryDirectory(dir=pin.tree_path.parent) as work:
        progress("fetching from git", 0, 0)
        run_git(["init", "--quiet", "--bare", work])
        wanted = f"refs/tags/{pin.tag}" if pin.tag else pin.commit
        run_git(["-C", work, "fetch", "--quiet", "--depth", "1", "--no-tags", "--", source, wanted])
        commit = run_git(["-C", work, "rev-parse", "FETCH_HEAD^{commit}"]).strip()
        if not commit.startswith(pin.commit):
            raise UpstreamError(f"{wanted} of {location} is {commit}, not {pin.commit}")
        with open_git(["-C", work, "archive", "--format=tar", commit]) as git:
            assert git.stdout is not None
            unpacked = _unpack(git.stdout, draft, progress)
        if git.returncode:
            raise UpstreamError(f"git archive of {commit} failed")
        return _finish(replace(pin, commit=commit), draft, unpacked, "git", f"git: {commit}")


def bring_folder(pin: Pin, folder: Path, progress: Progress) -> Tree:
    """A copy of a folder: an unpacked source distribution, or a git checkout at the pin's commit.

    Links are left out, as are version control, environments and caches.
    """
    if not folder.is_dir():
        raise UpstreamError(f"no folder {str(folder)!r}")
    confirmed = _commit_in_file(folder, pin)
    how = f"{pin.version_file}: {confirmed}"
    if not confirmed and (folder / ".git").exists():
        confirmed = run_git(["-C", str(folder), "rev-parse", "HEAD"]).strip()
        how = f"HEAD: {confirmed}"
    _check_commit(pin, confirmed, str(folder))
    with _draft(pin) as draft:
        unpacked = Unpacked()
        for source in _regular_files(folder):
            target = draft / source.relative_to(folder)
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(source, target, follow_symlinks=False)
            unpacked.files += 1
            unpacked.bytes += target.stat().st_size
            progress("copying", unpacked.bytes, 0)
        if not unpacked.files:
            raise UpstreamError(f"the folder {str(folder)!r} is empty")
        return _finish(pin, draft, unpacked, "folder", how)


def commit_of_archive(path: Path, version_file: str) -> str:
    """The commit that an archive's version file names, or ""; reads no further than to it."""
    try:
        with tarfile.open(path, "r|*") as archive:
            for member in archive:
                if member.isreg() and member.name.partition("/")[2] == version_file:
                    content = archive.extractfile(member)
                    text = content.read(_VERSION_FILE_BYTES) if content else b""
                    return _commit_in(text.decode(errors="replace"))
    except (tarfile.TarError, OSError, EOFError):
        return ""
    return ""


def _from_archive(pin: Pin, archive: Path, draft: Path, kind: str, progress: Progress) -> Tree:
    unpacked = _unpack(archive, draft, progress)
    confirmed = _commit_in_file(draft, pin)
    _check_commit(pin, confirmed, archive.name)
    return _finish(pin, draft, unpacked, kind, f"{pin.version_file}: {confirmed}")


def _unpack(source: Path | IO[bytes], draft: Path, progress: Progress) -> Unpacked:
    return unpack_tar(source, draft, progress=lambda done: progress("unpacking", done, 0))


def _finish(pin: Pin, draft: Path, unpacked: Unpacked, source: str, confirmed_by: str) -> Tree:
    manifest = {
        "pin": pin.name,
        "version": pin.version,
        "commit": pin.commit,
        "source": source,
        "sha256": pin.sha256 if source == "source distribution" else "",
        "confirmed_by": confirmed_by,
        "files": unpacked.files,
        "bytes": unpacked.bytes,
        "links_left_out": unpacked.links,
    }
    (draft / MANIFEST).write_text(json.dumps(manifest, indent=1) + "\n", encoding="utf-8")
    draft.chmod(0o755)
    _swap(draft, pin.tree_path)
    return Tree(pin.tree_path, pin)


@contextmanager
def _draft(pin: Pin) -> Iterator[Path]:
    """An empty folder beside the tree's place, removed unless it was put there."""
    parent = pin.tree_path.parent
    try:
        parent.mkdir(parents=True, exist_ok=True)
        draft = Path(tempfile.mkdtemp(prefix=f".{pin.name}.new-", dir=parent))
    except OSError as error:
        raise UpstreamError(f"cannot write {str(parent)!r}: {error.strerror}") from None
    try:
        yield draft
    finally:
        shutil.rmtree(draft, ignore_errors=True)


def _swap(draft: Path, place: Path) -> None:
    old = draft.with_name(draft.name.replace(".new-", ".old-"))
    if place.exists():
        os.rename(place, old)
    try:
        os.rename(draft, place)
    except OSError as error:
        if old.exists():
            os.rename(old, place)
        raise UpstreamError(f"cannot put the tree in place: {error.strerror}") from None
    shutil.rmtree(old, ignore_errors=True)


def _check_commit(pin: Pin, found: str, where: str) -> None:
    if not found:
        raise UpstreamError(
            f"{where} does not say which commit it is (looked for {pin.version_file or 'git'}), so "
            f"it cannot be confirmed to be {pin.commit}"
        )
    if not (found.startswith(pin.commit) or pin.commit.startswith(found)):
        raise UpstreamError(f"{where} is commit {found}, not {pin.commit}")


def _commit_in_file(root: Path, pin: Pin) -> str:
    if not pin.version_file:
        return ""
    try:
        text = (root / pin.version_file).read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""
    return _commit_in(text[:_VERSION_FILE_BYTES])


def _commit_in(text: str) -> str:
    found = _COMMIT_IN_FILE.search(text)
    return found[1] if found else ""


def _regular_files(folder: Path) -> Iterator[Path]:
    for base, names, files in os.walk(folder):
        names[:] = [n for n in sorted(names) if n not in _SKIPPED_FOLDERS]
        for name in sorted(files):
            path = Path(base, name)
            if path.is_file() and not path.is_symlink() and name != MANIFEST:
                yield path


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
