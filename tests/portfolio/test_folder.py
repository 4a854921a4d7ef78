"""A portfolio is put in place as a whole, and never over anything else."""

from __future__ import annotations

import os

import pytest

from mini_vllm.errors import InvalidInputError
from trackrecord.portfolio.folder import MARKER, portfolio_folder, write_files


def build(out, **files):
    with portfolio_folder(out) as folder:
        write_files(folder, {name: text.encode() for name, text in files.items()})


def test_files_appear_together_with_the_marker(tmp_path):
    out = tmp_path / "new" / "portfolio"
    with portfolio_folder(out) as folder:
        write_files(folder, {"index.html": b"x", "plots/a.svg": b"y"})
        assert not out.exists()
    assert (out / "index.html").read_bytes() == b"x"
    assert (out / "plots" / "a.svg").read_bytes() == b"y"
    assert (out / MARKER).is_file()
    assert [path.name for path in out.parent.iterdir()] == ["portfolio"]


def test_a_portfolio_is_replaced_whole(tmp_path):
    out = tmp_path / "portfolio"
    build(out, old="1")
    build(out, new="2")
    assert {path.name for path in out.iterdir()} == {"new", MARKER}
    assert os.listdir(tmp_path) == ["portfolio"]


def test_an_empty_folder_may_be_used(tmp_path):
    build(tmp_path / "portfolio", a="1")
    (tmp_path / "empty").mkdir()
    build(tmp_path / "empty", a="1")
    assert (tmp_path / "empty" / "a").exists()


def test_a_failure_leaves_the_old_one_and_nothing_else(tmp_path):
    out = tmp_path / "portfolio"
    build(out, old="1")

    def fail():
        with portfolio_folder(out) as folder:
            (folder / "half").write_text("2")
            raise RuntimeError("half-way")

    with pytest.raises(RuntimeError, match="half-way"):
        fail()
    assert (out / "old").read_text() == "1"
    assert os.listdir(tmp_path) == ["portfolio"]


def test_a_failing_swap_puts_the_old_one_back(tmp_path, monkeypatch):
    out = tmp_path / "portfolio"
    build(out, old="1")
    rename, calls = os.rename, []

    def second_fails(source, target):
        calls.append(source)
        if len(calls) == 2:
            raise OSError("no")
        rename(source, target)

    monkeypatch.setattr(os, "rename", second_fails)
    with pytest.raises(OSError, match="no"):
        build(out, new="2")
    assert (out / "old").read_text() == "1"
    assert os.listdir(tmp_path) == ["portfolio"]


@pytest.mark.parametrize("kind", ["folder", "file"])
def test_something_else_is_refused_before_any_work(tmp_path, kind):
    out = tmp_path / "thesis"
    if kind == "file":
        out.write_text("mine")
    else:
        out.mkdir()
        (out / "chapter").write_text("mine")
    with pytest.raises(InvalidInputError, match=r"is a file|is not a portfolio"):
        portfolio_folder(out).__enter__()
    assert os.listdir(tmp_path) == ["thesis"]
    assert (out if kind == "file" else out / "chapter").read_text() == "mine"


def test_what_became_something_else_meanwhile_is_kept(tmp_path):
    out = tmp_path / "portfolio"

    def meanwhile():
        with portfolio_folder(out):
            out.mkdir()
            (out / "mine").write_text("1")

    with pytest.raises(InvalidInputError, match="is not a portfolio"):
        meanwhile()
    assert (out / "mine").read_text() == "1"
    assert os.listdir(tmp_path) == ["portfolio"]


def test_a_link_to_a_portfolio_is_followed(tmp_path):
    build(tmp_path / "real", old="1")
    (tmp_path / "link").symlink_to(tmp_path / "real")
    build(tmp_path / "link", new="2")
    assert (tmp_path / "link").is_symlink()
    assert (tmp_path / "real" / "new").exists()


def test_a_place_that_cannot_be_written_is_refused(tmp_path):
    (tmp_path / "file").write_text("")
    with (
        pytest.raises(InvalidInputError, match="cannot write"),
        portfolio_folder(tmp_path / "file" / "portfolio"),
    ):
        pass


def test_a_page_cannot_write_outside(tmp_path):
    with pytest.raises(ValueError, match="outside the portfolio"):
        build(tmp_path / "portfolio", **{"../escaped": "1"})
    assert os.listdir(tmp_path) == []
