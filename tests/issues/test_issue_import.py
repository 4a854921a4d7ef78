"""Files of JSON lines: what can be used is kept, what cannot is named by its line."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from store_contents import contents

from trackrecord.issues import importer
from trackrecord.issues.errors import IssuesError
from trackrecord.issues.importer import import_file, repository_of
from trackrecord.issues.store import Store
from trackrecord.issues.terms import refresh

URL = "https://github.com/acme/engine/issues/1"
LINES: list[dict[str, Any]] = [
    {"type": "issue", "data": {"number": 1, "title": "Crash", "html_url": URL}},
    {
        "type": "pull",
        "data": {"number": 2, "body": "Fixes #1", "files": [{"filename": "a.py"}], "merged": True},
    },
    {"type": "comment", "issue": 1, "data": {"user": {"login": "a"}, "body": "+1"}},
    {"type": "comment", "issue": 1, "data": {"user": {"login": "a"}, "body": "+1"}},
    {
        "type": "timeline",
        "issue": 1,
        "data": [
            {
                "event": "cross-referenced",
                "actor": {"login": "b"},
                "created_at": "2026-01-01T00:00:00Z",
                "source": {
                    "issue": {
                        "number": 2,
                        "pull_request": {},
                        "repository": {"full_name": "acme/engine"},
                    }
                },
            },
            {"event": "commented", "body": "+1"},
        ],
    },
]


@pytest.fixture(name="store")
def _store(tmp_path: Path) -> Store:
    return Store.open(tmp_path / "s.sqlite", "acme/engine", create=True)


def written(folder: Path, lines: list[Any]) -> Path:
    path = folder / "threads.jsonl"
    path.write_bytes(
        b"\n".join(x if isinstance(x, bytes) else json.dumps(x).encode() for x in lines)
    )
    return path


def test_every_type_of_line_is_kept(store: Store, tmp_path: Path) -> None:
    done = import_file(store, written(tmp_path, LINES))
    assert done.problems == []
    assert done.records == {"issue": 1, "pull": 1, "comment": 2, "timeline": 1}
    assert store.counts() == {"issues": 1, "pulls": 1, "comments": 2, "events": 1}
    pull = store.pull(2)
    assert pull is not None
    assert (pull.files, pull.merged) == (("a.py",), True)
    assert {link.kind for link in store.pulls_mentioning(1)} == {"closes", "cross-referenced"}


def test_importing_twice_is_importing_once(store: Store, tmp_path: Path) -> None:
    path = written(tmp_path, LINES)
    import_file(store, path)
    refresh(store)
    before = contents(store)
    import_file(store, path)
    refresh(store)
    assert contents(store) == before


def test_an_issue_that_is_a_pull_request_is_kept_as_one(store: Store, tmp_path: Path) -> None:
    listed = {"number": 3, "pull_request": {"merged_at": "2026-01-01T00:00:00Z"}}
    import_file(store, written(tmp_path, [{"type": "issue", "data": listed}]))
    assert store.pull(3).merged is True  # type: ignore[union-attr]


@pytest.mark.parametrize(
    ("line", "problem"),
    [
        (b"not json", "not JSON at column 1"),
        (b'{"type": "issue"', "not JSON"),
        (b"\xff\xfe\x00", "not UTF-8 at byte 1"),
        (b"[" * 100_000, "nested too deep"),
        (b'{"type": "issue", "data": {"number": ' + b"9" * 5000 + b"}}", "number too long"),
        (b"[1, 2]", "not an object"),
        ({"type": "wiki", "data": {}}, "type must be"),
        ({"type": "issue", "data": []}, "data must be an object"),
        ({"type": "issue", "data": {"title": "x"}}, "number must be"),
        ({"type": "comment", "data": {"body": "x"}}, "issue must be"),
        ({"type": "timeline", "issue": 1, "data": {"event": "closed"}}, "a timeline must be"),
    ],
)
def test_a_bad_line_is_named_and_the_others_are_kept(
    line: Any, problem: str, store: Store, tmp_path: Path
) -> None:
    done = import_file(store, written(tmp_path, [LINES[0], line, LINES[1]]))
    assert len(done.problems) == 1
    assert done.problems[0].startswith("line 2: ")
    assert problem in done.problems[0]
    assert store.counts() == {"issues": 1, "pulls": 1, "comments": 0, "events": 0}


def test_a_line_beyond_all_measure_is_skipped_unread(
    store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(importer, "MAX_LINE_BYTES", 1000)
    long = {"type": "issue", "data": {"number": 5, "title": "x" * 5000}}
    done = import_file(store, written(tmp_path, [LINES[0], long, LINES[1]]))
    assert done.problems == ["line 2: longer than 1000 bytes"]
    assert store.counts()["pulls"] == 1


def test_a_body_of_a_megabyte_is_kept_whole(store: Store, tmp_path: Path) -> None:
    body = "#1 `x` Error: y\n" * 65_536
    import_file(store, written(tmp_path, [{"type": "issue", "data": {"number": 1, "body": body}}]))
    refresh(store)
    assert store.issue(1).body == body  # type: ignore[union-attr]


def test_the_repository_is_read_off_the_addresses(tmp_path: Path) -> None:
    assert repository_of(written(tmp_path, [b"junk", LINES[1], LINES[0]])) == "acme/engine"
    assert repository_of(written(tmp_path, [b"junk", LINES[1]])) is None


def test_a_file_that_is_not_there(store: Store, tmp_path: Path) -> None:
    with pytest.raises(IssuesError, match="No such file"):
        import_file(store, tmp_path / "none.jsonl")
    with pytest.raises(IssuesError, match="cannot read"):
        repository_of(tmp_path)
