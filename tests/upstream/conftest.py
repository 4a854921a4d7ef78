from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from made_upstream import index_of, pinned_workspace, write_tree

from trackrecord.upstream.index.query import Index
from trackrecord.upstream.pin import Tree, find_pin
from trackrecord.workspace import Workspace


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A cache folder of the test's own."""
    folder = tmp_path / "cache"
    monkeypatch.setenv("TRACKRECORD_CACHE", str(folder))
    return folder


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """The made tree, to be changed at will."""
    return write_tree(tmp_path / "tree")


@pytest.fixture
def workspace(tmp_path: Path, tree: Path, cache: Path) -> Workspace:
    """A workspace whose default pin is the made tree; not indexed yet."""
    return pinned_workspace(tmp_path / "workspace", tree)


@pytest.fixture(scope="session")
def index(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Index]:
    """The index of the made tree, for tests that only ask."""
    folder = tmp_path_factory.mktemp("made")
    with index_of(write_tree(folder / "tree"), folder / "index.sqlite") as made:
        yield made


@pytest.fixture(scope="session")
def real_tree() -> Tree:
    """The pinned release itself, which `make test-upstream` brings to this machine."""
    return Tree.open(find_pin(Workspace.open("no-workspace")))


@pytest.fixture(scope="session")
def real_index(real_tree: Tree, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Index]:
    """The index of the pinned release, made for the session."""
    from trackrecord.upstream.index.build import build_index

    path = tmp_path_factory.mktemp("real") / "index.sqlite"
    build_index(real_tree.root, path, real_tree.pin.name)
    with Index.open_at(path, real_tree) as made:
        yield made
