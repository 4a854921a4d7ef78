"""The mark of a design, in the three layers, and all that it rests on.

Mechanism: topology and knobs fit what the brief allows, and the reasons that decide are given.
Arithmetic: the quantities that decide are worked out and right, and predictions are near what is
simulated. Consequence: the objective is kept within the budget, and the risks are named, each with
what would show it.

Invariant: a layer is the share of its criteria that were found. What can only be told by simulating
is left out, and said to be, until the design was simulated.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache

from mini_vllm.errors import InvalidInputError
from mini_vllm.sim.scenario import Scenario
from mini_vllm.sim.simulate import Result
from mini_vllm.sim.simulate import simulate as run_scenario
from trackrecord.loop.design import figures
from trackrecord.loop.design.facts import prompt_of
from trackrecord.loop.design.figures import (
    NOT_SIMULATED,
    ArithmeticLine,
    Compared,
    quoted,
)
from trackrecord.loop.design.keys import PREDICTED, template
from trackrecord.loop.design.report import DesignReport, SloVerdict
from trackrecord.loop.design.run import choices, out_of_reach, scenario_of
from trackrecord.loop.design.sheet import DesignFile, NamedRisk, read_design
from trackrecord.loop.design.task import Bound, DesignTask, Risk, load_task
from trackrecord.loop.grading.layers import Caps, Judged, layer_mark, notes_of, peek_caps
from trackrecord.loop.grading.points import Point, Text, find_point, read_text
from trackrecord.loop.items import Answer
from trackrecord.loop.marks import (
    UNSHOWN_CAP,
    WRONG_CAP,
    Finding,
    Layer,
    LayerMark,
    Mark,
    Verdict,
)

GUESS_CAP = 1
"""The most that a layer can have of which less than half of what decides is said."""
BROKEN_CAP = 2
"""The most that the consequence can have where the objective or the budget is not kept."""
UNFIT_CAP = 1
"""The most that mechanism and consequence can have where the design does not fit the devices."""
_NOT_ASKED = "it was not asked for"
Say = Callable[[str], None]


@dataclass(frozen=True)
class _Case:
    """A design with what was made of it. `unfit` is why there is no scenario, `unrun` why there is
    no result."""

    task: DesignTask
    design: DesignFile
    unfit: str
    unrun: str
    scenario: Scenario | None
    result: Result | None
    lines: tuple[ArithmeticLine, ...]
    compared: tuple[Compared, ...]


def grade_design(answer: Answer, *, simulate: bool = True, say: Say | None = None) -> DesignReport:
    """The report on an answer to `design:NAME`.

    Args:
        simulate: whether to simulate the design, some seconds at most; without it what a
            simulation would tell is left out of the marks.
        say: is told what is going on.

    Raises:
        DesignError: there is no such scenario.
    """
    task = load_task(answer.item.partition(":")[2])
    case = _case(task, answer.text, simulate, say)
    slo = _slo_verdicts(case)
    layers = (
        _layer("mechanism", *_mechanism(case), answer),
        _layer("arithmetic", *_arithmetic(case), answer),
        _layer("consequence", *_consequence(case, slo), answer),
    )
    notes = notes_of(answer)
    if case.unrun:
        notes.append(f"not simulated: {case.unrun}")
    return DesignReport(
        name=task.name,
        title=task.title,
        brief=task.brief,
        mark=Mark(answer.item, layers, tuple(notes)),
        design=case.design,
        arithmetic=case.lines,
        compared=case.compared,
        slo=slo,
        unfit=case.unfit,
        unrun=case.unrun,
        devices=case.scenario.devices if case.scenario else None,
        cost_per_hour=_hourly(case),
        budget=task.budget,
        result=case.result,
    )


def _case(task: DesignTask, text: str, simulate: bool, say: Say | None) -> _Case:
    design = read_design(text, task.gpus)
    scenario, result, unfit, unrun = None, None, "", "" if simulate else _NOT_ASKED
    try:
        scenario = scenario_of(task, design)
    except InvalidInputError as error:
        unfit = unrun = str(error)
    else:
        unrun = unrun or out_of_reach(task, scenario)
        if not unrun:
            if say is not None:
                say(f"simulating {scenario.requests:,} requests on {scenario.devices} devices")
            result = _simulated(task.name, text)
    lines = figures.check_arithmetic(design)
    compared = figures.compare_predicted(task, design, scenario, result)
    return _Case(task, design, unfit, unrun, scenario, result, lines, compared)


@lru_cache(maxsize=32)
def _simulated(name: str, text: str) -> Result:
    """The simulation of a design that can be simulated; marks and documents ask for the same."""
    task = load_task(name)
    return run_scenario(scenario_of(task, read_design(text, task.gpus)))


def _layer(layer: Layer, judged: Judged, caps: Caps, answer: Answer) -> LayerMark:
    """What only a simulation can tell is shown, and not counted."""
    counted = [(0.0 if f.note == NOT_SIMULATED else weight, f) for weight, f in judged]
    return layer_mark(layer, counted, [*caps, *peek_caps(answer)])


def _hourly(case: _Case) -> float | None:
    scenario = case.scenario
    return None if scenario is None else scenario.price.gpu_hour * scenario.devices


# Mechanism.


def _mechanism(case: _Case) -> tuple[Judged, Caps]:
    caps: Caps = []
    criteria: Judged = [(1.0, _fits(case))]
    if case.unfit:
        caps.append((UNFIT_CAP, f"the design cannot be placed: {case.unfit}"))
    if case.scenario is not None:
        criteria.append((1.0, _within(case, case.scenario.devices, case.task.devices, "devices")))
    criteria += [(1.0, _bounded(case.design, bound)) for bound in case.task.bounds]
    why = case.design.why
    text = read_text(why.text, copied_from=_given_text(case.task))
    reasons = [_moved(find_point(text, point), why.start) for point in case.task.reasons]
    criteria += [
        (2.0 * point.weight, finding)
        for point, finding in zip(case.task.reasons, reasons, strict=True)
    ]
    caps += _half(reasons, "the reasons that decide")
    return criteria, caps


def _given_text(task: DesignTask) -> str:
    """What the candidate was given to read: sentences from it are not the candidate's."""
    return f"{prompt_of(task)}\n{template(task.title)}"


