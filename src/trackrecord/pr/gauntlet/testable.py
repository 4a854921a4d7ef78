"""Check 4: can a regression test be written, and will it run, here and in upstream's CI?

Asked for the load-bearing functions: which tests stand near, whether they run without a GPU, and
which step of CI would run a new test beside them.
"""

from __future__ import annotations

from collections.abc import Sequence

from trackrecord.pr.gauntlet.case import Case
from trackrecord.pr.gauntlet.places import Place
from trackrecord.pr.gauntlet.report import CheckResult, Evidence
from trackrecord.pr.gauntlet.reproducible import SAY_HARDWARE
from trackrecord.upstream.ci import StepRule, steps_running
from trackrecord.upstream.index.records import TestRef
from trackrecord.upstream.index.scan import is_test_module

MAX_PLACES = 3
CPU_MARK = "cpu_test"
"""Upstream's mark for tests that need no accelerator."""
_KERNELS = (".cu", ".cuh", ".cpp", ".h", ".hpp")


def check_testable(case: Case) -> CheckResult:
    """Looks for tests beside the load-bearing functions."""
    places = _tested_first(case)
    if not places:
        settle = ("find the function that is at fault: without one there is nothing to test",)
        return CheckResult("testable", "unknown", "no load-bearing function is known", (), settle)
    tests = tests_of(case, places)
    cpu = [test for test in tests if test.needs_gpu is False]
    unsure = [test for test in tests if test.needs_gpu is None]
    has_gpu = bool(case.gpus)
    model = next(iter(cpu or (unsure if not has_gpu else tests) or tests), None)
    steps = steps_for(case, model.path, cpu=bool(cpu)) if model else []
    details = {
        "tests": [f"{t.path}::{t.name}" if t.name else t.path for t in tests[:8]],
        "without_gpu": len(cpu),
        "with_gpu": len(tests) - len(cpu) - len(unsure),
        "steps": [step.label for step in steps],
    }
    evidence = tuple(_evidence(case, test) for test in (cpu or tests)[:3])
    where = places[0].name
    if not tests:
        return _untested(case, places[0], details)
    assert model is not None
    runs = f"CI runs a new one in “{steps[0].label}”" if steps else "no CI step would run a new one"
    if cpu:
        words = f"{_tests(cpu)} near {where} without a GPU; {runs}"
        if steps:
            return CheckResult("testable", "pass", words, evidence, (), details)
        settle = (f"find the step that runs {model.path.rpartition('/')[0]}/",)
        return CheckResult("testable", "unknown", words, evidence, settle, details)
    if has_gpu and steps:
        words = f"{_tests(tests)} near {where} need a GPU, which you have; {runs}"
        return CheckResult("testable", "pass", words, evidence, (), details)
    if unsure:
        words = f"{_tests(unsure)} near {where}, and none says whether it needs a GPU; {runs}"
        settle = (f"run {unsure[0].path} on your machine",)
        return CheckResult("testable", "unknown", words, evidence, settle, details)
    if case.gpus is None:
        words = f"every test near {where} needs a GPU"
        settle = (SAY_HARDWARE,)
        return CheckResult("testable", "unknown", words, evidence, settle, details)
    words = f"every test near {where} needs a GPU, and you have none"
    return CheckResult("testable", "fail", words, evidence, (), details)


def _tested_first(case: Case) -> list[Place]:
    """The first place that has a test without a GPU, alone; else the likeliest places."""
    places = case.places[:MAX_PLACES]
    for place in places:
        if any(test.needs_gpu is False for test in tests_of(case, [place])):
            return [place]
    return places


def _tests(tests: Sequence[TestRef]) -> str:
    return f"{len(tests)} test{'s' * (len(tests) != 1)}"


def tests_of(case: Case, places: Sequence[Place]) -> list[TestRef]:
    """The tests near the places: those that use a function before those that import its file."""
    found: dict[tuple[str, str], TestRef] = {}
    for place in places:
        for test in case.index.tests_near(place.path, place.symbol):
            known = found.get((test.path, test.name))
            if known is None or test.distance < known.distance:
                found[test.path, test.name] = test
    nearness = sorted(found.values(), key=lambda t: (t.distance, not t.name, t.path, t.line))
    return [test for test in nearness if is_test_module(test.path)]


def steps_for(case: Case, path: str, cpu: bool) -> list[StepRule]:
    """The CI steps whose commands run a test of the file `path`; those on a CPU machine first."""
    steps = steps_running(case.index.steps, path, (CPU_MARK,) if cpu else ())
    own = [step for step in steps if not step.label.startswith(("AMD", "XPU", "Intel", "Ascend"))]
    return sorted(own or steps, key=lambda step: (step.optional, step.on_cpu != cpu))


def _untested(case: Case, place: Place, details: dict[str, object]) -> CheckResult:
    if place.path.endswith(_KERNELS) and case.gpus == 0:
        words = f"{place.path} is compiled for accelerators, and you have none"
        return CheckResult("testable", "fail", words, (), (), details)
    words = f"no test comes near {place.name}"
    settle = (f"look whether {place.name} can be called without a model and a GPU",)
    return CheckResult("testable", "unknown", words, (), settle, details)


def _evidence(case: Case, test: TestRef) -> Evidence:
    name = f"{test.path}::{test.name}" if test.name else test.path
    need = {True: "needs a GPU", False: "needs no GPU", None: "need of a GPU unknown"}[
        test.needs_gpu
    ]
    says = f"{test.relation}; {need} ({test.reason})"
    return Evidence(name, says, case.index.tree.pin.url(test.path, test.line))
