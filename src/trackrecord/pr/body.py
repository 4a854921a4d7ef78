"""The pull request's description, composed in upstream's own template from what is on record.

Invariant: every command and result in it was executed at the branch's last commit and is in the
journal; every statement in it was made by a person for that commit. Where either is missing nothing
is written, and the answer is what is missing.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from trackrecord.errors import TrackRecordError
from trackrecord.pr.bench import Effect
from trackrecord.pr.journal import Entry
from trackrecord.pr.preflight.branch import Branch, is_doc
from trackrecord.pr.preflight.description import did_not_run, shows_tests
from trackrecord.pr.preflight.output import clean
from trackrecord.pr.preflight.rulebook import first_text
from trackrecord.pr.quoting import code_span
from trackrecord.pr.statements import (
    AI,
    DEFENCE,
    NOT_DUPLICATE,
    REVIEWED,
    TESTS_RUN,
    TEXTS,
    Statement,
)
from trackrecord.upstream.policy import TEMPLATES, sections
from trackrecord.workspace import Workspace

_COMMENT = re.compile(r"<!--.*?(?:-->|\Z)", re.DOTALL)
_TAIL_LINES = 20
_LONGEST_COMMAND = 400
_MENTION = re.compile(r"(?<![\w`@/.])@([A-Za-z0-9][\w-]*)")
_CUT_OFF = re.compile(r"written below this line will be removed", re.IGNORECASE)
_BOX = re.compile(r"^(\s*[-*] )\[ \](?= )")


@dataclass(frozen=True)
class Body:
    """A description, or what stands in its way; one of them is empty."""

    text: str
    missing: tuple[str, ...]


@dataclass(frozen=True)
class Given:
    """What a person adds: the purpose, and text for headings that nothing else can answer."""

    purpose: str = ""
    ai_note: str = ""
    plan: Path | None = None
    """Of the change; where None, that of the branch's issue."""
    answers: Mapping[str, str] = field(default_factory=dict)


def compose(branch: Branch, workspace: Workspace, given: Given) -> Body:
    """The description of a branch.

    Raises:
        TrackRecordError: the clone has no template.
        WorkspaceError: the journal has an entry that this program did not write.
    """
    template = first_text(branch.book, TEMPLATES)
    if template is None:
        raise TrackRecordError("the clone has no pull request template to fill in")
    plan = plan_sections(given.plan or workspace.plan_path(str(branch.issue)))
    parts, missing = _parts(branch, plan, given, template)
    missing += _missing_statements(branch)
    if missing:
        return Body("", tuple(missing))
    return Body(_assemble(branch, template[1], parts, given), ())


def plan_sections(path: Path) -> dict[str, str]:
    """The sections of a plan that say something, by heading in lower case; {} without a plan."""
    try:
        text = path.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return {}
    found = sections(_COMMENT.sub("", text), path.name)
    return {s.heading.lower(): s.text for s in found if s.heading and s.text}


def _parts(
    branch: Branch, plan: Mapping[str, str], given: Given, template: tuple[str, str]
) -> tuple[dict[str, str], list[str]]:
    """The answer to each heading of the template, and what is missing for them."""
    parts: dict[str, str] = {}
    missing: list[str] = []
    for section in sections(template[1], template[0]):
        heading = section.heading
        if not heading:
            continue
        if heading in given.answers:
            parts[heading] = given.answers[heading]
        elif "purpose" in heading.lower():
            parts[heading] = _purpose(branch, plan, given)
            if not (given.purpose or _planned(plan, "problem")):
                missing.append("what it is for: --purpose TEXT, or a plan for the issue")
        elif "plan" in heading.lower():
            parts[heading] = _test_plan(branch)
        elif "result" in heading.lower():
            parts[heading] = _test_result(branch)
            missing += _missing_results(branch, heading)
        else:
            missing.append(f"an answer to “{heading}”: --section '{heading}=TEXT'")
    return parts, missing


