"""Threads for tests, written as people see them, put into a real store by the importer."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from trackrecord.issues.importer import import_file
from trackrecord.issues.store import Store

REPO = "vllm-project/vllm"
HOME = f"https://github.com/{REPO}"


def issue(number: int = 1, body: str = "It breaks.", **more: Any) -> dict[str, Any]:
    """An open issue by `reporter`, of the first of January 2026."""
    data = {
        "number": number,
        "title": "[Bug]: it breaks",
        "state": "open",
        "user": {"login": "reporter"},
        "created_at": "2026-01-01T00:00:00Z",
        "html_url": f"{HOME}/issues/{number}",
        "labels": [],
        "body": body,
    }
    labels = [{"name": name} for name in more.pop("labels", ())]
    return {"type": "issue", "data": data | {"labels": labels} | more}


def pull(number: int, body: str = "", **more: Any) -> dict[str, Any]:
    """An open pull request by `author`, of the first of February 2026."""
    data = {
        "number": number,
        "title": f"Pull request {number}",
        "state": "open",
        "merged": False,
        "user": {"login": "author"},
        "created_at": "2026-02-01T00:00:00Z",
        "updated_at": "2026-02-20T00:00:00Z",
        "html_url": f"{HOME}/pull/{number}",
        "body": body,
        "files": [{"filename": name} for name in more.pop("files", ())],
    }
    return {"type": "pull", "data": data | more}


def merged(number: int, body: str = "", day: str = "2026-02-10", **more: Any) -> dict[str, Any]:
    at = f"{day}T00:00:00Z"
    return pull(number, body, state="closed", merged=True, merged_at=at, closed_at=at, **more)


def says(user: str, day: str, body: str, number: int = 1, **more: Any) -> dict[str, Any]:
    """A comment of `user` on a day of 2026, written `02-10`."""
    data = {"user": {"login": user}, "created_at": f"2026-{day}T00:00:00Z", "body": body}
    return {"type": "comment", "issue": number, "data": data | more}


def events(*found: dict[str, Any], number: int = 1) -> dict[str, Any]:
    """A timeline; an event is `{"event": ..., "created_at": ...}`."""
    return {"type": "timeline", "issue": number, "data": list(found)}


def put(store: Store, folder: Path, *entries: dict[str, Any]) -> Store:
    """Imports `entries`, refusing none."""
    file = folder / "threads.jsonl"
    file.write_text("".join(json.dumps(entry) + "\n" for entry in entries), encoding="utf-8")
    done = import_file(store, file)
    assert not done.problems, done.problems
    return store


def store_of(folder: Path, *entries: dict[str, Any]) -> Store:
    """A new store in `folder` that holds `entries`."""
    store = Store.open(folder / "issues.sqlite", REPO, create=True)
    return put(store, folder, *entries)
