"""Bringing a tree here: every way ends with a confirmed commit, or leaves what was there."""

from __future__ import annotations

import hashlib
import tarfile
from dataclasses import replace
from pathlib import Path

import pytest
from made_upstream import CODE, COMMIT, PIN, git, git_repository, write_tree

from trackrecord.errors import FetchError, UpstreamError
from trackrecord.upstream import fetch, package_index
from trackrecord.upstream.package_index import PipSettings
from trackrecord.upstream.pin import Pin, Tree, add_pin, find_pin, known_pins
from trackrecord.workspace import Workspace


def silent(_what: str, _done: int, _total: int) -> None:
    pass


def source_distribution(folder: Path, tree: Path) -> Path:
    path = folder / "vllm-1.0.tar.gz"
    with tarfile.open(path, "w:gz") as tar:
        tar.add(tree, "vllm-1.0")
    return path


def same_files(tree: Tree, folder: Path) -> bool:
    return all((tree.root / name).read_text() == (folder / name).read_text() for name in CODE)


def test_a_source_distribution_is_confirmed_by_its_version_file(
    tmp_path: Path, tree: Path, cache: Path
) -> None:
    made = fetch.bring_archive(PIN, source_distribution(tmp_path, tree), silent)
    assert made.root == cache / "upstream" / "made-1.0"
    assert same_files(made, tree)
    assert made.manifest["confirmed_by"] == f"vllm/_version.py: {COMMIT[:9]}"
    assert Tree.open(PIN).manifest == made.manifest
    assert [p.name for p in (cache / "upstream").iterdir()] == ["made-1.0"]


def test_another_commit_is_refused_and_what_was_there_stays(
    tmp_path: Path, tree: Path, cache: Path
) -> None:
    kept = fetch.bring_folder(PIN, tree, silent)
    version = tree / "vllm" / "_version.py"
    for text, says in (("commit_id = 'gfeedbeef1'", "is commit feedbeef1"), ("", "does not say")):
        version.write_text(text)
        with pytest.raises(UpstreamError, match=says):
            fetch.bring_archive(PIN, source_distribution(tmp_path, tree), silent)
        with pytest.raises(UpstreamError, match=says):
            fetch.bring_folder(PIN, tree, silent)
    assert COMMIT[:9] in kept.read_text("vllm/_version.py")
    assert [p.name for p in (cache / "upstream").iterdir()] == ["made-1.0"]


def test_an_archive_that_is_not_the_pinned_one_is_not_even_opened(
    tmp_path: Path, tree: Path, cache: Path
) -> None:
    path = source_distribution(tmp_path, tree)
    exact = replace(
        PIN, size=path.stat().st_size, sha256=hashlib.sha256(path.read_bytes()).hexdigest()
    )
    fetch.bring_archive(exact, path, silent)
    path.write_bytes(path.read_bytes()[:-10])
    with pytest.raises(UpstreamError, match="expected"):
        fetch.bring_archive(exact, path, silent)
    with pytest.raises(UpstreamError, match="truncated or damaged"):
        fetch.bring_archive(PIN, path, silent)
    with pytest.raises(UpstreamError, match="cannot read"):
        fetch.bring_archive(PIN, tmp_path / "nothing.tar.gz", silent)


