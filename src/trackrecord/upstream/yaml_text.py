"""YAML that upstream wrote: read without building objects, within limits, with line numbers.

Invariant: what comes back is made of dicts, lists, strings, numbers and None, and is finite and no
larger than the limit even where aliases are written out: a small file cannot stand for a huge one.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import yaml

MAX_CHARS = 2_000_000
MAX_VALUES = 500_000
_Loader: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


class YamlProblem(ValueError):
    """A YAML text that cannot be used; says why, on one line."""


def load_yaml(text: str) -> Any:
    """The document in `text`.

    Raises:
        YamlProblem: it is malformed, or too large, written out.
    """
    _check_size(text)
    try:
        document = yaml.load(text, Loader=_Loader)  # noqa: S506 - a safe loader
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        raise YamlProblem(_one_line(error)) from None
    _check_values(document)
    return document


def item_lines(text: str, key: str) -> list[int]:
    """The lines, counted from 1, on which the items of the top-level list `key` begin.

    Raises:
        YamlProblem: as `load_yaml`.
    """
    _check_size(text)
    try:
        root = yaml.compose(text, Loader=_Loader)
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        raise YamlProblem(_one_line(error)) from None
    if not isinstance(root, yaml.MappingNode):
        return []
    for name, value in root.value:
        if name.value == key and isinstance(value, yaml.SequenceNode):
            return [item.start_mark.line + 1 for item in value.value]
    return []


def strings(value: Any) -> list[str]:
    """`value` as a list of strings: a string alone is one, what is no string is left out."""
    if isinstance(value, str):
        return [value]
    return [item for item in value if isinstance(item, str)] if isinstance(value, list) else []


def text_of(value: Any) -> str:
    """`value` as text, "" unless it is a string or a number."""
    return str(value) if isinstance(value, str | int | float) else ""


def mapping(value: Any) -> dict[str, Any]:
    """`value` if it is a mapping, otherwise an empty one."""
    return value if isinstance(value, dict) else {}


def mappings(value: Any) -> list[dict[str, Any]]:
    """The mappings in a list; [] for anything else."""
    return [item for item in value if isinstance(item, dict)] if isinstance(value, list) else []


def with_tuples(value: Mapping[str, Any]) -> dict[str, Any]:
    """A stored JSON object with its lists as tuples, as a frozen dataclass wants them."""
    return {key: tuple(v) if isinstance(v, list) else v for key, v in value.items()}


def _check_size(text: str) -> None:
    if len(text) > MAX_CHARS:
        raise YamlProblem(f"too large: {len(text):,} characters")


def _check_values(document: Any) -> None:
    waiting, count = [document], 0
    while waiting:
        value = waiting.pop()
        inside = value.values() if isinstance(value, dict) else value
        if isinstance(value, dict | list):
            count += len(value)
            if count > MAX_VALUES:
                raise YamlProblem(f"stands for more than {MAX_VALUES:,} values")
            waiting += inside


def _one_line(error: Exception) -> str:
    mark = getattr(error, "problem_mark", None)
    problem = getattr(error, "problem", None) or str(error) or type(error).__name__
    where = f"line {mark.line + 1}: " if mark else ""
    return where + " ".join(str(problem).split())