def _missing_statements(branch: Branch) -> list[str]:
    if not branch.statements.ai:
        return ["whether AI assisted: trackrecord preflight --ai-assistance none|used"]
    if not branch.is_ai_assisted:
        return []
    flags = {
        REVIEWED: "--i-reviewed-every-line",
        TESTS_RUN: "--i-ran-the-tests",
        DEFENCE: "--i-can-defend-this-change",
        NOT_DUPLICATE: "--i-checked-for-duplicates",
    }
    return [
        f"a statement: “{TEXTS[what]}”: trackrecord preflight {flag}"
        for what, flag in flags.items()
        if not branch.statements.get(what)
    ]


def _missing_results(branch: Branch, heading: str) -> list[str]:
    tests = _tests(branch)
    failed = [entry for entry in tests if entry.data["exit_code"]]
    if failed:
        return [
            f"a test run that passes: {_words(e)} failed ({e.name}): run the same command again "
            f"once it does, or say what fails and why: --section '{heading}=TEXT'"
            for e in failed
        ]
    if tests:
        return []
    beside = [f"{_words(e)} shows no test ({e.name})" for e in latest(branch.evidence, "test")]
    return [
        f"a test run at {branch.head[:10]} with nothing uncommitted: trackrecord evidence run "
        f"-- pytest …" + "".join(f"; {words}" for words in beside)
    ]


def _tests(branch: Branch) -> list[Entry]:
    """The last run of each command that ran tests: one that was mistyped, or passed without any
    test in its output, neither shows nor refutes anything."""
    return [
        entry
        for entry in latest(branch.evidence, "test")
        if not did_not_run(entry) and (entry.data["exit_code"] or shows_tests(entry.data["tail"]))
    ]


def latest(entries: Sequence[Entry], role: str) -> list[Entry]:
    """The last run of each command with that role, in the order of the first runs."""
    found: dict[str, Entry] = {}
    for entry in entries:
        if entry.data.get("role") == role:
            found[_words(entry)] = entry
    return list(found.values())


def _purpose(branch: Branch, plan: Mapping[str, str], given: Given) -> str:
    planned = [_planned(plan, "problem"), _planned(plan, "approach")]
    texts = [given.purpose] if given.purpose else planned
    lines = [f"FIX #{branch.issue}"] if branch.issue else []
    lines += [_quiet(text) for text in texts if text]
    scope = _planned(plan, "out of scope")
    lines += [f"Out of scope: {_quiet(scope)}"] if scope else []
    return "\n\n".join(lines)


def _planned(plan: Mapping[str, str], word: str) -> str:
    """A section of the plan, without the questions in it that still wait for an answer."""
    text = next((text for heading, text in plan.items() if word in heading), "")
    lines = [line for line in text.splitlines() if not line.rstrip().endswith("?")]
    return "\n".join(lines).strip()


def _test_plan(branch: Branch) -> str:
    commands = [_words(entry) for entry in _tests(branch)]
    commands += [_words(entry) for entry in branch.benchmarks]
    return _fenced("\n".join(commands), "bash") if commands else ""


def _test_result(branch: Branch) -> str:
    parts = []
    for entry in _tests(branch):
        data = entry.data
        tail = "\n".join(data["tail"].splitlines()[-_TAIL_LINES:])
        parts.append(
            f"{_code(entry)}: exit code {data['exit_code']}, {data['seconds']:.1f} s, at "
            f"{branch.head[:10]} on {_machine(data)} ({entry.name}, output sha256 "
            f"{data['output_sha256'][:12]})"
        )
        parts.append(_fenced(tail or "(no output)", "text"))
    parts += [_comparison(entry) for entry in branch.benchmarks]
    if parts:
        # Whoever has this hash can tell whether the journal still is the one that it was taken of.
        last = branch.entries[-1]
        parts.append(f"Recorded up to {last.name} of a journal with the hash `{last.hash}`.")
    return "\n\n".join(parts)


