"""What the data of a journal's entry must be, for whoever shows or quotes it.

A hash says that an entry is the one that was written, not that this program wrote it: a line made
by hand can have the right hash and any data.

Invariant: an entry without a complaint has every value that the descriptions, lists and pages made
from the journal read, of the type and in the range that they read it with. More may be in it.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from trackrecord.errors import WorkspaceError

if TYPE_CHECKING:
    from trackrecord.pr.journal import Entry

_LARGEST = 1e18
Check = Callable[[Any], bool]


def checked(entries: Sequence[Entry]) -> Sequence[Entry]:
    """`entries`, if all of them can be shown.

    Raises:
        WorkspaceError: one cannot; names it and what is wrong with it.
    """
    for entry in entries:
        if problem := wrong_with(entry):
            raise WorkspaceError(
                f"entry {entry.name} of the journal was not written by trackrecord: {problem}: "
                f"move the journal's folder away to begin a new one"
            )
    return entries


def wrong_with(entry: Entry) -> str:
    """What about an entry is not as this program writes it, in words; "" where nothing is."""
    # What a line of the file said, so no type of `Entry` holds yet.
    at: object = entry.at
    kind: object = entry.kind
    if not isinstance(at, str):
        return f"at is {at!r}"
    if not isinstance(kind, str) or kind not in _KINDS:
        return f"kind is {kind!r}"
    try:
        json.dumps(entry.data, allow_nan=False)
    except (ValueError, RecursionError):
        return "a number in it is none, or it is nested too deeply"
    needed, more = _KINDS[kind]
    if kind == "run" and entry.data.get("role") != "hooks":
        needed = needed | _OUTPUT
    return _wrong_values(entry.data, needed, more)


def _wrong_values(
    data: Mapping[str, Any], needed: Mapping[str, Check], more: Mapping[str, Check]
) -> str:
    for key, fits in needed.items():
        if key not in data:
            return f"{key} is missing"
        if not fits(data[key]):
            return f"{key} is {str(data[key])[:60]!r}"
    wrong = (key for key, fits in more.items() if key in data and not fits(data[key]))
    return next((f"{key} is {str(data[key])[:60]!r}" for key in wrong), "")


def _text(value: Any) -> bool:
    return isinstance(value, str)


def _texts(value: Any) -> bool:
    return isinstance(value, list) and all(isinstance(item, str) for item in value)


def _truth(value: Any) -> bool:
    return isinstance(value, bool)


def _count(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and abs(value) < _LARGEST


def _number(value: Any) -> bool:
    return _count(value) or (isinstance(value, float) and abs(value) < _LARGEST)


def _numbers(value: Any) -> bool:
    return isinstance(value, list) and all(map(_number, value))


def _machine(value: Any) -> bool:
    more = {"cpu": _text, "python": _text, "gpus": _texts}
    return isinstance(value, dict) and not _wrong_values(value, {}, more)


def _side(value: Any) -> bool:
    needed = {"commit": _text, "median": _number, "samples": _numbers}
    return isinstance(value, dict) and not _wrong_values(value, needed, {})


def _effect(value: Any) -> bool:
    needed = {"ratio": _number, "low": _number, "high": _number, "pairs": _count, "verdict": _text}
    return (
        isinstance(value, dict)
        and value.keys() == needed.keys()
        and not _wrong_values(value, needed, {})
    )


_OUTPUT: dict[str, Check] = {"seconds": _number, "output_sha256": _text, "tail": _text}
_KINDS: dict[str, tuple[dict[str, Check], dict[str, Check]]] = {
    "run": (
        {"command": _texts, "role": _text, "exit_code": _count, "commit": _text, "dirty": _truth},
        {
            "seconds": _number,
            "output_sha256": _text,
            "tail": _text,
            "base": _text,
            "failed": _texts,
            "environment": _machine,
        },
    ),
    "bench": (
        {
            "command": _texts,
            "unit": _text,
            "metric": _text,
            "effect": _effect,
            "before": _side,
            "after": _side,
        },
        {"commit": _text, "dirty": _truth, "environment": _machine},
    ),
    "statement": (
        {"what": _text},
        dict.fromkeys(("value", "rule", "by", "branch", "commit"), _text),
    ),
}
"""By kind: what has to be there, and what may be, each with what it has to be."""
