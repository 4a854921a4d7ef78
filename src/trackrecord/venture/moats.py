"""What is said to keep others away, and what would show that it does not.

Invariant: a moat without evidence is a hope, and is called one.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from trackrecord.venture.sheet import Moat


@dataclass(frozen=True)
class Judged:
    """One claimed moat.

    Args:
        months: until upstream ships the same; None where nobody said.
        outlasts: whether that is later than the horizon.
    """

    kind: str
    claim: str
    evidence: list[str]
    is_hope: bool
    months: float | None
    outlasts: bool
    falsifier: str

    @property
    def lasts(self) -> str:
        """How long it holds, in words."""
        if self.months is None:
            return "not said"
        beyond = "beyond the horizon" if self.outlasts else "gone within the horizon"
        return f"{self.months:g} months, {beyond}"


def judge(moats: Sequence[Moat], horizon_months: float) -> list[Judged]:
    """The moats, those with evidence first, the longest-lived of them first."""
    found = [
        Judged(
            moat.kind,
            moat.claim,
            list(moat.evidence),
            not moat.evidence,
            moat.months_until_upstream,
            moat.months_until_upstream is not None and moat.months_until_upstream > horizon_months,
            moat.falsifier,
        )
        for moat in moats
    ]
    return sorted(found, key=lambda moat: (moat.is_hope, -(moat.months or 0)))