def _comparison(entry: Entry) -> str:
    data, unit = entry.data, entry.data["unit"]
    rows = [
        f"| {side} | {data[side]['commit'][:10]} | {data[side]['median']:.4g} | "
        f"{len(data[side]['samples'])} |"
        for side in ("before", "after")
    ]
    return "\n".join(
        [
            f"{_code(entry)} ({data['metric']}, interleaved, {entry.name}):",
            "",
            f"| side | commit | median, {unit} | runs |",
            "| --- | --- | --- | --- |",
            *rows,
            "",
            Effect(**data["effect"]).sentence(unit),
        ]
    )


def _machine(data: Mapping[str, Any]) -> str:
    facts = data.get("environment", {})
    gpus = ", ".join(facts.get("gpus", [])) or "no GPU"
    return f"{facts.get('cpu', 'unknown CPU')}, {gpus}, Python {facts.get('python', '?')}"


def _assemble(branch: Branch, template: str, parts: Mapping[str, str], given: Given) -> str:
    """The template's own lines in order, answers under their headings, the rest at the end."""
    lines: list[str] = []
    extras = [_duplicates(branch), _assistance(branch, given)]
    for line in template.splitlines():
        if _CUT_OFF.search(line):
            break
        if line.startswith(("<!--", "PLEASE FILL IN")):
            continue
        if line.strip() == "---" and extras:
            lines += [*filter(None, extras), ""]
            extras = []
        lines.append(_tick(line, branch))
        heading = line.lstrip("#").strip()
        if line.startswith("#") and heading in parts:
            lines += ["", parts[heading]]
    lines += ["", *filter(None, extras)]
    text = "\n".join(lines).strip() + "\n"
    cleaned: str = clean(re.sub(r"\n{3,}", "\n\n", text))
    return cleaned


def _tick(line: str, branch: Branch) -> str:
    """A box of the checklist, ticked where the description has what it asks for."""
    if "documentation" in line.lower() and not any(is_doc(c.path) for c in branch.changes):
        return line
    return _BOX.sub(r"\1[x]", line)


def _duplicates(branch: Branch) -> str:
    said = branch.statements.get(NOT_DUPLICATE)
    searches = latest([e for e in branch.entries if e.kind == "run"], "duplicates")
    if said is None and not searches:
        return ""
    lines = ["## Duplicate work", ""]
    if said:
        lines.append(
            f"This duplicates no other pull request: {_name(said)} searched for open ones that do "
            f"the same and found none ({said.at[:10]})."
        )
    if searches:
        ran = [f"{_code(entry)} ({entry.at[:10]}, {entry.name})" for entry in searches]
        lines.append("Searches: " + ", ".join(ran) + ".")
    if branch.store is not None and branch.store.last_sync:
        lines.append(f"Checked against the issues and pull requests of {branch.store.last_sync}.")
    return "\n".join([*lines, ""])


def _assistance(branch: Branch, given: Given) -> str:
    said = branch.statements.get(AI)
    if said is None:
        return ""
    if said.value == "none":
        return f"## AI assistance\n\nNo AI assistance was used ({_name(said)}, {said.at[:10]}).\n"
    note = f": {_quiet(given.ai_note)}" if given.ai_note else ""
    lines = ["## AI assistance", "", f"AI assistance was used for this change{note}."]
    for what in (REVIEWED, TESTS_RUN, DEFENCE):
        statement = branch.statements.get(what)
        if statement:
            lines.append(f"- {_name(statement)}, {statement.at[:10]}: “{TEXTS[what]}”")
    return "\n".join([*lines, ""])


def _name(statement: Statement) -> str:
    return statement.by.partition(" <")[0]


def _words(entry: Entry) -> str:
    return shlex.join(entry.data.get("command", []))


def _code(entry: Entry) -> str:
    return code_span(_words(entry), _LONGEST_COMMAND)


def _fenced(text: str, language: str) -> str:
    longest = max((len(run) for run in re.findall(r"`+", text)), default=0)
    fence = "`" * max(3, longest + 1)
    return f"{fence}{language}\n{text}\n{fence}"


def _quiet(text: str) -> str:
    """`text` without anything that would notify people: `@name` is kept as code."""
    return _MENTION.sub(r"`@\1`", text.strip())
