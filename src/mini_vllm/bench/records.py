"""Result documents: dataclasses on this side, plain JSON on the other, and nothing in between.

Invariant: `from_json(type(record), to_json(record)) == record`, and `from_json` accepts nothing
that `to_json` could not have written, so that a hand-edited or foreign file is refused at the
door, with the place in it that is wrong.
"""

from __future__ import annotations

import math
import types
from dataclasses import asdict, is_dataclass
from typing import Any, TypeVar, get_args, get_origin, get_type_hints

from mini_vllm.errors import InvalidInputError

Record = TypeVar("Record")

_SCALARS = {str: "a text", int: "a whole number", bool: "true or false"}


def to_json(record: Any) -> dict[str, Any]:
    """`record`, a dataclass of dataclasses, lists, dicts and scalars, as plain JSON values."""
    return asdict(record)


def from_json(kind: type[Record], data: object, where: str = "document") -> Record:
    """The dataclass `kind` that `data` describes.

    Raises:
        InvalidInputError: naming the place in the document and what was expected there.
    """
    value: Record = _value(kind, data, where)
    return value


def _value(kind: Any, data: Any, where: str) -> Any:
    origin = get_origin(kind)
    if is_dataclass(kind):
        return _record(kind, data, where)
    if origin is types.UnionType:
        return _any_of(get_args(kind), data, where)
    if origin is list:
        _require(isinstance(data, list), where, "a list", data)
        (item_kind,) = get_args(kind)
        return [_value(item_kind, item, f"{where}[{i}]") for i, item in enumerate(data)]
    if origin is dict:
        _require(isinstance(data, dict), where, "an object", data)
        _, item_kind = get_args(kind)
        return {key: _value(item_kind, item, f"{where}.{key}") for key, item in data.items()}
    return _scalar(kind, data, where)


def _record(kind: Any, data: Any, where: str) -> Any:
    _require(isinstance(data, dict), where, "an object", data)
    hints = get_type_hints(kind)
    for name in hints:
        if name not in data:
            raise InvalidInputError(f"{where}.{name} is missing from the result document")
    for name in data:
        if name not in hints:
            raise InvalidInputError(f"{where}.{name} is not a field of a result document")
    return kind(
        **{name: _value(hint, data[name], f"{where}.{name}") for name, hint in hints.items()}
    )


def _any_of(kinds: tuple[Any, ...], data: Any, where: str) -> Any:
    """The first of `kinds` that takes `data`; the last one's complaint if none does."""
    if data is None and type(None) in kinds:
        return None
    *others, last = [kind for kind in kinds if kind is not type(None)]
    for kind in others:
        try:
            return _value(kind, data, where)
        except InvalidInputError:
            continue
    return _value(last, data, where)


def _scalar(kind: Any, data: Any, where: str) -> Any:
    if kind is float:
        _require(type(data) in (int, float) and math.isfinite(data), where, "a finite number", data)
    else:
        _require(type(data) is kind, where, _SCALARS[kind], data)
    return data


def _require(holds: bool, where: str, expected: str, data: Any) -> None:
    if not holds:
        shown = repr(data)
        shown = shown if len(shown) <= 60 else shown[:57] + "..."
        raise InvalidInputError(f"{where} must be {expected} in a result document, got {shown}")
