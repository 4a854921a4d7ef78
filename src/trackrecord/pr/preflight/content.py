"""What a branch changes: tests beside code, documents beside what users see, size, one purpose."""

from __future__ import annotations

import re
from collections.abc import Iterator
from itertools import combinations

from trackrecord.pr.gitrepo import Change
from trackrecord.pr.preflight.branch import Branch, is_code, is_doc, is_product
from trackrecord.pr.preflight.busywork import kind_of
from trackrecord.pr.preflight.findings import Finding, Level
from trackrecord.pr.preflight.surface import Name, SurfaceChange, surface_changes
from trackrecord.upstream.index.scan import is_test_path, module_of

_LIMIT = re.compile(r">\s*(\d+)\s*LOC excluding ([\w/]+)")
_RFC = re.compile(r"\bRFC\b[^\n]{0,80}(?:#\d+|/issues/\d+)|(?:#\d+|/issues/\d+)[^\n]{0,40}\bRFC\b")
_BUDGET = re.compile(r"`([\w./-]+\.md)` under \**(\d+) lines")
_LEFT_OUT = {
    "kernel": (("csrc/", "vllm/kernels/"), (".cu", ".cuh", ".hip")),
    "data": (("data/",), (".json", ".jsonl", ".csv", ".txt", ".lock", ".svg", ".jinja")),
    "config": ((".github/", ".buildkite/"), (".yaml", ".yml", ".toml", ".cfg", ".ini")),
    "test": (("tests/",), ()),
}
_COMMON = {"self", "None", "True", "False", "return", "import", "config", "logger", "torch"}
_IDENTIFIER = re.compile(r"\b[A-Za-z_][A-Za-z0-9_]{5,}\b")
_IMPORT = re.compile(r"^[ \t]*(?:from ([\w.]+) import \(?\s*(\w+)?|import ([\w.]+))", re.MULTILINE)
_AREA_DEPTH = 3


def check_tests_changed(branch: Branch) -> Iterator[Finding]:
    """Product code changes in substance, and no test does."""
    rule = branch.book.rules.get("tests")
    if rule is None:
        return
    code = [c for c in branch.changes if is_product(c.path) and _is_substantive(branch, c)]
    tests = [c for c in branch.changes if is_test_path(c.path) and c.status != "D" and c.added]
    if code and not tests:
        largest = max(code, key=lambda c: c.added + c.removed)
        yield rule.finding(
            f"{len(code)} source files change and no test does, {largest.path} most of all",
            path=largest.path,
            line=largest.first_line,
            fix="add a test that fails without the change, or state why none is needed: "
            "--waive tests=REASON",
        )


def _is_substantive(branch: Branch, change: Change) -> bool:
    if change.status == "D" or not (change.added or change.removed):
        return False
    return not kind_of(branch, change)


def check_docs(branch: Branch) -> Iterator[Finding]:
    """Something users can write is new, and no document says so."""
    rule = branch.book.rules.get("docs")
    if rule is None or any(is_doc(c.path) and c.added for c in branch.changes):
        return
    for item in surface_changes(branch):
        if item.added:
            yield rule.finding(
                f"{_list(item.added)} added, and nothing under docs/ changes",
                path=item.change.path,
                line=min(item.added.values()),
                fix="document it, or state why it needs none: --waive docs=REASON",
            )


def check_deprecation(branch: Branch) -> Iterator[Finding]:
    """Something users can write is gone."""
    rule = branch.book.rules.get("deprecation")
    if rule is None:
        return
    for item in surface_changes(branch):
        if item.removed and not _was_deprecated(branch, item):
            yield rule.finding(
                f"{_list(item.removed)} removed: users may rely on it",
                path=item.change.path,
                line=item.change.first_line,
                fix="deprecate it first, or say that it has been through the stages: "
                "--waive deprecation=REASON",
            )


def _was_deprecated(branch: Branch, item: SurfaceChange) -> bool:
    """Whether the old file speaks of deprecation beside every name that is removed."""
    lines = (branch.old_text(item.change) or "").splitlines()
    return all(
        re.search(r"deprecat", "\n".join(lines[max(0, line - 4) : line + 8]), re.IGNORECASE)
        for line in item.removed.values()
    )


