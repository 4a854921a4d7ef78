"""The contributions page: what was chosen, what was planned, what was run, and where one stands.

Invariant: the page is made of the workspace alone and shows only what is in it; a part that the
workspace lacks is left out, and where there is nothing there is no page. Of people it shows names
and logins, never addresses.
"""

from __future__ import annotations

import json
import re
import shlex
from dataclasses import asdict
from typing import Any

from trackrecord.errors import TrackRecordError
from trackrecord.portfolio.page import Page
from trackrecord.portfolio.render import Table, render
from trackrecord.pr.bench import Effect
from trackrecord.pr.body import plan_sections
from trackrecord.pr.journal import Entry, Journal, Verdict
from trackrecord.pr.preflight.output import clean
from trackrecord.pr.preflight.rulebook import Rulebook
from trackrecord.pr.preflight.run import issue_store, pinned_tree
from trackrecord.pr.quoting import one_line, safe_url
from trackrecord.pr.statements import TEXTS
from trackrecord.pr.trust import Standing, standing
from trackrecord.upstream.index.query import Index
from trackrecord.upstream.pin import Pin, find_pin
from trackrecord.workspace import Workspace

SLUG = "contributions"
TITLE = "Contributions upstream"
_MOST_ENTRIES = 40
_NAME = re.compile(r"T?[1-9][0-9]{0,8}")


def contributions_page(workspace: Workspace) -> Page | None:
    """The page, or None where the workspace has neither a plan, nor evidence, nor a standing."""
    pin = find_pin(workspace)
    journal = Journal(workspace)
    verdict = journal.verify()
    entries = journal.entries() if verdict.intact else []
    plans = _plans(workspace)
    ladder = _standing(workspace, pin)
    if not (entries or plans or ladder):
        return None
    upstream = _upstream(workspace, pin)
    gauntlets = {name: _gauntlet(workspace, name) for name in plans}
    summary = _summary(pin, plans, entries, ladder)
    values = {
        "title": TITLE,
        "summary": summary,
        "upstream": _facts(upstream, f"{pin.project} {pin.version} at a glance"),
        "issues": [_issue(pin, name, plans[name], gauntlets[name]) for name in plans],
        "evidence": _evidence_table(entries) if entries else None,
        "statements": _statements(entries),
        "intact": _integrity(verdict),
        "ladder": _ladder_table(ladder) if ladder else None,
        "next_steps": list(ladder.next_steps) if ladder else [],
        "remarks": list(ladder.remarks) if ladder else [],
        "data": f"{SLUG}.json",
    }
    document = {
        "upstream": upstream,
        "issues": [{"name": n, "plan": plans[n], "gauntlet": gauntlets[n]} for n in plans],
        "evidence": [_public(entry) for entry in entries],
        "journal": {"entries": verdict.entries, "head": verdict.head, "intact": verdict.intact},
        "standing": asdict(ladder) if ladder else None,
    }
    files = {
        f"{SLUG}.html": render("contributions.html", **values),
        f"{SLUG}.md": render("contributions.md", **values),
        f"{SLUG}.json": json.dumps(clean(document), indent=1).encode() + b"\n",
    }
    return Page(SLUG, TITLE, summary, files)


def _summary(
    pin: Pin, plans: dict[str, dict[str, str]], entries: list[Entry], ladder: Standing | None
) -> str:
    runs = sum(entry.kind == "run" for entry in entries)
    benches = sum(entry.kind == "bench" for entry in entries)
    parts = []
    if plans:
        names = ", ".join(map(_shown, plans))
        parts.append(f"a plan for {names} of {pin.repository}")
    if runs or benches:
        compared = f"{benches} comparison{'' if benches == 1 else 's'} of two revisions"
        parts.append(f"{runs} recorded run{'' if runs == 1 else 's'} and {compared}")
    if ladder:
        merged = len(ladder.figures.merged)
        parts.append(f"{merged} merged pull request{'' if merged == 1 else 's'} by {ladder.login}")
    text = "; ".join(parts)
    return text[:1].upper() + text[1:] + "."


def _upstream(workspace: Workspace, pin: Pin) -> dict[str, Any]:
    facts: dict[str, Any] = {
        "repository": pin.repository,
        "version": pin.version,
        "commit": pin.commit,
    }
    try:
        with Index.open(workspace, pin) as index:
            counts = index.counts()
            facts |= {
                "files": counts["file"],
                "symbols": counts["symbol"],
                "references": counts["reference"],
                "CI steps": len(index.steps),
                "lines of CODEOWNERS": len(index.owner_rules),
            }
    except TrackRecordError:
        facts["index"] = "not built"
    return facts


def _facts(facts: dict[str, Any], caption: str) -> Table:
    rows = [
        [key, f"{value:,}" if isinstance(value, int) else str(value)]
        for key, value in facts.items()
    ]
    return Table(caption, ["What", "Value"], rows)


