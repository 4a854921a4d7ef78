"""What is said of a design: the report, and the one-page design document."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict, dataclass
from math import isfinite
from typing import Any

from mini_vllm.console import printable
from mini_vllm.sim.quantity import seconds
from mini_vllm.sim.simulate import Result
from trackrecord.loop.design.figures import ArithmeticLine, Compared
from trackrecord.loop.design.keys import KEYS
from trackrecord.loop.design.sheet import DesignFile
from trackrecord.loop.marks import LAYER_TITLES, Mark

_LONGEST_WHY = 4_000
_NAMES = {"ttft": "TTFT", "tpot": "TPOT", "e2e": "end to end", "answered": "every request answered"}


@dataclass(frozen=True)
class SloVerdict:
    """One bound of the objective; times in seconds.

    Args:
        share: of the requests that must keep it.
        kept_share: of those that did; None before simulation.
        p99: what was simulated.
        kept: None before simulation.
    """

    term: str
    bound: float
    share: float
    kept_share: float | None
    p99: float | None
    kept: bool | None

    @property
    def words(self) -> str:
        if not self.bound:
            return _NAMES[self.term]
        return f"{_NAMES[self.term]} within {seconds(self.bound)} for {self.share:.0%} of requests"

    @property
    def note(self) -> str:
        if self.kept_share is None:
            return "not simulated"
        late = "" if self.p99 is None else f", p99 {seconds(self.p99)}"
        return f"simulated: {self.kept_share:.2%} kept it{late}"


@dataclass(frozen=True)
class DesignReport:
    """All that grading says of one design.

    Args:
        unfit: why the design cannot be placed; empty where it can.
        unrun: why it was not simulated; empty where it was.
        cost_per_hour: in US dollars.
        result: of the simulation, None where there was none.
    """

    name: str
    title: str
    brief: str
    mark: Mark
    design: DesignFile
    arithmetic: tuple[ArithmeticLine, ...]
    compared: tuple[Compared, ...]
    slo: tuple[SloVerdict, ...]
    unfit: str
    unrun: str
    devices: int | None
    cost_per_hour: float | None
    budget: float
    result: Result | None

    @property
    def problems(self) -> tuple[str, ...]:
        """What of the file was not understood, a line each."""
        return tuple(self.design.problems)

    @property
    def bound(self) -> str:
        """What limits the simulated deployment; empty where none was simulated."""
        return self.result.bottleneck if self.result else ""

    def to_json(self) -> dict[str, Any]:
        return {
            "name": self.name,
            "title": self.title,
            "mark": self.mark.to_json(),
            "problems": list(self.problems),
            "settings": {key: entry.value for key, entry in self.design.settings.items()},
            "arithmetic": [
                {
                    "line": entry.line.number,
                    "text": entry.line.text,
                    "verdict": entry.verdict,
                    "computed": entry.shown,
                    "note": entry.note,
                }
                for entry in self.arithmetic
            ],
            "figures": [
                {
                    "figure": entry.key,
                    "unit": entry.unit,
                    "predicted": entry.predicted,
                    "simulated": entry.simulated,
                    "ratio": entry.ratio,
                    "within": entry.near,
                    "problem": entry.problem,
                }
                for entry in self.compared
            ],
            "slo": [asdict(verdict) for verdict in self.slo],
            "bound": self.bound,
            "unfit": self.unfit,
            "not_simulated": self.unrun,
            "devices": self.devices,
            "cost_per_hour": self.cost_per_hour,
            "budget_per_hour": self.budget if isfinite(self.budget) else None,
        }


def design_document(report: DesignReport) -> str:
    """One page in Markdown: what is proposed, what it was found to do, and what is open."""
    parts = [f"# {report.title}", "", *_quoted(report.brief), ""]
    parts += _verdict(report)
    for section in KEYS:
        parts += _settings(report, section)
    parts += [*_figures(report), *_slo(report), *_arithmetic(report), *_risks(report)]
    parts += [*_why(report), *_open(report)]
    return "\n".join(parts).rstrip() + "\n"


def _quoted(text: str) -> list[str]:
    return [f"> {line}".rstrip() for line in text.strip().splitlines()]


def _verdict(report: DesignReport) -> list[str]:
    scores = ", ".join(f"{LAYER_TITLES[n]} {s}/4" for n, s in report.mark.scores.items())
    lines = [f"Graded: {scores}."]
    if report.devices is not None and report.cost_per_hour is not None:
        most = f" of {report.budget:,.2f}" if isfinite(report.budget) else ""
        lines.append(f"{report.devices} devices, {report.cost_per_hour:,.2f}{most} USD an hour.")
    return [" ".join(lines), ""]


def _settings(report: DesignReport, section: str) -> list[str]:
    found = [report.design.settings[key] for key in KEYS[section] if key in report.design.settings]
    lines = [f"## {section}", ""]
    if not found:
        return [*lines, "None given.", ""]
    shown = (f"`{entry.key} = {_plain(entry.value)}`" for entry in found)
    return [*lines, ", ".join(shown), ""]


def _plain(value: bool | float | str) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    return str(value)


def _figures(report: DesignReport) -> list[str]:
    lines = ["## Predicted and simulated", "", "| figure | predicted | simulated | ratio |"]
    lines.append("| --- | --- | --- | --- |")
    for entry in report.compared:
        ratio = "-" if entry.ratio is None else f"{entry.ratio:.2f}"
        predicted = entry.shown(entry.predicted)
        if entry.predicted is None and entry.written:
            predicted = f"not read: {_cell(entry.written)}"
        lines.append(f"| {entry.key} | {predicted} | {entry.shown(entry.simulated)} | {ratio} |")
    if report.unrun:
        lines += ["", f"Not simulated: {_line(report.unrun)}"]
    return [*lines, ""]


def _slo(report: DesignReport) -> list[str]:
    lines = ["## Objective", ""]
    for verdict in report.slo:
        word = {True: "kept", False: "broken", None: "open"}[verdict.kept]
        lines.append(f"- {word}: {verdict.words} ({verdict.note})")
    if not report.slo:
        lines.append("- none but the cost")
    if report.bound:
        lines.append(f"- what bounds it: {report.bound}")
    return [*lines, ""]


def _arithmetic(report: DesignReport) -> list[str]:
    lines = ["## Arithmetic", ""]
    for entry in report.arithmetic:
        comment = f" ({_line(entry.comment)})" if entry.comment else ""
        verdict = entry.verdict
        if entry.verdict in ("wrong", "unstated"):
            verdict = f"{entry.verdict}, {entry.shown} was computed"
        elif entry.verdict == "unread":
            verdict = f"not read: {_line(entry.note)}"
        lines.append(f"- {_code(entry.line.text)}{comment}: {verdict}")
    return [*(lines if report.arithmetic else [*lines, "None."]), ""]


def _risks(report: DesignReport) -> list[str]:
    lines = ["## Risks", ""]
    for risk in report.design.risks:
        shows = _line(risk.shows) or "nothing named"
        lines.append(f"- {_line(risk.what)} Shows as: {shows}")
    return [*(lines if report.design.risks else [*lines, "None named."]), ""]


def _why(report: DesignReport) -> list[str]:
    text = report.design.why.text.strip()
    if not text:
        return []
    lines = (_line(line) for line in text[:_LONGEST_WHY].splitlines())
    cut = [f"(cut after {_LONGEST_WHY:,} characters)"] if len(text) > _LONGEST_WHY else []
    return ["## Why", "", *lines, *cut, ""]


def _open(report: DesignReport) -> list[str]:
    """What was not found or not understood, so that the next draft begins there."""
    points = list(_open_points(report))
    return ["## Open points", "", *(f"- {point}" for point in points or ["none"]), ""]


def _open_points(report: DesignReport) -> Iterator[str]:
    if report.unfit:
        yield _line(report.unfit)
    for layer in report.mark.layers:
        for finding in layer.findings:
            if finding.verdict != "found":
                note = f" ({_line(finding.note)})" if finding.note else ""
                yield f"{finding.verdict}: {_line(finding.says)}{note}"
    for problem in report.problems:
        yield f"not read: {_line(problem)}"


def _line(text: str) -> str:
    """Text of a candidate on one line, with what Markdown would take for markup or HTML escaped."""
    plain = printable(" ".join(text.split()))
    return plain.replace("\\", "\\\\").replace("<", "&lt;").replace("`", "\\`").replace("[", "\\[")


def _cell(text: str) -> str:
    return _line(text).replace("|", "\\|")


def _code(text: str) -> str:
    return f"`{printable(text).replace('`', chr(39))}`"
