"""Two revisions measured against each other, in turn, in trees of their own.

Machines drift, so the sides are measured in pairs, and which side of a pair comes first
alternates. What is reported is the median of each side and the median ratio of the pairs with its
95 % interval (bootstrap over pairs, percentile method; Efron and Tibshirani, "An Introduction to
the Bootstrap", 1993, chapter 13).

Invariant: the person's working tree is not touched; each side sees its own files first on Python's
path, so that an installed copy of the package is not measured in place of both.
"""

from __future__ import annotations

import math
import os
import re
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np

from trackrecord.errors import TrackRecordError
from trackrecord.pr.evidence import (
    Outcome,
    environment_facts,
    execute,
    hider,
    kept_words,
)
from trackrecord.pr.gitrepo import Repository
from trackrecord.pr.journal import Entry, Journal

RESAMPLES = 10_000
CONFIDENCE = 0.95
MIN_RUNS = 3
_SEED = 0


@dataclass(frozen=True)
class Effect:
    """How the "after" side compares.

    `ratio` is after / before, the median over pairs, in [`low`, `high`] at 95 %. `verdict` is
    "better", "worse" or "no difference shown" (the interval holds 1).
    """

    ratio: float
    low: float
    high: float
    pairs: int
    verdict: str

    def sentence(self, unit: str) -> str:
        """As `-12.3 % [-14.0, -10.1] s, better (7 pairs)`."""
        change, low, high = (100 * (value - 1) for value in (self.ratio, self.low, self.high))
        return (
            f"{change:+.1f} % [{low:+.1f}, {high:+.1f}] in {unit}: {self.verdict} "
            f"({self.pairs} pairs)"
        )


@dataclass(frozen=True)
class Metric:
    """What is compared: seconds, or the first group of `pattern` in the output, as a number."""

    pattern: str = ""
    unit: str = "s"
    higher_is_better: bool = False

    def read(self, outcome: Outcome) -> float:
        """The figure of one run.

        Raises:
            TrackRecordError: the output does not have it.
        """
        if not self.pattern:
            return outcome.seconds
        found = list(re.finditer(self.pattern, outcome.tail))
        try:
            value = float(found[-1][1].replace(",", ""))
        except (IndexError, ValueError):
            raise TrackRecordError(
                f"--metric {self.pattern!r} finds no number in the end of the output"
            ) from None
        if not (math.isfinite(value) and value > 0):
            raise TrackRecordError(f"--metric gave {value}, and a ratio needs a positive number")
        return value


def check_pattern(pattern: str) -> str:
    """`pattern` if it is a regular expression with one group; an argparse type in spirit."""
    try:
        groups = re.compile(pattern).groups
    except re.error as error:
        raise TrackRecordError(f"--metric {pattern!r} is no regular expression: {error}") from None
    if groups < 1:
        raise TrackRecordError(f"--metric {pattern!r} needs a group around the number")
    return pattern


def record_bench(
    journal: Journal,
    repository: Repository,
    command: Sequence[str],
    *,
    before: str,
    after: str,
    runs: int = 5,
    metric: Metric | None = None,
    setup: Sequence[str] = (),
    seconds: float | None = None,
    note: str = "",
    progress: Callable[[str], None] = lambda _: None,
) -> Entry:
    """Measures both revisions and records the comparison.

    Args:
        runs: measured runs of each side, after one that is not counted.
        setup: a command run once in each tree first (a build).
        seconds: limit for one run.

    Raises:
        GitError: a revision that does not exist.
        TrackRecordError: both are the same commit; a run failed, or showed no figure.
        WorkspaceError: the journal cannot take an entry; nothing was run then.
    """
    journal.check_writable()
    metric = metric or Metric()
    commits = {"before": repository.commit_id(before), "after": repository.commit_id(after)}
    if commits["before"] == commits["after"]:
        raise TrackRecordError(f"--before and --after are the same commit {commits['before'][:12]}")
    with (
        repository.worktree(commits["before"]) as old,
        repository.worktree(commits["after"]) as new,
    ):
        trees = {"before": old, "after": new}
        for side, tree in trees.items():
            if setup:
                progress(f"setting up {side}")
                _run(setup, tree, side, seconds)
            progress(f"warming up {side}")
            _run(command, tree, side, seconds)
        samples: dict[str, list[float]] = {"before": [], "after": []}
        last: dict[str, Outcome] = {}
        for pair in range(runs):
            for side in ("before", "after") if pair % 2 == 0 else ("after", "before"):
                progress(f"pair {pair + 1} of {runs}: {side}")
                last[side] = _run(command, trees[side], side, seconds)
                samples[side].append(metric.read(last[side]))
    result = effect(samples["before"], samples["after"], metric.higher_is_better)
    hide = hider(os.environ)
    data: dict[str, Any] = {
        "command": kept_words(command, hide),
        "role": "benchmark",
        "note": hide(note),
        "unit": metric.unit,
        "metric": metric.pattern or "wall clock",
        "higher_is_better": metric.higher_is_better,
        "effect": asdict(result),
        "environment": environment_facts(os.environ),
    }
    for side, revision in (("before", before), ("after", after)):
        data[side] = {
            "revision": revision,
            "commit": commits[side],
            "median": median(samples[side]),
            "samples": samples[side],
            "output_sha256": last[side].output_sha256,
        }
    return journal.append("bench", data)


def effect(before: Sequence[float], after: Sequence[float], higher_is_better: bool) -> Effect:
    """The median ratio of pairs, and its interval.

    Args:
        before, after: positive figures; the i-th of each were measured next to each other.
    """
    logs = np.array([math.log(b / a) for a, b in zip(before, after, strict=True)])
    if not len(logs):
        raise ValueError("a comparison needs at least one pair")
    drawn = np.random.default_rng(_SEED).integers(0, len(logs), (RESAMPLES, len(logs)))
    tail = (1 - CONFIDENCE) / 2
    low, high = map(float, np.exp(np.quantile(np.median(logs[drawn], axis=1), [tail, 1 - tail])))
    if low <= 1 <= high or len(logs) < MIN_RUNS:
        verdict = "no difference shown"
    else:
        verdict = "better" if (low > 1) == higher_is_better else "worse"
    return Effect(math.exp(float(np.median(logs))), low, high, len(logs), verdict)


def _run(command: Sequence[str], tree: Path, side: str, seconds: float | None) -> Outcome:
    path = os.pathsep.join(filter(None, [str(tree), os.environ.get("PYTHONPATH", "")]))
    variables = {k: v for k, v in os.environ.items() if not k.startswith("GIT_")}
    variables |= {"PYTHONPATH": path, "TRACKRECORD_SIDE": side}
    outcome = execute(command, tree, seconds=seconds, variables=variables)
    if outcome.exit_code:
        how = "took too long" if outcome.timed_out else f"ended with {outcome.exit_code}"
        lines = outcome.tail.strip().splitlines() or ["no output"]
        raise TrackRecordError(f"{command[0]} {how} on the {side} side: {lines[-1][:200]}")
    return outcome