def _plans(workspace: Workspace) -> dict[str, dict[str, str]]:
    """The plans that there are, by what they are for: an issue ("123") or a note ("T4")."""
    folder = workspace.plan_path("any").parent
    paths = sorted(folder.glob("*.md")) if folder.is_dir() else []
    found = {path.stem: plan_sections(path) for path in paths if _NAME.fullmatch(path.stem)}
    return {name: sections for name, sections in found.items() if sections}


def _shown(name: str) -> str:
    return f"#{name}" if name.isdecimal() else name


def _gauntlet(workspace: Workspace, name: str) -> dict[str, Any]:
    """The report on a candidate as it was last saved, or nothing."""
    try:
        report = json.loads(workspace.gauntlet_path(name).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return report if isinstance(report, dict) else {}


def _issue(pin: Pin, name: str, plan: dict[str, str], report: dict[str, Any]) -> dict[str, Any]:
    checks = [check for check in report.get("checks", ()) if isinstance(check, dict)]
    rows = [[str(c.get(key, "")) for key in ("check", "verdict", "summary")] for c in checks]
    caption = f"What could have disqualified {_shown(name)}"
    as_of = f", as of {report['as_of']}" if report.get("as_of") else ""
    fallback = f"https://github.com/{pin.repository}/issues/{name}" if name.isdecimal() else ""
    return {
        "name": _shown(name),
        "slug": name,
        "url": safe_url(str(report.get("url", ""))) or fallback,
        "title": one_line(str(report.get("title") or "the plan"), 120),
        "plan": [
            (heading.capitalize(), text)
            for heading, text in plan.items()
            if not heading.startswith("plan for")
        ],
        "gauntlet": Table(caption + as_of, ["Check", "Outcome", "Because"], rows) if rows else None,
    }


def _evidence_table(entries: list[Entry]) -> Table:
    shown = [entry for entry in entries if entry.kind in ("run", "bench")][-_MOST_ENTRIES:]
    rows = []
    for entry in shown:
        data = entry.data
        commit = str(data.get("commit") or data.get("after", {}).get("commit", ""))[:10]
        rows.append(
            [
                entry.name,
                shlex.join(data.get("command", [])),
                _outcome(entry),
                commit + (" (uncommitted changes)" if data.get("dirty") else ""),
                entry.hash[:12],
            ]
        )
    return Table("What was run", ["Entry", "Command", "Outcome", "Commit", "Hash"], rows)


def _outcome(entry: Entry) -> str:
    data = entry.data
    if entry.kind == "bench":
        return Effect(**data["effect"]).sentence(data["unit"])
    seconds = f" in {data['seconds']:.1f} s" if "seconds" in data else ""
    return f"exit code {data.get('exit_code')}{seconds}"


def _statements(entries: list[Entry]) -> list[str]:
    """What a person said, by name."""
    said = []
    for entry in entries:
        if entry.kind != "statement":
            continue
        data = entry.data
        name = str(data.get("by", "")).partition(" <")[0]
        words = TEXTS.get(
            str(data.get("what")), f"{data.get('what')} {data.get('rule', '')}".strip()
        )
        value = f": {data['value']}" if data.get("value") else ""
        said.append(f"{entry.at[:10]}, {name}, at {str(data.get('commit'))[:10]}: {words}{value}")
    return said[-_MOST_ENTRIES:]


def _integrity(verdict: Verdict) -> str:
    if not verdict.entries:
        return ""
    if verdict.intact:
        return f"The journal's {verdict.entries} entries are unchanged; last hash {verdict.head}."
    return f"The journal was changed after it was written: {'; '.join(verdict.problems)}."


def _standing(workspace: Workspace, pin: Pin) -> Standing | None:
    """The person's standing, where settings name them and there is something to count."""
    login, tree = workspace.settings.user.github_login, pinned_tree(pin)
    store = issue_store(workspace, pin) if login and tree else None
    if store is None or tree is None:
        return None
    with store:
        found = standing(store, Rulebook.of_tree(tree), login)
    return found if found.rung or found.figures.open or found.figures.reviewed else None


def _ladder_table(ladder: Standing) -> Table:
    rows = [
        [
            rung.name,
            "reached" if rung.reached else "not yet",
            "; ".join(f"{n.what}: {n.have} of {n.need}" for n in rung.needs),
            str(rung.sources[0]) if rung.sources else "",
        ]
        for rung in ladder.rungs
    ]
    return Table(f"Where {ladder.login} stands", ["Rung", "State", "Figures", "Written in"], rows)


def _public(entry: Entry) -> dict[str, Any]:
    """An entry without addresses of people; its hash is of the entry as it was."""
    document = entry.to_json()
    data = dict(document["data"])
    if "by" in data:
        data["by"] = str(data["by"]).partition(" <")[0]
    return document | {"data": data}
