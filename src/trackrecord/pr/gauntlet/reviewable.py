"""Check 5: will somebody be able, and willing, to review it?

Expected size and spread follow from the places; owners from CODEOWNERS, and whether they are active
from the store; what is public from where it lies. Where upstream's rules ask for an RFC first, a
pull request without one is not reviewable.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime, timedelta

from trackrecord.issues.models import when
from trackrecord.issues.store import Store
from trackrecord.pr.gauntlet.case import Case
from trackrecord.pr.gauntlet.report import CheckResult, Evidence
from trackrecord.upstream.areas import areas_of_paths
from trackrecord.upstream.policy import PolicySection

ACTIVE = timedelta(days=90)
"""An owner of whom the store has a sign this recent is active."""
MAX_AREAS = 2
_PUBLIC = {
    "vllm/config/": "configuration",
    "vllm/engine/arg_utils.py": "command line",
    "vllm/entrypoints/": "public API",
    "vllm/envs.py": "environment variables",
    "vllm/sampling_params.py": "public API",
    "vllm/outputs.py": "public API",
    "vllm/plugins/": "plugin interface",
}
_ARCHITECTURE = re.compile(
    r"\b(?:architectur|redesign|rewrite|refactor (?:the|all|whole)|"
    r"new (?:backend|scheduler|engine|api)|disaggregat|pluggable|framework|overhaul)\w*",
    re.IGNORECASE,
)
_RFC_RULE = re.compile(r"\bRFC\b")


@dataclass(frozen=True, slots=True)
class Owner:
    """A code owner, without "@", and the last sign of them in the store."""

    login: str
    last_seen: datetime | None


def check_reviewable(case: Case) -> CheckResult:
    """Estimates what a reviewer would get, and who that is."""
    paths = list(dict.fromkeys(place.path for place in case.places[:4]))
    if not paths:
        settle = ("find the function that is at fault: size and owners follow from it",)
        words = "no file is known, so neither size nor owners"
        return CheckResult("reviewable", "unknown", words, (), settle)
    owners = owners_of(case, paths)
    active = [o for o in owners if o.last_seen and case.now - o.last_seen <= ACTIVE]
    areas, public = areas_of_paths(paths), public_parts(paths)
    rule, why = rfc_rule(case, areas)
    details = {
        "files": paths,
        "areas": areas,
        "size": expected_size(case, paths),
        "owners": [owner.login for owner in owners],
        "active_owners": [owner.login for owner in active],
        "public": public,
        "rfc": why,
    }
    evidence = [_path_evidence(case, path) for path in paths[:3]]
    if rule is not None:
        url = case.index.tree.pin.url(rule.path, rule.line)
        evidence.append(Evidence(_rfc_line(rule), "upstream's rule", url, line=rule.line))
    if why:
        words = f"an RFC is expected first: {why}"
        return CheckResult("reviewable", "fail", words, tuple(evidence), (), details)
    size = f"{len(paths)} file{'s' * (len(paths) != 1)} in {', '.join(areas) or 'no area'}"
    touches = f"; touches {', '.join(public)}" if public else ""
    if questions := _open_questions(case, owners, active, public):
        words = f"{size}{touches}; {questions[0]}"
        return CheckResult("reviewable", "unknown", words, tuple(evidence), questions, details)
    names = ", ".join(owner.login for owner in active[:3])
    words = f"{size}{touches}; active owners: {names}"
    return CheckResult("reviewable", "pass", words, tuple(evidence), (), details)


def _open_questions(
    case: Case, owners: list[Owner], active: list[Owner], public: list[str]
) -> tuple[str, ...]:
    questions = []
    if not owners:
        questions.append("nobody owns these files: find in their history who reviews them")
    elif not active and not _has_history(case.store):
        questions.append("sync pull requests to see whether the owners are active")
    elif not active:
        names = ", ".join(owner.login for owner in owners[:3])
        questions.append(f"no sign of {names} for {ACTIVE.days} days: ask who reviews this now")
    if public and case.kind in ("feature", "performance"):
        questions.append(f"ask an owner in the issue before changing the {public[0]}")
    return tuple(questions)


def owners_of(case: Case, paths: Iterable[str]) -> list[Owner]:
    """The code owners of the paths and when the store last heard of them, the freshest first."""
    names = dict.fromkeys(o for path in paths for o in case.index.owners_of(path))
    found = [
        Owner(name.lstrip("@"), _last_seen(case.store, name.lstrip("@"), case.now))
        for name in names
    ]
    return sorted(found, key=lambda o: (o.last_seen is None, -_seconds(o.last_seen)))


def public_parts(paths: Iterable[str]) -> list[str]:
    """What of the paths users depend on: configuration, command line, API."""
    found = (what for path in paths for prefix, what in _PUBLIC.items() if path.startswith(prefix))
    return list(dict.fromkeys(found))


def rfc_rule(case: Case, areas: list[str]) -> tuple[PolicySection | None, str]:
    """Upstream's section that asks for an RFC, and why it applies here; "" if it does not."""
    sections = [s for s in case.index.policy() if _RFC_RULE.search(s.text) and "change" in s.text]
    rule = next((s for s in sections if "architect" in s.text.lower()), next(iter(sections), None))
    if case.kind == "rfc":
        return rule, "the issue itself is an RFC under discussion"
    big = _ARCHITECTURE.search(case.title)
    if big and case.kind in ("feature", "other"):
        return rule, f"the title speaks of {big[0].lower()}"
    if case.kind == "feature" and len(areas) > MAX_AREAS:
        return rule, f"it reaches {len(areas)} areas"
    return None, ""


def expected_size(case: Case, paths: list[str]) -> str:
    """Small, medium or large, by kind and spread; a guess that says what it rests on."""
    if case.kind == "note":
        return "small: one place of the tree"
    if case.kind == "bug" and len(paths) <= 2:
        return f"small: a bug in {len(paths)} file(s)"
    if case.kind in ("model", "rfc"):
        return f"large: a {case.kind}"
    return f"medium: {len(paths)} files"


def _last_seen(store: Store | None, login: str, now: datetime) -> datetime | None:
    """The last comment, pull request or event of `login` in the store."""
    if store is None or "/" in login:
        return None
    (latest,) = store.connection.execute(
        "SELECT max(at) FROM (SELECT max(created_at) AS at FROM comments WHERE author = ?1 "
        "COLLATE NOCASE UNION ALL SELECT max(created_at) FROM threads WHERE author = ?1 "
        "COLLATE NOCASE UNION ALL SELECT max(created_at) FROM events WHERE actor = ?1 "
        "COLLATE NOCASE)",
        (login,),
    ).fetchone()
    seen = when(latest)
    return min(seen, now) if seen else None


def _has_history(store: Store | None) -> bool:
    return store is not None and store.last_sync is not None


def _seconds(at: datetime | None) -> float:
    return at.timestamp() if at else 0.0


def _path_evidence(case: Case, path: str) -> Evidence:
    owners = ", ".join(owner.lstrip("@") for owner in case.index.owners_of(path)) or "nobody"
    return Evidence(path, f"owned by {owners}", case.index.tree.pin.url(path))


def _rfc_line(rule: PolicySection) -> str:
    return next(line.strip() for line in rule.text.splitlines() if _RFC_RULE.search(line))