def _list(names: dict[Name, int]) -> str:
    shown = [f"{name.kind} {name.name}" for name in sorted(names)]
    more = f" and {len(shown) - 4} more" if len(shown) > 4 else ""
    return ", ".join(shown[:4]) + more


def check_size(branch: Branch) -> Iterator[Finding]:
    """More lines than the guide lets pass without an RFC."""
    rule = branch.book.rules.get("size")
    quote = rule.sources[0].quote if rule else ""
    found = _LIMIT.search(quote)
    if rule is None or found is None:
        return
    limit, kinds = int(found[1]), found[2].split("/")
    lines = sum(c.added + c.removed for c in branch.changes if not _left_out(c.path, kinds))
    if lines > limit and not _RFC.search(branch.visible_body):
        yield rule.finding(
            f"{lines} lines change (without {', '.join(kinds)}), more than {limit}, and the "
            f"description names no RFC",
            fix="split it, or discuss the design first (`trackrecord rfc new`) and link the issue; "
            "--waive size=REASON if it is no architectural change",
        )


def _left_out(path: str, kinds: list[str]) -> bool:
    known = (_LEFT_OUT[kind] for kind in kinds if kind in _LEFT_OUT)
    return any(path.startswith(folders) or path.endswith(ends) for folders, ends in known)


def check_agent_guides(branch: Branch) -> Iterator[Finding]:
    """AGENTS.md and its guides have a budget of lines."""
    rule = branch.book.rules.get("agent-guides")
    budget = _BUDGET.search(rule.sources[0].quote) if rule else None
    if rule is None or budget is None:
        return
    for change in branch.changes:
        text = branch.new_text(change)
        lines = len(text.splitlines()) if text else 0
        if change.path == budget[1] and lines >= int(budget[2]):
            yield rule.finding(
                f"{change.path} has {lines} lines; it must stay under {budget[2]}",
                path=change.path,
                line=change.first_line,
            )


def check_one_purpose(branch: Branch) -> Iterator[Finding]:
    """Source files that nothing in the branch ties to the others."""
    rule = branch.book.rules.get("concise")
    if rule is None:
        return
    code = [c for c in branch.changes if is_code(c.path) and (c.added or c.removed)]
    groups = _connected(branch, code)
    if len(groups) < 2:
        return
    main = max(groups, key=lambda group: sum(c.added + c.removed for c in group))
    for group in groups:
        if group is not main:
            names = ", ".join(change.path for change in group[:3])
            more = f" and {len(group) - 3} more" if len(group) > 3 else ""
            yield rule.finding(
                f"{names}{more}: no import, name or folder in common with the rest of the branch",
                level=Level.WARNING,
                path=group[0].path,
                line=group[0].first_line,
                fix="if it is another change, make it another pull request",
            )


def _connected(branch: Branch, changes: list[Change]) -> list[list[Change]]:
    """Groups of files with a folder, an import, or an uncommon changed name in common."""
    parent = list(range(len(changes)))

    def root(i: int) -> int:
        while parent[i] != i:
            i = parent[i]
        return i

    imports = [_imports(branch.new_text(c) or "") for c in changes]
    names = [_changed_names(c) for c in changes]
    modules = [module_of(c.path)[0] if c.path.endswith(".py") else "" for c in changes]
    for i, j in combinations(range(len(changes)), 2):
        together = (
            _folder(changes[i].path) == _folder(changes[j].path)
            or (modules[j] and modules[j] in imports[i])
            or (modules[i] and modules[i] in imports[j])
            or names[i] & names[j]
        )
        if together:
            parent[root(i)] = root(j)
    groups: dict[int, list[Change]] = {}
    for i, change in enumerate(changes):
        groups.setdefault(root(i), []).append(change)
    return list(groups.values())


def _folder(path: str) -> str:
    return "/".join(path.split("/")[:-1][:_AREA_DEPTH])


def _imports(text: str) -> set[str]:
    """The modules that a Python text imports; `from a import b` may mean a or a.b."""
    found = set()
    for match in _IMPORT.finditer(text):
        found |= {match[1] or match[3], f"{match[1]}.{match[2]}"}
    return found


def _changed_names(change: Change) -> set[str]:
    lines = (line for hunk in change.hunks for line in (*hunk.added, *hunk.removed))
    return {name for line in lines for name in _IDENTIFIER.findall(line)} - _COMMON
