"""Preparing a review: what is risky, in which order to read, what is missing, how to behave.

Risk is a sum of named reasons, each of which a reviewer can check: how much depends on the file,
how much of it changes, which invariants live there, whether a test changes with it. Nothing is said
about whether the change is good.

Invariant: every reminder is quoted from the line of upstream's guide that it follows from, and
every reason says what it was counted from.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from trackrecord.pr.invariants import Invariant, at_stake
from trackrecord.pr.preflight.branch import is_code, is_doc
from trackrecord.pr.preflight.findings import Cite, Source
from trackrecord.pr.preflight.rulebook import Rulebook
from trackrecord.upstream.diffs import FileChange
from trackrecord.upstream.impact import Impact, impact_of, targets_of_diff
from trackrecord.upstream.index.query import Index
from trackrecord.upstream.index.scan import is_test_path
from trackrecord.upstream.policy import TEMPLATES

ETIQUETTE = (
    Cite("docs/contributing/README.md", "transparent reviewing machine"),
    Cite("docs/contributing/README.md", "the reviewer will provide status updates"),
    Cite("docs/contributing/README.md", "the reviewer will put an `action-required` label"),
    Cite("docs/contributing/README.md", "Please respond to all comments"),
    Cite("docs/contributing/README.md", "not all CI checks will be executed"),
    Cite("docs/governance/process.md", "PRs requires at least one committer review"),
    Cite("docs/governance/process.md", "give others appropriate review opportunities"),
    Cite("docs/governance/committers.md", "please feel free to ping the area owner"),
    Cite("AGENTS.md", "must review every changed line"),
    *(Cite(path, "The test results") for path in TEMPLATES[:1]),
)
"""Lines a reviewer should have in mind; those that the tree lacks are left out."""
_KERNELS = (".cu", ".cuh", ".cpp", ".h", ".hpp")
_MOST_MISSING = 20


@dataclass(frozen=True)
class Changed:
    """A changed file; `added` and `removed` are None where only its name is known."""

    path: str
    added: int | None = None
    removed: int | None = None


@dataclass(frozen=True)
class Reading:
    """A file to read, how risky, and why: (points, reason)."""

    path: str
    risk: float
    reasons: tuple[tuple[float, str], ...]


@dataclass(frozen=True)
class Review:
    """What a reviewer starts from."""

    title: str
    files: tuple[Changed, ...]
    reading: tuple[Reading, ...]
    owners: tuple[dict[str, Any], ...]
    invariants: tuple[dict[str, Any], ...]
    missing_tests: tuple[dict[str, Any], ...]
    tests_to_run: tuple[dict[str, Any], ...]
    steps: tuple[dict[str, Any], ...]
    features: tuple[dict[str, Any], ...]
    etiquette: tuple[Source, ...]
    remarks: tuple[str, ...] = field(default=())


def prepare(
    index: Index,
    book: Rulebook,
    title: str,
    changes: Sequence[FileChange],
    *,
    names_only: bool = False,
) -> Review:
    """A review of a change to the indexed tree.

    Args:
        changes: the files, with their hunks.
        names_only: the hunks are not known, only which files change.
    """
    targets, remarks = targets_of_diff(index, changes)
    impact = impact_of(index, targets, title)
    files = tuple(_changed(change, names_only) for change in changes)
    stakes = at_stake(impact.symbols)
    reading = [_reading(index, file, impact, stakes, files) for file in files]
    return Review(
        title=title,
        files=files,
        reading=tuple(sorted(reading, key=lambda r: (-r.risk, r.path))),
        owners=tuple(_owners(impact)),
        invariants=tuple(
            {
                "name": stake.name,
                "statement": stake.statement,
                "kept_by": [f"{k.path}::{k.qualname}" for k in stake.keepers],
            }
            for stake in stakes
        ),
        missing_tests=tuple(_missing_tests(index, files)),
        tests_to_run=tuple(
            {"path": t.path, "name": t.name, "needs_gpu": t.needs_gpu, "why": t.relation}
            for t in impact.tests[:_MOST_MISSING]
        ),
        steps=tuple(
            {"label": s.label, "devices": s.devices, "runs": s.runs, "because": s.matched_by}
            for s in impact.steps
        ),
        features=tuple(
            {"feature": f.feature, "at": f"{f.path}:{f.line}", "evidence": f.evidence}
            for f in impact.features
        ),
        etiquette=tuple(source for cite in ETIQUETTE if (source := book.source(cite))),
        remarks=(*remarks, *impact.remarks),
    )


def changes_from_names(paths: Sequence[str]) -> list[FileChange]:
    """Files of which nothing but the name is known."""
    return [FileChange(path, path) for path in paths]


def _changed(change: FileChange, names_only: bool) -> Changed:
    if names_only:
        return Changed(change.path)
    added = sum(len(hunk.added) for hunk in change.hunks)
    return Changed(change.path, added, sum(len(hunk.removed) for hunk in change.hunks))


def _reading(
    index: Index,
    file: Changed,
    impact: Impact,
    stakes: Sequence[Invariant],
    files: Sequence[Changed],
) -> Reading:
    reasons: list[tuple[float, str]] = []

    def add(points: float, reason: str) -> None:
        if points > 0:
            reasons.append((round(points, 1), reason))

    here = [stake for stake in stakes if any(k.path == file.path for k in stake.keepers)]
    add(2.0 * len(here), f"{len(here)} invariants are kept here")
    importers = len(index.importers(file.path)) if index.has_path(file.path) else 0
    add(math.log2(1 + importers) / 2, f"{importers} files import it")
    names = {symbol.qualname for symbol in impact.symbols if symbol.path == file.path}
    users = {(d.path, d.qualname) for d in impact.dependents if d.distance == 1 and d.uses in names}
    add(math.log2(1 + len(users)), f"{len(users)} definitions use what changes")
    lines = (file.added or 0) + (file.removed or 0)
    add(math.log2(1 + lines) / 2, f"{lines} lines change")
    if is_code(file.path) and not any(is_test_path(other.path) for other in files):
        add(2.0, "no test changes in this pull request")
    add(2.0 if file.path.startswith("vllm/config/") else 0, "configuration that users see")
    add(1.5 if file.path.endswith(_KERNELS) else 0, "native code")
    if is_test_path(file.path) or is_doc(file.path):
        reasons = [(round(points / 4, 1), reason) for points, reason in reasons]
    risk = round(sum(points for points, _ in reasons), 1)
    return Reading(file.path, risk, tuple(sorted(reasons, reverse=True)))


def _owners(impact: Impact) -> list[dict[str, Any]]:
    paths: dict[str, list[str]] = {}
    lines: dict[str, int] = {}
    for owned in impact.owned:
        for owner in owned.owners:
            paths.setdefault(owner, []).append(owned.path)
            lines.setdefault(owner, owned.line)
    ordered = sorted(paths, key=lambda owner: (-len(paths[owner]), owner))
    return [{"owner": o, "line": lines[o], "paths": paths[o]} for o in ordered]


def _missing_tests(index: Index, files: Sequence[Changed]) -> list[dict[str, Any]]:
    """Changed source files none of whose near tests the change touches."""
    changed = {file.path for file in files}
    found = []
    for file in files:
        if not is_code(file.path) or not file.path.endswith(".py"):
            continue
        near = index.tests_near(file.path) if index.has_path(file.path) else []
        if not any(test.path in changed for test in near) and not _named_test(file.path, changed):
            found.append({"path": file.path, "near": list(dict.fromkeys(t.path for t in near))[:3]})
    return found


def _named_test(path: str, changed: set[str]) -> bool:
    stem = path.rpartition("/")[2].removesuffix(".py")
    return any(is_test_path(other) and stem in other.rpartition("/")[2] for other in changed)
