"""A report as a verdict that a person can act on."""

from __future__ import annotations

from collections.abc import Iterator

from mini_vllm.console import printable
from trackrecord.pr.gauntlet.report import CheckResult, Evidence, Report
from trackrecord.pr.quoting import one_line, safe_url

MAX_EVIDENCE = 4
_MARKS = {"pass": "pass   ", "fail": "FAIL   ", "unknown": "unknown"}


def as_text(report: Report) -> str:
    """The whole report: the checks in order with what they rest on, then what to do."""
    return "\n".join(_lines(report))


def _lines(report: Report) -> Iterator[str]:
    yield one_line(f"{report.name} {report.title}")
    yield printable(f"{safe_url(report.url) or 'no address'}  (as of {report.as_of})")
    yield ""
    for number, result in enumerate(report.results, start=1):
        yield from _check_lines(number, result)
    for number, name in enumerate(report.skipped, start=len(report.results) + 1):
        yield f"{number} {name:<13} not run (--all runs it)"
    yield ""
    yield from _verdict_lines(report)


def _check_lines(number: int, result: CheckResult) -> Iterator[str]:
    yield f"{number} {result.check:<13} {_MARKS[result.verdict]}  {one_line(result.summary, 240)}"
    for entry in result.evidence[:MAX_EVIDENCE]:
        yield from _evidence_lines(entry)
    if len(result.evidence) > MAX_EVIDENCE:
        yield f"      … {len(result.evidence) - MAX_EVIDENCE} more lines of evidence (--json)"


def _evidence_lines(entry: Evidence) -> Iterator[str]:
    who = ", ".join(part for part in (entry.author, entry.date or "") if part)
    if entry.text:
        yield f"      “{one_line(entry.text, 160)}”"
        yield "      " + one_line("  ".join(p for p in (f"= {entry.says}", who) if p), 160)
    else:
        yield "      " + one_line("  ".join(p for p in (f"= {entry.says}", who) if p), 160)
    if url := safe_url(entry.url):
        yield f"        {url}"


def _verdict_lines(report: Report) -> Iterator[str]:
    if report.verdict == "pass":
        yield f"Verdict: {report.name} survives. Next: trackrecord plan {report.name.lstrip('#')}"
        return
    failed = [r for r in report.results if r.verdict == "fail"]
    if failed:
        yield f"Verdict: {report.name} is disqualified by {', '.join(r.check for r in failed)}."
        return
    unknown = [r for r in report.results if r.verdict == "unknown"]
    yield f"Verdict: {report.name} is open in {', '.join(r.check for r in unknown)}. To settle it:"
    for result in unknown:
        for step in result.settle:
            yield f"  - {result.check}: {one_line(step, 200)}"
