"""The order of the checks: what costs a look before what costs a day.

A check that fails disqualifies, and the rest is not run unless it is asked for. An unknown does not
disqualify: it is for the person to settle, so the run goes on.
"""

from __future__ import annotations

from collections.abc import Callable

from trackrecord.issues.similarity import Similar, similar
from trackrecord.pr.gauntlet.case import Case
from trackrecord.pr.gauntlet.claimed import check_claimed
from trackrecord.pr.gauntlet.claimed_note import check_claimed_note
from trackrecord.pr.gauntlet.report import CheckName, CheckResult, Report
from trackrecord.pr.gauntlet.reproducible import check_reproducible
from trackrecord.pr.gauntlet.reviewable import check_reviewable
from trackrecord.pr.gauntlet.testable import check_testable
from trackrecord.pr.gauntlet.thread import day
from trackrecord.pr.gauntlet.within_map import check_within_map

SIMILAR = 5


def run_gauntlet(case: Case, run_all: bool = False) -> Report:
    """The report on `case`.

    Args:
        run_all: go on after a check that disqualifies.
    """
    results: list[CheckResult] = []
    skipped: list[CheckName] = []
    for name, check in CHECKS.items():
        if results and results[-1].verdict == "fail" and not run_all:
            skipped = list(CHECKS)[len(results) :]
            break
        results.append(check(case))
        assert results[-1].check == name
    as_of = day(case.now) or ""
    return Report(case.name, case.title, case.url, as_of, tuple(results), tuple(skipped))


def _claimed(case: Case) -> CheckResult:
    if case.thread is None:
        return check_claimed_note(case)
    return check_claimed(case.thread, _similar(case))


def _similar(case: Case) -> tuple[Similar, ...]:
    assert case.store is not None
    assert case.issue is not None
    return tuple(similar(case.store, case.issue.number, SIMILAR))


CHECKS: dict[CheckName, Callable[[Case], CheckResult]] = {
    "claimed": _claimed,
    "reproducible": check_reproducible,
    "within-map": check_within_map,
    "testable": check_testable,
    "reviewable": check_reviewable,
}