def _fits(case: _Case) -> Finding:
    says = "the topology fits the model and the devices"
    quote, start = _topology_quote(case.design)
    if not quote:
        return Finding(says, "missing", note=case.unfit)
    if case.unfit:
        return Finding(says, "wrong", quote, start, case.unfit)
    return Finding(says, "found", quote, start)


def _topology_quote(design: DesignFile) -> tuple[str, int]:
    """The line that says most of how the model is cut up; nothing where none does."""
    for key in ("tp", "replicas", "pp", "gpu"):
        if setting := design.settings.get(key):
            return quoted(setting)
    return "", -1


def _within(case: _Case, value: float, most: float, what: str) -> Finding:
    quote, start = _topology_quote(case.design)
    verdict: Verdict = "found" if value <= most * (1 + 1e-9) else "wrong"
    note = f"{value:,.4g} of {most:,.4g}"
    return Finding(f"no more {what} than the brief allows", verdict, quote, start, note)


def _bounded(design: DesignFile, bound: Bound) -> Finding:
    says = f"{bound.key} {bound.words}: {bound.why}"
    setting = design.settings.get(bound.key)
    if setting is None:
        return Finding(says, "missing")
    quote, start = quoted(setting)
    return Finding(says, "found" if bound.holds(setting.value) else "wrong", quote, start)


def _half(findings: Sequence[Finding], what: str) -> Caps:
    found = sum(finding.verdict == "found" for finding in findings)
    if 2 * found >= len(findings):
        return []
    return [(GUESS_CAP, f"less than half of {what} said: {found} of {len(findings)}")]


def _moved(finding: Finding, by: int) -> Finding:
    """A finding in a section, as one in the whole text."""
    start = finding.start + by if finding.start >= 0 else -1
    return Finding(finding.says, finding.verdict, finding.quote, start, finding.note)


# Arithmetic.


def _arithmetic(case: _Case) -> tuple[Judged, Caps]:
    model = read_design(case.task.model, case.task.gpus)
    chosen = choices(case.task, case.design, model)
    expected = [figures.find_expected(entry, chosen, case.lines) for entry in case.task.expected]
    caps = _half(expected, "the quantities that decide")
    for finding in expected:
        if finding.verdict != "found":
            caps.append((UNSHOWN_CAP, f"asked for and not shown: {finding.says}"))
    extra = []
    for line in case.lines:
        if line.verdict == "wrong":
            caps.append((WRONG_CAP, f"does not come out: {line.line.text}"))
            extra.append(Finding("arithmetic", "wrong", line.line.text, line.line.start, line.note))
    predicted = [
        entry.finding(PREDICTED[entry.key][1])
        for entry in case.compared
        if entry.key in case.task.predict
    ]
    criteria: Judged = [(2.0, finding) for finding in expected]
    criteria += [(1.0, finding) for finding in predicted]
    criteria += [(0.0, finding) for finding in extra]
    return criteria, caps


