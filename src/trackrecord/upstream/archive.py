"""Unpacking an archive that nobody here wrote.

Invariant: only regular files are written, all below the folder asked for, none executable, and no
more than the limits; links are never made, so nothing that was unpacked can lead elsewhere. A link
that stays inside the archive is left out and counted, everything else that is no file or folder
refuses the archive. An archive is read to its end, where the checksum of the compression and the
end mark of tar say whether it is whole: `tarfile` alone takes some truncated ones for shorter ones.
"""

from __future__ import annotations

import bz2
import gzip
import io
import lzma
import posixpath
import tarfile
import zlib
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, cast

from trackrecord.errors import ArchiveError

_CHUNK = 1 << 20
_END_MARK = bytes(1024)
"""The two empty blocks that a tar archive ends with."""
_OVERHEAD_BYTES = 4096
"""What tar needs for a file beside its content: header, long names, padding."""


@dataclass(frozen=True)
class Limits:
    """What an archive may hold, unpacked."""

    files: int = 200_000
    bytes: int = 2_000_000_000
    file_bytes: int = 500_000_000
    path_chars: int = 400


@dataclass
class Unpacked:
    """What was written: regular files, their bytes, and the links that were left out."""

    files: int = 0
    bytes: int = 0
    links: int = 0


def unpack_tar(
    source: Path | IO[bytes],
    into: Path,
    limits: Limits | None = None,
    progress: Callable[[int], None] | None = None,
) -> Unpacked:
    """Unpacks a tar archive, plain or compressed, read from front to back.

    Args:
        source: the archive's file, or a stream of it.
        into: an empty folder. If everything in the archive lies under one folder, as in a source
            distribution, that folder is left out.
        progress: called with the number of bytes written so far.

    Raises:
        ArchiveError: the archive is damaged, or breaks the invariant. `into` then holds a part.
    """
    limits = limits or Limits()
    done = Unpacked()
    try:
        with _opened(source) as raw:
            stream = _ToTheEnd(_decompressed(raw), limits.bytes + limits.files * _OVERHEAD_BYTES)
            with tarfile.open(fileobj=cast(Any, stream), mode="r|") as archive:
                for member, parts in _checked(archive, done, limits):
                    _write(archive, member, into.joinpath(*parts), limits, done)
                    if progress:
                        progress(done.bytes)
            stream.finish()
    except (tarfile.TarError, EOFError, zlib.error, lzma.LZMAError, gzip.BadGzipFile) as error:
        raise ArchiveError(f"the archive is truncated or damaged: {error}") from None
    except (FileExistsError, NotADirectoryError, IsADirectoryError) as error:
        name = Path(error.filename or "?").name
        raise ArchiveError(f"the archive holds {name!r} both as a file and as a folder") from None
    except OSError as error:
        raise ArchiveError(f"cannot unpack: {error.strerror or error}") from None
    if not done.files:
        raise ArchiveError("the archive holds no files")
    _lift_single_folder(into)
    return done


def _opened(source: Path | IO[bytes]) -> AbstractContextManager[Any]:
    if isinstance(source, Path):
        return source.open("rb")
    # A reader of its own may have read ahead, so it is used itself where there is one.
    kept = isinstance(source, io.BufferedReader)
    return nullcontext(source if kept else io.BufferedReader(cast(Any, source)))


def _decompressed(raw: io.BufferedReader) -> Any:
    """The bytes of a plain, gzip, bzip2 or xz file, each checked by its own checksum."""
    start = raw.peek(6)
    if start.startswith(b"\x1f\x8b"):
        return gzip.GzipFile(fileobj=raw, mode="rb")
    if start.startswith(b"BZh"):
        return bz2.BZ2File(raw)
    if start.startswith(b"\xfd7zXZ\0"):
        return lzma.LZMAFile(raw)
    return raw


class _ToTheEnd:
    """What `tarfile` reads from; knows how the stream ended."""

    def __init__(self, stream: Any, most: int) -> None:
        self.stream = stream
        self.left = most
        self.tail = b""

    def read(self, size: int) -> bytes:
        data: bytes = self.stream.read(size)
        self.left -= len(data)
        if self.left < 0:
            raise ArchiveError("the archive is too large to unpack")
        self.tail = (self.tail + data)[-len(_END_MARK) :]
        return data

    def finish(self) -> None:
        """Reads the rest, which is padding, and checks that nothing is missing."""
        while self.read(_CHUNK):
            pass
        if self.tail != _END_MARK:
            raise EOFError("it has no end")


def _checked(
    archive: tarfile.TarFile, done: Unpacked, limits: Limits
) -> Iterator[tuple[tarfile.TarInfo, tuple[str, ...]]]:
    """Each regular file with the parts of its path, after every check that needs no content."""
    seen: set[tuple[str, ...]] = set()
    for member in archive:
        name = member.name
        parts = _safe_parts(name, limits)
        if member.isdir():
            continue
        if member.issym() or member.islnk():
            _check_link(member)
            done.links += 1
            continue
        if not member.isreg():
            raise ArchiveError(f"the archive holds {name!r}, which is neither file nor folder")
        if not parts:
            raise ArchiveError("the archive holds a file without a name")
        if parts in seen:  # tar would keep the last, another reader the first
            raise ArchiveError(f"the archive lists {name!r} twice")
        seen.add(parts)
        done.files += 1
        if done.files > limits.files:
            raise ArchiveError(f"the archive holds more than {limits.files:,} files")
        if member.size > limits.file_bytes or done.bytes + member.size > limits.bytes:
            raise ArchiveError(f"the archive is too large to unpack, at {name!r}")
        yield member, parts


def _safe_parts(name: str, limits: Limits) -> tuple[str, ...]:
    broken = "\0" in name or "\\" in name or name.startswith("/") or ":" in name.split("/", 1)[0]
    parts = tuple(part for part in name.split("/") if part not in ("", "."))
    if broken or ".." in parts:
        raise ArchiveError(f"the archive would write outside its folder: {name!r}")
    if len(name) > limits.path_chars:
        raise ArchiveError(f"the archive holds a path of {len(name)} characters")
    return parts


def _check_link(member: tarfile.TarInfo) -> None:
    base = posixpath.dirname(member.name) if member.issym() else ""
    target = posixpath.normpath(posixpath.join(base, member.linkname))
    if member.linkname.startswith("/") or target.startswith(".."):
        raise ArchiveError(
            f"the archive holds a link that leads out of it: {member.name!r} to {member.linkname!r}"
        )


def _write(
    archive: tarfile.TarFile, member: tarfile.TarInfo, path: Path, limits: Limits, done: Unpacked
) -> None:
    content = archive.extractfile(member)
    assert content is not None  # of a regular file
    path.parent.mkdir(parents=True, exist_ok=True)
    written = 0
    # "x": a second member of the same name would replace the first behind a reader's back.
    with content, path.open("xb") as file:
        while chunk := content.read(_CHUNK):
            written += len(chunk)
            file.write(chunk)
    if written != member.size:
        raise ArchiveError(f"the archive is truncated or damaged: {member.name!r} is not whole")
    done.bytes += written


def _lift_single_folder(into: Path) -> None:
    """Moves the content of the only folder in `into` up, and removes that folder."""
    inside = list(into.iterdir())
    if len(inside) != 1 or not inside[0].is_dir():
        return
    # Renamed first: the folder may hold an entry of its own name.
    folder = inside[0].rename(into / ".unpacked")
    for entry in folder.iterdir():
        entry.rename(into / entry.name)
    folder.rmdir()
