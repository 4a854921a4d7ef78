"""What a check says: a verdict, the lines that support it, and what would settle an unknown.

Invariant: `Evidence.text` is text from outside, exactly as it was written and therefore never to be
printed as it is. `render` and `pr.quoting` are the two ways out.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import Any, Literal

Verdict = Literal["pass", "fail", "unknown"]
CheckName = Literal["claimed", "reproducible", "within-map", "testable", "reviewable"]


@dataclass(frozen=True, slots=True)
class Evidence:
    """One line that was read, and where.

    Attributes:
        text: the words as written, one line; "" where the evidence is a recorded fact.
        says: what it shows, in our words.
        url: the page it stands on.
        author: login of who wrote it, "" where nobody did.
        date: the day, `2026-08-27`; None where it was not recorded.
        line: line of the comment, body or file on which `text` stands, from 1.
    """

    text: str
    says: str
    url: str = ""
    author: str = ""
    date: str | None = None
    line: int | None = None


@dataclass(frozen=True, slots=True)
class CheckResult:
    """The outcome of one check.

    Attributes:
        summary: one sentence that a person can act on.
        settle: what would turn an unknown, each a thing that somebody can do.
        details: figures and names of this check, ready for JSON.
    """

    check: CheckName
    verdict: Verdict
    summary: str
    evidence: tuple[Evidence, ...] = ()
    settle: tuple[str, ...] = ()
    details: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Report:
    """The run of one candidate through the checks.

    Attributes:
        name: "#123" or "T4".
        skipped: checks that were not run because an earlier one disqualified.
    """

    name: str
    title: str
    url: str
    as_of: str
    results: tuple[CheckResult, ...]
    skipped: tuple[CheckName, ...] = ()

    @property
    def verdict(self) -> Verdict:
        """The worst of the checks: one failure disqualifies, one unknown leaves it open."""
        verdicts = {result.verdict for result in self.results}
        if "fail" in verdicts:
            return "fail"
        return "unknown" if "unknown" in verdicts or self.skipped else "pass"

    @property
    def survives(self) -> bool:
        return self.verdict == "pass"

    def to_json(self) -> dict[str, Any]:
        return {
            "name": self.name,
            "title": self.title,
            "url": self.url,
            "as_of": self.as_of,
            "verdict": self.verdict,
            "survives": self.survives,
            "checks": [_json(result) for result in self.results],
            "skipped": list(self.skipped),
        }


def _json(result: CheckResult) -> dict[str, Any]:
    document = asdict(result)
    document["evidence"] = [asdict(entry) for entry in result.evidence]
    return document