# Consequence.


def _consequence(case: _Case, slo: Sequence[SloVerdict]) -> tuple[Judged, Caps]:
    caps: Caps = []
    criteria: Judged = []
    quote, start = _topology_quote(case.design)
    for verdict in slo:
        says = f"the objective is kept: {verdict.words}"
        if verdict.kept is None:
            criteria.append((1.0, _untold(case, says)))
            continue
        found = Finding(says, "found" if verdict.kept else "wrong", quote, start, verdict.note)
        criteria.append((1.0, found))
        if not verdict.kept:
            caps.append((BROKEN_CAP, f"the objective is broken: {verdict.words}"))
    if case.unfit:
        caps.append((UNFIT_CAP, "a design that cannot be placed serves nobody"))
    elif case.unrun and case.unrun != _NOT_ASKED:
        caps.append((BROKEN_CAP, f"not simulated: {case.unrun}"))
    if case.scenario is not None:
        hourly = _hourly(case) or 0.0
        if hourly > case.task.budget * (1 + 1e-9):
            caps.append((BROKEN_CAP, f"{hourly:,.2f} USD an hour is over the budget"))
        if case.task.budget < float("inf"):
            criteria.append((1.0, _within(case, hourly, case.task.budget, "US dollars an hour")))
        if case.task.cost < float("inf"):
            criteria.append((1.0, _costs(case, caps)))
    bullets = _bullets(case)
    risks = [_risk(risk, bullets) for risk in case.task.risks]
    criteria += [
        (2.0 * risk.point.weight, finding)
        for risk, finding in zip(case.task.risks, risks, strict=True)
    ]
    return criteria, [*caps, *_half(risks, "the risks that a staff engineer would name")]


def _untold(case: _Case, says: str) -> Finding:
    """Of a design that cannot be placed nothing is kept; of others it is not yet known."""
    return Finding(says, "missing" if case.unfit else "unclear", note=case.unfit or NOT_SIMULATED)


def _costs(case: _Case, caps: Caps) -> Finding:
    most = case.task.cost
    says = f"a million output tokens for at most {most:,.2f} USD"
    if case.result is None:
        return _untold(case, says)
    quote, start = _topology_quote(case.design)
    cost = case.result.cost_per_million_output
    if cost is not None and cost <= most:
        return Finding(says, "found", quote, start, f"simulated: {cost:,.2f} USD")
    caps.append((BROKEN_CAP, f"a million output tokens cost more than {most:,.2f} USD"))
    note = "none kept the objective" if cost is None else f"simulated: {cost:,.2f} USD"
    return Finding(says, "wrong", quote, start, note)


@dataclass(frozen=True)
class _Bullet:
    """A named risk, its two halves read."""

    named: NamedRisk
    what: Text
    shows: Text


def _bullets(case: _Case) -> list[_Bullet]:
    given = _given_text(case.task)
    return [
        _Bullet(
            named,
            read_text(named.what, copied_from=given),
            read_text(f"It shows as: {named.shows}"),
        )
        for named in case.design.risks
    ]


def _risk(risk: Risk, bullets: Sequence[_Bullet]) -> Finding:
    """Whether a bullet names the risk, and what would show it."""
    says, half = risk.point.says, None
    for bullet in bullets:
        if find_point(bullet.what, risk.point).verdict != "found":
            continue
        line = bullet.named.line
        quote = " ".join(line.text.split())
        if find_point(bullet.shows, Point(says, (risk.shows,))).verdict == "found":
            return Finding(says, "found", quote, line.start)
        note = "named, but not what would show it"
        half = half or Finding(says, "unclear", quote, line.start, note)
    return half or Finding(says, "missing")


def _slo_verdicts(case: _Case) -> tuple[SloVerdict, ...]:
    """What each bound of the brief's objective came to."""
    given = case.task.given.get("slo", {})
    share = given.get("attainment", 0.99)
    verdicts = []
    result = case.result
    for term in ("ttft", "tpot", "e2e"):
        bound = given.get(f"{term}_ms")
        if bound is None:
            continue
        if result is None:
            verdicts.append(SloVerdict(term, bound / 1000, share, None, None, None))
            continue
        broken, served = result.broken.get(term, 0), result.requests + result.refused
        kept = 1 - (broken + result.refused) / served if served else 0.0
        verdicts.append(
            SloVerdict(term, bound / 1000, share, kept, result.latency[term]["p99"], kept >= share)
        )
    if result is not None and result.refused and not verdicts:
        verdicts.append(SloVerdict("answered", 0.0, 1.0, 0.0, None, False))
    return tuple(verdicts)
