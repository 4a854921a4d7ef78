"""A grid over a scenario: `tp=1,2,4` as changes to the file, a point each.

Invariant: a point is the scenario's own document with some keys set, read as any file is, so that
every check applies; the order of the points is that of nested loops, the first axis outermost.
"""

from __future__ import annotations

import copy
import difflib
import itertools
import math
import tomllib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any

from mini_vllm.errors import InvalidInputError
from mini_vllm.sim.deployment import Deployment
from mini_vllm.sim.scenario import Disaggregation, Engine, Price, Speculation
from mini_vllm.sim.traffic import Lengths, Tenant

MOST_POINTS = 4096
Value = bool | int | float | str
Path = tuple[str | int, ...]

_KINDS = {"int": "a whole number", "float": "a number", "bool": "true or false", "str": "a text"}


@dataclass(frozen=True)
class Axis:
    """One `--grid`.

    Args:
        name: as the caller wrote it.
        key: as the scenario's errors name it, `deployment.tp` or `traffic[1].rate`.
        path: where it is in the document.
    """

    name: str
    key: str
    path: Path
    values: tuple[Value, ...]


def parse_grid(texts: Sequence[str], document: Mapping[str, Any]) -> tuple[Axis, ...]:
    """The axes of `KEY=V1,V2,...` texts, for this document.

    Raises:
        InvalidInputError: a key that is unknown, ambiguous or given twice; a value that is missing,
            repeated or of the wrong type; more than `MOST_POINTS` points.
    """
    known = _known_keys(document)
    axes: list[Axis] = []
    for text in texts:
        name, equals, listed = text.partition("=")
        name = name.strip()
        if not equals or not name:
            raise InvalidInputError(f"--grid {text}: write KEY=V1,V2,...", "grid")
        key = _full_key(name, known)
        if any(axis.key == key for axis in axes):
            raise InvalidInputError(f"--grid {name}: {key} is given twice", "grid")
        path, kind = known[key]
        axes.append(Axis(name, key, path, _values(name, kind, listed)))
    count = math.prod(len(axis.values) for axis in axes)
    if count > MOST_POINTS:
        raise InvalidInputError(
            f"--grid: {count:,} points are too many (at most {MOST_POINTS:,}); take fewer values",
            "grid",
        )
    return tuple(axes)


def points(axes: Sequence[Axis]) -> Iterator[tuple[Value, ...]]:
    """The values of each point, in grid order."""
    return itertools.product(*(axis.values for axis in axes))


def changed(
    document: Mapping[str, Any], axes: Sequence[Axis], values: Sequence[Value]
) -> dict[str, Any]:
    """The document with the point's values set; what they leave alone is shared with the original.

    Raises:
        InvalidInputError: what should be a table is none.
    """
    found: Any = dict(document)
    for axis, value in zip(axes, values, strict=True):
        found = _with(found, axis.path, value, axis.key)
    return dict(found)


def _with(place: Any, path: Path, value: Value, key: str) -> Any:
    """`place` with `value` at the end of `path`, copied along the way and nowhere else: a list of
    observed lengths is as long as it likes, and there are thousands of points."""
    if not path:
        return value
    step, *rest = path
    if not isinstance(place, dict | list):
        raise InvalidInputError(f"{key}: {step} needs a table to be in", key)
    copied: Any = copy.copy(place)
    inner = place.get(step, {}) if isinstance(place, dict) else place[int(step)]
    copied[step] = _with(inner, tuple(rest), value, key)
    return copied


def _full_key(name: str, known: Mapping[str, tuple[Path, str]]) -> str:
    """The key that `name` is or, if only one does, ends."""
    if name in known:
        return name
    ending = [key for key in known if key.endswith(f".{name}")]
    if len(ending) > 1:
        raise InvalidInputError(
            f"--grid {name}: could be {', '.join(ending)}; write one of them", "grid"
        )
    if not ending:
        short = {key.rpartition(".")[2]: key for key in known}
        close = difflib.get_close_matches(name.rpartition(".")[2], short, 1)
        hint = f"did you mean {short[close[0]]}?" if close else "write it as in deployment.tp"
        raise InvalidInputError(f"--grid {name}: a scenario has no such key; {hint}", "grid")
    return ending[0]


def _values(name: str, kind: str, listed: str) -> tuple[Value, ...]:
    found: list[Value] = []
    for text in listed.split(","):
        text = text.strip()
        if not text:
            raise InvalidInputError(f"--grid {name}: a value is missing in {listed!r}", "grid")
        value = _scalar(text)
        if kind == "str":
            value = value if isinstance(value, str) else text
        elif not _is(value, kind):
            raise InvalidInputError(f"--grid {name}: {text!r} is not {_KINDS[kind]}", "grid")
        if value in found:
            raise InvalidInputError(f"--grid {name}: {text} is given twice", "grid")
        found.append(value)
    return tuple(found)


def _scalar(text: str) -> Value:
    """`text` as TOML reads it behind an equals sign; as it stands where that fails."""
    try:
        read = tomllib.loads(f"value = {text}")
    except tomllib.TOMLDecodeError:
        return text
    value = read.get("value")
    return value if len(read) == 1 and isinstance(value, bool | int | float | str) else text


def _is(value: Value, kind: str) -> bool:
    if kind == "bool" or isinstance(value, bool):
        return kind == "bool" and isinstance(value, bool)
    if kind == "int":
        return isinstance(value, int)
    return isinstance(value, int | float) and math.isfinite(value)


def _known_keys(document: Mapping[str, Any]) -> dict[str, tuple[Path, str]]:
    """(path, type) of every key that a scenario may have, by its full name."""
    found: dict[str, tuple[Path, str]] = {
        "model": (("model",), "str"),
        "requests": (("requests",), "int"),
        "seed": (("seed",), "int"),
    }

    def add(where: str, path: Path, kinds: Mapping[str, str]) -> None:
        found.update({f"{where}.{name}": ((*path, name), kind) for name, kind in kinds.items()})

    placing = {"gpu": "str", "replicas": "int", "router": "str"}
    apart = {"link_gb_s": "float", "latency_ms": "float"}
    bounds = dict.fromkeys(("ttft_ms", "tpot_ms", "e2e_ms", "attainment"), "float")
    for name, kinds in (
        ("deployment", {**_kinds(Deployment), **placing}),
        ("engine", _kinds(Engine)),
        ("cost", {"model": "str", "file": "str"}),
        ("speculation", _kinds(Speculation)),
        ("disaggregation", {**_kinds(Disaggregation), **apart}),
        ("slo", bounds),
        ("price", _kinds(Price)),
    ):
        add(name, (name,), kinds)
    for where, path, entry in _traffic(document.get("traffic")):
        add(where, path, {**_kinds(Tenant), "prompt": "int", "output": "int"})
        for name in ("prompt", "output"):
            if isinstance(entry.get(name), dict):
                add(f"{where}.{name}", (*path, name), _kinds(Lengths))
    return found


def _traffic(given: Any) -> Iterator[tuple[str, Path, Mapping[str, Any]]]:
    """(name, path, table) of each kind of traffic; a single one needs no number."""
    if isinstance(given, dict):
        yield "traffic", ("traffic",), given
    elif isinstance(given, list):
        for number, entry in enumerate(given):
            if isinstance(entry, dict):
                where = f"traffic[{number}]" if len(given) > 1 else "traffic"
                yield where, ("traffic", number), entry


def _kinds(kind: type) -> dict[str, str]:
    """The fields of a dataclass that a single value can set, with their types."""
    return {entry.name: str(entry.type) for entry in fields(kind) if str(entry.type) in _KINDS}
