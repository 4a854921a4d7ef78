"""What a store holds, in a form two stores can be compared in."""

from __future__ import annotations

from typing import Any

from trackrecord.issues.store import Store

TABLES = {
    "threads": "number",
    "files": "number, path",
    "comments": "id",
    "events": "number, position",
    "links": "number, place, target",
    "terms": "rowid",
    "cursors": "stream",
    "notes": "number",
}


def contents(store: Store, *, without: tuple[str, ...] = ()) -> dict[str, list[tuple[Any, ...]]]:
    """Every row of every table that says something, in order."""
    names = {name: order for name, order in TABLES.items() if name not in without}
    return {
        name: store.connection.execute(f"SELECT * FROM {name} ORDER BY {order}").fetchall()  # noqa: S608
        for name, order in names.items()
    }
