"""How long the loop lets one wait: the start to the first question, and the grading of an answer.

    python benchmarks/loop.py

The start is of the whole command, typed into a pipe, five times; grading is of every model answer
of the bank, of every incident once it has run, and of every design without its simulation. Medians,
with the slowest beside them.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable

from trackrecord.loop import design, incidents
from trackrecord.loop.bank.checks import model_answer
from trackrecord.loop.bank.grade import grade_question
from trackrecord.loop.bank.load import load_bank
from trackrecord.loop.items import Answer

STARTS = 5


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--json", action="store_true")
    args = parser.parse_args()
    figures = {
        "start to the first question": _figures(_start() for _ in range(STARTS)),
        "grading an answer to a question": _figures(_questions()),
        "grading an incident that has run": _figures(_incidents()),
        "grading a design, not simulated": _figures(_designs()),
    }
    if args.json:
        print(json.dumps(figures, indent=2))
        return 0
    for name, found in figures.items():
        median, slowest = found["median_ms"], found["slowest_ms"]
        print(f"{name:<34}{median:>8.0f} ms median{slowest:>8.0f} ms slowest  n={found['n']}")
    return 0


def _start() -> float:
    """Seconds from the command to the first question, of which the countdown is the last line."""
    with tempfile.TemporaryDirectory() as folder:
        begun = time.perf_counter()
        words = ("loop", "start", "--session", "1", "--workspace", folder)
        with subprocess.Popen(
            [sys.executable, "-m", "trackrecord.cli", *words],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        ) as program:
            assert program.stdout is not None
            for line in program.stdout:
                if "left" in line:
                    break
            taken = time.perf_counter() - begun
            program.communicate("/quit\n")
    return taken


def _questions() -> Iterable[float]:
    for question in load_bank():
        answer = model_answer(question)
        yield _timed(lambda q=question, a=answer: grade_question(q, a))


def _incidents() -> Iterable[float]:
    for name in incidents.names():
        answer = Answer(f"incident:{name}", incidents.incident_item(name).model)
        incidents.grade_incident(answer)
        yield _timed(lambda a=answer: incidents.grade_incident(a))


def _designs() -> Iterable[float]:
    for name in design.names():
        answer = Answer(f"design:{name}", design.design_item(name).model)
        yield _timed(lambda a=answer: design.grade_design(a, simulate=False))


def _timed(do) -> float:
    begun = time.perf_counter()
    do()
    return time.perf_counter() - begun


def _figures(seconds: Iterable[float]) -> dict[str, float]:
    listed = [1000 * value for value in seconds]
    return {
        "median_ms": round(statistics.median(listed), 1),
        "slowest_ms": round(max(listed), 1),
        "n": len(listed),
    }


if __name__ == "__main__":
    sys.exit(main())
