"""Unpacking: what an archive may do, and everything that it may not."""

from __future__ import annotations

import io
import tarfile
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from trackrecord.errors import ArchiveError
from trackrecord.upstream.archive import Limits, unpack_tar


def archive(*members: tarfile.TarInfo | tuple[str, bytes], mode: str = "w:gz") -> io.BytesIO:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode=mode) as tar:
        for member in members:
            if isinstance(member, tarfile.TarInfo):
                tar.addfile(member)
            else:
                info = tarfile.TarInfo(member[0])
                info.size, info.mode = len(member[1]), 0o777
                tar.addfile(info, io.BytesIO(member[1]))
    buffer.seek(0)
    return buffer


def link(name: str, target: str, kind: bytes = tarfile.SYMTYPE) -> tarfile.TarInfo:
    info = tarfile.TarInfo(name)
    info.type, info.linkname = kind, target
    return info


def special(name: str, kind: bytes) -> tarfile.TarInfo:
    info = tarfile.TarInfo(name)
    info.type = kind
    return info


def files_in(folder: Path) -> dict[str, bytes]:
    return {
        p.relative_to(folder).as_posix(): p.read_bytes() for p in folder.rglob("*") if p.is_file()
    }


def test_the_single_folder_of_a_source_distribution_is_left_out(tmp_path: Path) -> None:
    done = unpack_tar(archive(("vllm-1/a.py", b"a"), ("vllm-1/vllm/b.py", b"bb")), tmp_path)
    assert files_in(tmp_path) == {"a.py": b"a", "vllm/b.py": b"bb"}
    assert (done.files, done.bytes, done.links) == (2, 3, 0)


def test_a_folder_that_holds_one_of_its_own_name(tmp_path: Path) -> None:
    unpack_tar(archive(("vllm/vllm/a.py", b"a"), ("vllm/b.py", b"b")), tmp_path)
    assert files_in(tmp_path) == {"vllm/a.py": b"a", "b.py": b"b"}


def test_files_side_by_side_stay_where_they_are(tmp_path: Path) -> None:
    unpack_tar(archive(("a.py", b"a"), ("b/c.py", b"c"), mode="w"), tmp_path)
    assert files_in(tmp_path) == {"a.py": b"a", "b/c.py": b"c"}


def test_nothing_that_is_unpacked_can_be_executed(tmp_path: Path) -> None:
    unpack_tar(archive(("a.sh", b"#!/bin/sh"), ("b", b"")), tmp_path)
    assert not (tmp_path / "a.sh").stat().st_mode & 0o111


@pytest.mark.parametrize(
    "name", ["../a", "x/../../a", "/a", "x/..", "C:/a", "a\\..\\b", "./../a", "x/../a"]
)
def test_a_path_that_leads_out_refuses_the_archive(tmp_path: Path, name: str) -> None:
    inside = tmp_path / "inside"
    inside.mkdir()
    with pytest.raises(ArchiveError, match="outside its folder"):
        unpack_tar(archive((name, b"x")), inside)
    assert files_in(tmp_path) == {}


@pytest.mark.parametrize(
    "member",
    [
        link("a", "/etc/passwd"),
        link("a", "../../x"),
        link("d/a", "../../x"),
        link("a", "../x", tarfile.LNKTYPE),
    ],
)
def test_a_link_that_leads_out_refuses_the_archive(tmp_path: Path, member: tarfile.TarInfo) -> None:
    with pytest.raises(ArchiveError, match="leads out"):
        unpack_tar(archive(("f", b""), member), tmp_path)


def test_a_link_inside_is_left_out_and_counted(tmp_path: Path) -> None:
    done = unpack_tar(
        archive(("f", b"1"), link("d/a", "../f"), link("h", "f", tarfile.LNKTYPE)), tmp_path
    )
    assert files_in(tmp_path) == {"f": b"1"}
    assert done.links == 2


def test_a_file_below_a_link_is_written_into_a_real_folder(tmp_path: Path) -> None:
    """The classic: a link to a folder, then a file through it."""
    outside = tmp_path / "outside"
    outside.mkdir()
    inside = tmp_path / "inside"
    inside.mkdir()
    with pytest.raises(ArchiveError):
        unpack_tar(archive(link("d", str(outside)), ("d/f", b"x")), inside)
    unpack_tar(archive(link("d", "e"), ("d/f", b"x"), ("g", b"")), inside)
    assert not list(outside.iterdir())
    assert (inside / "d").is_dir()
    assert not (inside / "d").is_symlink()


@pytest.mark.parametrize("kind", [tarfile.CHRTYPE, tarfile.BLKTYPE, tarfile.FIFOTYPE])
def test_devices_and_pipes_refuse_the_archive(tmp_path: Path, kind: bytes) -> None:
    with pytest.raises(ArchiveError, match="neither file nor folder"):
        unpack_tar(archive(("f", b""), special("x", kind)), tmp_path)


def test_one_name_twice_refuses_the_archive(tmp_path: Path) -> None:
    with pytest.raises(ArchiveError, match=r"lists './a' twice"):
        unpack_tar(archive(("a", b"good"), ("./a", b"bad")), tmp_path)
    assert (tmp_path / "a").read_bytes() == b"good"


def test_one_name_for_a_file_and_a_folder_refuses_the_archive(tmp_path: Path) -> None:
    with pytest.raises(ArchiveError, match="'a' both as a file and as a folder"):
        unpack_tar(archive(("a", b"file"), ("a/b", b"below")), tmp_path)


@pytest.mark.parametrize(
    ("limits", "says"),
    [
        (Limits(files=1), "more than 1 files"),
        (Limits(bytes=10), "too large"),
        (Limits(file_bytes=5), "too large"),
        (Limits(path_chars=3), "path of 4 characters"),
    ],
)
def test_limits(tmp_path: Path, limits: Limits, says: str) -> None:
    with pytest.raises(ArchiveError, match=says):
        unpack_tar(archive(("a", b"12345"), ("bbbb", b"123456")), tmp_path, limits)


def test_what_is_no_archive_or_holds_nothing(tmp_path: Path) -> None:
    for content in (b"", b"hello" * 500, b"\x1f\x8b" + b"\0" * 40):
        with pytest.raises(ArchiveError, match=r"truncated or damaged|no files"):
            unpack_tar(io.BytesIO(content), tmp_path)
    with pytest.raises(ArchiveError, match="no files"):
        unpack_tar(archive(special("d", tarfile.DIRTYPE)), tmp_path)


WHOLE = archive(*[(f"vllm-1/{i}.py", bytes([i]) * 700) for i in range(9)]).getvalue()


@settings(max_examples=60, deadline=None)
@given(data=st.data())
def test_a_truncated_or_altered_archive_never_unpacks_as_something_else(
    tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    """gzip and tar both have checksums: damage shows, or it hit something without meaning."""
    damaged = bytearray(WHOLE[: data.draw(st.integers(0, len(WHOLE)))])
    if damaged and data.draw(st.booleans()):
        position = data.draw(st.integers(0, len(damaged) - 1))
        damaged[position] ^= 1 << data.draw(st.integers(0, 7))
    whole, found = tmp_path_factory.mktemp("whole"), tmp_path_factory.mktemp("found")
    unpack_tar(io.BytesIO(WHOLE), whole)
    try:
        unpack_tar(io.BytesIO(bytes(damaged)), found)
    except ArchiveError:
        return
    assert files_in(found) == files_in(whole)
