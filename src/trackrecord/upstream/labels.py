"""The labels that Mergify's rules would set on a pull request, from its files and title.

A condition may be true, false, or not knowable before there is a pull request (a check's result,
an approval). A label is predicted only where its rule is true whatever the unknowns are.

Source: Mergify's documentation, "Conditions"; regular expressions are searched for, not matched
from the start, and a list such as `files` satisfies an operator if any of its items does.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from trackrecord.upstream.yaml_text import item_lines, load_yaml, mapping, mappings, strings

LOCATIONS = (".github/mergify.yml", ".mergify.yml", ".mergify/config.yml")
_CONDITION = re.compile(
    r"(?P<not>[-¬]?)\s*(?P<count>#?)(?P<name>[a-z][\w-]*)\s*"
    r"(?:(?P<operator>~=|!=|==|>=|<=|=|:|>|<)\s*(?P<value>.*))?",
    re.DOTALL,
)
_LITERAL = re.compile(r"(?P<anchor>\^?)(?P<text>[\w/-]+)(?![*?{+])(?P<more>(?s:.*))")
"""The beginning of a regular expression that stands for itself, and what follows it."""


@dataclass(frozen=True)
class LabelRule:
    """A rule that sets labels or assigns people; `conditions` as in the file."""

    name: str
    line: int
    conditions: Any
    labels: tuple[str, ...]
    assignees: tuple[str, ...]


@dataclass(frozen=True)
class LabelHit:
    """What one rule would do, and the condition on a file or the title that set it off."""

    rule: str
    line: int
    labels: tuple[str, ...]
    assignees: tuple[str, ...]
    because: str


def read_rules(text: str) -> list[dict[str, Any]]:
    """The rules of a Mergify file that label or assign, ready to be stored as JSON.

    Raises:
        YamlProblem: the file is malformed.
    """
    rules = mappings(mapping(load_yaml(text)).get("pull_request_rules"))
    found = []
    for rule, line in zip(rules, item_lines(text, "pull_request_rules"), strict=False):
        actions = mapping(rule.get("actions"))
        labels = strings(mapping(actions.get("label")).get("add"))
        assignees = strings(mapping(actions.get("assign")).get("users"))
        if labels or assignees:
            name = str(rule.get("name", ""))
            conditions = _plain(rule.get("conditions"))
            found.append(
                {"name": name, "line": line, "conditions": conditions}
                | {"labels": labels, "assignees": assignees}
            )
    return found


def rule_from_json(value: Mapping[str, Any]) -> LabelRule:
    """A rule as `read_rules` stored it."""
    return LabelRule(
        value["name"],
        value["line"],
        value["conditions"],
        tuple(value["labels"]),
        tuple(value["assignees"]),
    )


def label_hits(
    rules: Sequence[LabelRule], paths: Sequence[str], title: str = "", base: str = "main"
) -> list[LabelHit]:
    """The rules that would act on a new pull request.

    Args:
        paths: the files that it changes.
        title: its title; "" satisfies no condition on one.
        base: the branch that it asks to be merged into.
    """
    facts: dict[str, Any] = {
        "files": list(paths),
        "title": title,
        "base": base,
        "label": [],
        "closed": False,
        "merged": False,
        "draft": False,
        "conflict": False,
    }
    hits = []
    for rule in rules:
        reasons: list[str] = []
        if _all(rule.conditions, facts, reasons) is True:
            because = next(iter(reasons), "")
            hits.append(LabelHit(rule.name, rule.line, rule.labels, rule.assignees, because))
    return hits


def _all(conditions: Any, facts: dict[str, Any], reasons: list[str]) -> bool | None:
    results = [_holds(c, facts, reasons) for c in conditions if c is not None]
    return False if False in results else None if None in results else True


def _any(conditions: Any, facts: dict[str, Any], reasons: list[str]) -> bool | None:
    results = [_holds(c, facts, reasons) for c in conditions if c is not None]
    return True if True in results else None if None in results else False


def _holds(condition: Any, facts: dict[str, Any], reasons: list[str]) -> bool | None:
    if isinstance(condition, dict):
        for key, inner in condition.items():
            items = inner if isinstance(inner, list) else [inner]
            if key == "or":
                return _any(items, facts, reasons)
            if key == "and":
                return _all(items, facts, reasons)
            if key == "not":
                result = _all(items, facts, [])
                return None if result is None else not result
        return None
    if not isinstance(condition, str):
        return None
    return _atom(condition, facts, reasons)


def _atom(condition: str, facts: dict[str, Any], reasons: list[str]) -> bool | None:
    found = _CONDITION.fullmatch(condition.strip())
    if not found or found["name"] not in facts or found["count"]:
        return None
    fact, operator, value = facts[found["name"]], found["operator"], (found["value"] or "").strip()
    negated = bool(found["not"]) != (operator == "!=")
    items = fact if isinstance(fact, list) else [fact]
    if operator is None:
        result = bool(fact)
    elif operator == "~=":
        try:
            result = any(_search(value, str(item)) for item in items)
        except re.error:
            return None
    elif operator in ("=", "==", "!=", ":"):
        result = any(str(item) == value for item in items)
    else:
        return None
    if result and not negated and found["name"] in ("files", "title"):
        reasons.append(condition.strip())
    return result != negated


def _search(pattern: str, text: str) -> bool:
    """`re.search`, without building the expression where its beginning rules the text out."""
    literal = None if "|" in pattern else _LITERAL.match(pattern)
    if literal and not literal["more"] and not literal["anchor"]:
        return literal["text"] in text
    if literal and literal["anchor"] and not text.startswith(literal["text"]):
        return False
    return re.search(pattern, text) is not None


def _plain(value: Any, depth: int = 0) -> Any:
    """Conditions with everything but strings, lists and mappings taken out, as JSON needs it."""
    if isinstance(value, str):
        return value
    if depth < 8 and isinstance(value, list):
        return [_plain(item, depth + 1) for item in value]
    if depth < 8 and isinstance(value, dict):
        return {str(key): _plain(item, depth + 1) for key, item in value.items()}
    return [] if depth == 0 else None