def index_on_disk(folder: Path, archive: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    page = folder / "simple" / "vllm" / "index.html"
    page.parent.mkdir(parents=True)
    page.write_text(f'<a href="{archive.as_uri()}">{archive.name}</a>')
    settings = PipSettings(((folder / "simple").as_uri(),))
    monkeypatch.setattr(package_index, "pip_settings", lambda: settings)


def test_a_release_comes_from_the_package_index(
    tmp_path: Path, tree: Path, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    archive = source_distribution(tmp_path, tree)
    index_on_disk(tmp_path, archive, monkeypatch)
    seen: list[str] = []
    made = fetch.bring_release(PIN, lambda what, *_: seen.append(what))
    assert same_files(made, tree)
    assert made.manifest["sha256"] == hashlib.sha256(archive.read_bytes()).hexdigest()
    assert list(dict.fromkeys(seen)) == ["downloading", "unpacking"]
    with pytest.raises(FetchError, match="is not the file it should be"):
        fetch.bring_release(replace(PIN, sha256="0" * 64), silent)


def test_another_version_is_pinned_to_what_its_archive_says(
    tmp_path: Path, tree: Path, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    index_on_disk(tmp_path, source_distribution(tmp_path, tree), monkeypatch)
    other = replace(PIN, name="vllm-0.9", version="0.9", commit="feedbeef1")
    made = fetch.bring_version(other, "1.0", "", silent)
    assert (made.pin.name, made.pin.tag) == ("vllm-1.0", "v1.0")
    assert made.pin.commit == COMMIT[:9]
    assert made.pin.sha256
    with pytest.raises(UpstreamError, match="is commit"):
        fetch.bring_version(other, "1.0", "abcdef123", silent)


def test_a_git_repository_is_read_at_the_tag_and_the_commit_checked(
    tree: Path, cache: Path
) -> None:
    commit = git_repository(tree)
    (tree / "vllm" / "logger.py").write_text("changed = True\n")
    pin = replace(PIN, commit=commit[:10])
    made = fetch.bring_git(pin, str(tree), silent)
    assert made.read_text("vllm/logger.py") == CODE["vllm/logger.py"]
    assert made.manifest["confirmed_by"] == f"git: {commit}"
    with pytest.raises(UpstreamError, match=f"is {commit}, not"):
        fetch.bring_git(PIN, str(tree), silent)
    with pytest.raises(FetchError, match="git failed"):
        fetch.bring_git(replace(pin, tag="v9"), str(tree), silent)
    with pytest.raises(UpstreamError, match="not a git repository"):
        fetch.bring_git(pin, "--upload-pack=touch x", silent)
    with pytest.raises(FetchError):
        fetch.bring_git(pin, "ext::sh -c 'touch owned'", silent)
    assert Tree.open(pin).manifest == made.manifest


def test_a_repository_cannot_make_git_run_anything(tree: Path, cache: Path, tmp_path: Path) -> None:
    trace = tmp_path / "ran"
    (tree / ".gitattributes").write_text("*.py filter=evil\n")
    commit = git_repository(tree)
    git(tree, "config", "filter.evil.smudge", f"touch {trace}; cat")
    git(tree, "config", "core.fsmonitor", f"touch {trace}")
    git(tree, "config", "tar.tar.command", f"touch {trace}")
    hook = tree / ".git" / "hooks" / "post-checkout"
    hook.parent.mkdir(exist_ok=True)
    hook.write_text(f"#!/bin/sh\ntouch {trace}\n")
    hook.chmod(0o755)
    fetch.bring_git(replace(PIN, commit=commit), str(tree), silent)
    assert not trace.exists()


def test_a_folder_is_copied_without_links_and_version_control(
    tree: Path, cache: Path, tmp_path: Path
) -> None:
    (tmp_path / "secret").write_text("secret")
    (tree / "vllm" / "link.py").symlink_to(tmp_path / "secret")
    (tree / "vllm" / "folder").symlink_to(tmp_path)
    (tree / "vllm" / "_version.py").unlink()
    commit = git_repository(tree, tag="")
    made = fetch.bring_folder(replace(PIN, commit=commit), tree, silent)
    names = {p.relative_to(made.root).as_posix() for p in made.root.rglob("*")}
    assert "vllm/logger.py" in names
    assert not {"vllm/link.py", "vllm/folder", ".git"} & names
    assert made.manifest["confirmed_by"] == f"HEAD: {commit}"
    with pytest.raises(UpstreamError, match="no folder"):
        fetch.bring_folder(PIN, tmp_path / "nothing", silent)


def test_a_failure_half_way_leaves_what_was_there(
    tree: Path, cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fetch.bring_folder(PIN, tree, silent)

    def breaks(*_: object) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        fetch.bring_archive(PIN, source_distribution(tmp_path, tree), breaks)
    assert same_files(Tree.open(PIN), tree)
    assert [p.name for p in (cache / "upstream").iterdir()] == ["made-1.0"]


def test_a_tree_without_its_manifest_was_not_fetched(cache: Path) -> None:
    write_tree(PIN.tree_path)
    with pytest.raises(UpstreamError, match="upstream pin"):
        Tree.open(PIN)


@pytest.mark.parametrize("name", ["/etc/passwd", "../x", "vllm/../../x"])
def test_a_tree_reads_nothing_outside_of_itself(tree: Path, name: str) -> None:
    with pytest.raises(UpstreamError, match="not a path inside"):
        Tree(tree, PIN).read_text(name)


# Pins.


def test_the_shipped_pin_is_complete() -> None:
    default, pins = known_pins(Workspace.open("nowhere"))
    pin = pins[default]
    assert (pin.version, pin.size) == ("0.22.1", 36_246_058)
    assert len(pin.sha256) == 64
    assert pin.url("a.py", 3) == "https://github.com/vllm-project/vllm/blob/v0.22.1/a.py#L3"


def test_pins_of_a_workspace_stand_beside_the_shipped_one(tmp_path: Path) -> None:
    workspace = Workspace.open(tmp_path / "w")
    add_pin(workspace, PIN)
    add_pin(workspace, replace(PIN, commit="feedbeef1"))
    assert find_pin(workspace).name == "vllm-0.22.1"
    assert find_pin(workspace, "made-1.0").commit == "feedbeef1"
    assert find_pin(workspace, "v0.22.1") == find_pin(workspace, "0.22.1")
    with pytest.raises(UpstreamError, match="no pin '7': known are"):
        find_pin(workspace, "7")


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("x = [", "pins.toml: "),
        ("pins = 5", "pins = 5 is no table"),
        ("[pins]\nx = 5", "pin 'x' is no table: write"),
        ("default = 5", "default = 5 is not the name"),
        ('[pins.a]\nproject = "vllm"', "needs project, version"),
        ("[pins.a]\nproject = 3", "cannot use project = 3"),
        ('[pins.a]\nsurprise = "x"', "cannot use surprise"),
        (
            '[pins."../x"]\nproject="p"\nversion="1"\nrepository="a/b"\ncommit="0123456"',
            "name '../x' is not",
        ),
        ('[pins.a]\nproject="p"\nversion="1"\nrepository="a/b"\ncommit="--evil"', "commit"),
    ],
)
def test_a_pins_file_that_cannot_be_used_says_why(tmp_path: Path, text: str, says: str) -> None:
    (tmp_path / "pins.toml").write_text(text)
    with pytest.raises(UpstreamError, match=says):
        known_pins(Workspace.open(tmp_path))


def test_every_field_survives_being_written(tmp_path: Path) -> None:
    pin = Pin("a-1", "a", "1", "x/y", "0123abc", 'v"1', "v.py", 5, "0" * 64)
    workspace = Workspace.open(tmp_path)
    add_pin(workspace, pin)
    assert known_pins(workspace)[1]["a-1"] == pin
