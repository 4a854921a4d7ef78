"""How far the claimed check can be trusted: its outcomes against those a person judged.

The judgements are a JSON object: number to `{"claimed": OUTCOME}`, with the outcomes of
`claimed.Outcome`.
"""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any, get_args

from trackrecord.issues.store import Store
from trackrecord.pr.gauntlet.case import CaseError
from trackrecord.pr.gauntlet.claimed import Judgement, Outcome, judge
from trackrecord.pr.gauntlet.thread import Thread

OUTCOMES: tuple[Outcome, ...] = get_args(Outcome)
TAKEN: tuple[Outcome, ...] = ("claimed", "fixed", "duplicate", "stale-claim")
WANTED = 0.9


@dataclass(frozen=True)
class Agreement:
    """The comparison; `table` counts (judged, found)."""

    table: Counter[tuple[Outcome, Outcome]]
    differing: tuple[tuple[int, Outcome, Judgement], ...]
    missing: tuple[int, ...]

    @property
    def decided(self) -> int:
        return sum(n for (_, found), n in self.table.items() if found != "unknown")

    @property
    def agreeing(self) -> int:
        return sum(n for (wanted, found), n in self.table.items() if wanted == found != "unknown")

    @property
    def false_free(self) -> int:
        """Taken issues that were called free: what must never happen."""
        return sum(self.table[wanted, "free"] for wanted in TAKEN)

    @property
    def good_enough(self) -> bool:
        return self.agreeing >= WANTED * self.decided and not self.false_free

    def to_json(self) -> dict[str, Any]:
        return {
            "threads": self.table.total(),
            "decided": self.decided,
            "agreeing": self.agreeing,
            "false_free": self.false_free,
            "good_enough": self.good_enough,
            "table": {w: {f: self.table[w, f] for f in OUTCOMES} for w in OUTCOMES},
            "differing": [
                {"number": n, "judged": wanted, "found": j.outcome, "because": j.summary}
                for n, wanted, j in self.differing
            ],
            "missing": list(self.missing),
        }


def read_judgements(path: Path) -> dict[int, Outcome]:
    """The judged outcomes in the file `path`.

    Raises:
        CaseError: it cannot be read, or judges with a word that is no outcome.
    """
    try:
        document = json.loads(path.read_text(encoding="utf-8"))
        found = {int(number): entry["claimed"] for number, entry in document.items()}
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise CaseError(f"{path}: not judgements of issues ({error!r:.80})") from None
    for number, outcome in found.items():
        if outcome not in OUTCOMES:
            raise CaseError(
                f"{path}: #{number}: no outcome {outcome!r} (known: {', '.join(OUTCOMES)})"
            )
    return found


def compare(store: Store, judged: dict[int, Outcome], now: datetime) -> Agreement:
    """Judges every thread of `judged` that the store has."""
    table: Counter[tuple[Outcome, Outcome]] = Counter()
    differing, missing = [], []
    for number, wanted in judged.items():
        issue = store.issue(number)
        if issue is None:
            missing.append(number)
            continue
        found = judge(Thread(store, issue, now))
        table[wanted, found.outcome] += 1
        if found.outcome != wanted:
            differing.append((number, wanted, found))
    return Agreement(table, tuple(differing), tuple(missing))


def as_text(agreement: Agreement) -> str:
    """The table, the differences, and whether it is good enough."""
    width = max(map(len, OUTCOMES))
    lines = ["judged \\ found".ljust(width + 4) + " ".join(f"{f:>11}" for f in OUTCOMES)]
    for wanted in OUTCOMES:
        counts = " ".join(f"{agreement.table[wanted, found] or '.':>11}" for found in OUTCOMES)
        lines.append(wanted.ljust(width + 4) + counts)
    lines.append("")
    for number, wanted, found in agreement.differing:
        lines.append(f"#{number}: judged {wanted}, found {found.outcome}: {found.summary}")
    if agreement.missing:
        lines.append(f"not in the store: {', '.join(f'#{n}' for n in agreement.missing)}")
    share = agreement.agreeing / agreement.decided if agreement.decided else 1.0
    lines.append(
        f"{agreement.agreeing} of {agreement.decided} decided agree ({share:.0%}), "
        f"{agreement.table.total() - agreement.decided} left open, "
        f"{agreement.false_free} taken ones called free"
    )
    return "\n".join(lines)
