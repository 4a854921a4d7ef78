"""A report as text, JSON, SARIF 2.1.0, or workflow commands for GitHub Actions.

Invariant: whatever came from commits, files or descriptions is made printable here, whatever the
format; no text of theirs can end a line, start an escape sequence, or begin a workflow command.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import asdict
from typing import Any
from urllib.parse import quote

from mini_vllm import __version__
from mini_vllm.console import printable
from trackrecord.pr.preflight.findings import Expected, Finding, Level, Report, Rule, Source

FORMATS = ("text", "json", "sarif", "github")
SARIF_SCHEMA = "https://json.schemastore.org/sarif-2.1.0.json"
_MARKS = {Level.ERROR: "✗", Level.UNSTATED: "?", Level.WARNING: "!", Level.NOTE: "·"}
_SARIF_LEVELS = {
    Level.ERROR: "error",
    Level.UNSTATED: "error",
    Level.WARNING: "warning",
    Level.NOTE: "note",
}
_GITHUB_LEVELS = _SARIF_LEVELS | {Level.NOTE: "notice"}
_SHOWN = 8


def as_text(report: Report) -> str:
    """For a person at a terminal."""
    lines = [
        f"{report.branch or report.head[:10]}: {_count(report.commits, 'commit')} since "
        f"{report.base[:10]}, {_count(report.files, 'file')}, +{report.added} -{report.removed}",
    ]
    lines += [f"title: {report.title}"] if report.title else []
    for heading, levels in (
        ("Blocking", (Level.ERROR, Level.UNSTATED)),
        ("Look at", (Level.WARNING,)),
        ("Noted", (Level.NOTE,)),
    ):
        found = report.of(*levels)
        lines += ["", heading] if found else []
        for previous, finding in zip([None, *found], found, strict=False):
            lines += _finding_lines(finding, previous)
    lines += ["", *_expected_lines(report.expected)]
    if report.unwritten:
        lines += ["", f"Not applied, because written nowhere here: {', '.join(report.unwritten)}"]
    blocking = len(report.of(Level.ERROR, Level.UNSTATED))
    verdict = f"not ready: {_count(blocking, 'finding')} to settle" if blocking else "ready"
    lines += ["", f"{verdict} ({len(report.checked)} rules, {report.seconds:.2f} s)"]
    return "\n".join(printable(line) for line in lines) + "\n"


def as_json(report: Report) -> dict[str, Any]:
    """Everything, for programs."""
    document: dict[str, Any] = clean(asdict(report) | {"ready": report.ready})
    return document


def as_github(report: Report) -> str:
    """One workflow command a finding; GitHub shows them beside the lines they are about."""
    lines = []
    for finding in report.findings:
        properties = {"title": f"preflight: {finding.rule}"}
        if finding.path:
            properties = {"file": finding.path, "line": str(max(1, finding.line))} | properties
        given = ",".join(f"{key}={_property(value)}" for key, value in properties.items())
        message = _data(_with_source(finding))
        lines.append(f"::{_GITHUB_LEVELS[finding.level]} {given}::{message}")
    return "".join(line + "\n" for line in lines)


def as_sarif(report: Report) -> dict[str, Any]:
    """SARIF 2.1.0 (OASIS), for code scanning. A waived finding is a suppressed result."""
    rules = list(report.checked)
    position = {rule.id: number for number, rule in enumerate(rules)}
    return {
        "$schema": SARIF_SCHEMA,
        "version": "2.1.0",
        "runs": [
            {
                "tool": {
                    "driver": {
                        "name": "trackrecord preflight",
                        "version": __version__,
                        "rules": [_sarif_rule(rule) for rule in rules],
                    }
                },
                "invocations": [{"executionSuccessful": True}],
                "originalUriBaseIds": {"CLONE": {"description": {"text": "top of the clone"}}},
                "properties": {
                    "ready": report.ready,
                    "base": report.base,
                    "head": report.head,
                    "unwritten": list(report.unwritten),
                },
                "results": [_sarif_result(f, position[f.rule]) for f in report.findings],
            }
        ],
    }


def clean(value: Any) -> Any:
    """`value` with every string in it made printable, line ends kept."""
    if isinstance(value, str):
        return "\n".join(printable(line) for line in value.split("\n"))
    if isinstance(value, dict):
        return {clean(key): clean(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [clean(item) for item in value]
    return value


def _finding_lines(finding: Finding, previous: Finding | None) -> Iterator[str]:
    """A finding; what it has in common with the one before is not said again."""
    yield f"  {_MARKS[finding.level]} {finding.rule}: {finding.message}"
    if finding.waived:
        yield f"      waived: {finding.waived}"
    elif finding.fix and not (previous and previous.fix == finding.fix):
        yield f"      do: {finding.fix}"
    if finding.sources and not (previous and previous.rule == finding.rule):
        source = finding.sources[0]
        yield f"      rule: {source}: {source.quote[:160]}"


def _expected_lines(found: Expected) -> Iterator[str]:
    running = [step for step in found.steps if step["runs"] == "runs"]
    rest = len(found.steps) - len(running)
    more = f" ({rest} more started by hand or unsure)" if rest else ""
    yield f"Expect: {_count(len(running), 'CI step')}{more}"
    for step in running[:_SHOWN]:
        place = f"{step['file']}:{step['line']}"
        yield f"  {step['label']} on {step['devices']}: {step['because']} [{place}]"
    if len(running) > _SHOWN:
        yield f"  and {len(running) - _SHOWN} more"
    for what, entries, name in (
        ("owners", found.owners, "owner"),
        ("labels", found.labels, "label"),
    ):
        if entries:
            place = f"{entries[0]['file']}:{entries[0]['line']}"
            shown = list(dict.fromkeys(entry[name] for entry in entries))
            yield f"  {what}: {', '.join(shown[:20])} [{place}]"
    for source in found.gates:
        yield f"  {source}: {source.quote[:200]}"


def _with_source(finding: Finding) -> str:
    text = finding.message
    if finding.waived:
        text += f" (waived: {finding.waived})"
    elif finding.fix:
        text += f" — {finding.fix}"
    return text + "".join(f" [{source}]" for source in finding.sources[:1])


def _data(text: str) -> str:
    return printable(text).replace("%", "%25")


def _property(text: str) -> str:
    return _data(text).replace(":", "%3A").replace(",", "%2C")


def _sarif_rule(rule: Rule) -> dict[str, Any]:
    written = "; ".join(f"{source}: {source.quote}" for source in rule.sources)
    return {
        "id": rule.id,
        "shortDescription": {"text": printable(rule.title)},
        "fullDescription": {"text": printable(f"{rule.title}. Written in {written}")},
        "help": {"text": printable(f"Written in {written}")},
        "defaultConfiguration": {"level": _SARIF_LEVELS[rule.level]},
        "properties": {"sources": clean([asdict(source) for source in rule.sources])},
    }


def _sarif_result(finding: Finding, position: int) -> dict[str, Any]:
    result: dict[str, Any] = {
        "ruleId": finding.rule,
        "ruleIndex": position,
        "level": _SARIF_LEVELS[finding.level],
        "message": {"text": printable(_with_source(finding))},
        "properties": {"state": finding.level.value, "commit": finding.commit, "fix": finding.fix},
    }
    if finding.path:
        result["locations"] = [_location(finding.path, finding.line)]
    related = [_related(number, s) for number, s in enumerate(_in_clone(finding.sources), 1)]
    if related:
        result["relatedLocations"] = related
    if finding.waived:
        text = printable(finding.waived)
        result["suppressions"] = [{"kind": "external", "justification": text}]
    return {key: clean(value) for key, value in result.items()}


def _location(path: str, line: int) -> dict[str, Any]:
    return {
        "physicalLocation": {
            "artifactLocation": {"uri": quote(path), "uriBaseId": "CLONE"},
            "region": {"startLine": max(1, line)},
        }
    }


def _related(number: int, source: Source) -> dict[str, Any]:
    text = {"text": printable(f"{source}: {source.quote}")}
    return {"id": number, "message": text} | _location(source.path, source.line)


def _in_clone(sources: Iterable[Source]) -> list[Source]:
    return [source for source in sources if source.tree == "clone"]


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"
