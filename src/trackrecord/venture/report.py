"""A sheet in, a report out: every figure with its derivation and its range, as data.

Invariant: a report depends on the sheet, its scenario, the seed, the number of draws and the date
it is told, on nothing else; what is saved is enough to draw the page again, to the byte.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from datetime import date
from pathlib import Path
from typing import Any

from mini_vllm.bench.records import from_json
from mini_vllm.errors import InvalidInputError
from trackrecord.errors import TrackRecordError
from trackrecord.venture import economics, options, thesis
from trackrecord.venture.economics import Economics
from trackrecord.venture.figures import (
    PROBABILITIES,
    Figure,
    from_assumption,
    from_quantity,
    probability,
)
from trackrecord.venture.keys import KEYS, OPTIONS
from trackrecord.venture.lint import Problem, lint
from trackrecord.venture.moats import Judged, judge
from trackrecord.venture.options import Flip
from trackrecord.venture.serving import Served, serve
from trackrecord.venture.sheet import Sheet
from trackrecord.venture.thesis import Segment
from trackrecord.venture.uncertainty import (
    DRAWS,
    Bar,
    Distribution,
    finite,
    monte_carlo,
    samples,
    tornado,
)

SCHEMA = "trackrecord-venture/1"
TORNADOES = ("gross_margin", "cost_per_million_output", "cost_per_million_input")
"""Figures whose sensitivities are drawn."""
MOST_BYTES = 5_000_000


@dataclass(frozen=True)
class Assumed:
    """One assumption, for the table."""

    key: str
    words: str
    unit: str
    anchor: str
    value: float
    low: float
    high: float
    distribution: str
    date: str
    source: str
    example: bool


@dataclass(frozen=True)
class AtUtilisation:
    """What tokens would cost if this fleet were used to this share of its goodput."""

    utilisation: float
    per_million_input: float
    per_million_output: float


@dataclass(frozen=True)
class Choice:
    """An option's time to value, and in which share of the draws it was the cheapest."""

    name: str
    months_to_serve: float
    cheapest: float


@dataclass(frozen=True)
class Simulation:
    """The deployment behind all figures."""

    title: str
    cost_model: str
    devices: int
    requests: int
    load: float
    rate: float
    attained: float
    has_slo: bool
    meets_slo: bool
    ttft_p99: float | None
    tpot_p99: float | None
    bottleneck: str


@dataclass(frozen=True)
class VentureReport:
    """All that a page shows."""

    schema: str
    title: str
    dated: str
    draws: int
    seed: int
    simulation: Simulation
    figures: list[Figure]
    assumptions: list[Assumed]
    distributions: dict[str, Distribution]
    tornadoes: dict[str, list[Bar]]
    curve_name: str
    hours: list[float]
    by_utilisation: list[AtUtilisation]
    best: str
    choices: list[Choice]
    flips: list[Flip]
    moats: list[Judged]
    thesis: list[list[Segment]]
    falsifiers: list[str]
    problems: list[Problem]

    def figure(self, key: str) -> Figure:
        """The figure of that name."""
        return next(figure for figure in self.figures if figure.key == key)

    @property
    def is_positive(self) -> bool:
        """Whether the objective is kept, the sheet can be checked, and a gross margin above 0 is
        more likely than not."""
        likely = self.figure("probability_gross_margin").value or 0.0
        errors = any(problem.is_error for problem in self.problems)
        return self.simulation.meets_slo and not errors and likely > 0.5

    def to_json(self) -> dict[str, Any]:
        return asdict(self)


def build_report(
    sheet: Sheet,
    today: date,
    *,
    draws: int = DRAWS,
    seed: int = 0,
    say: Callable[[str], None] = lambda message: None,
) -> VentureReport:
    """Simulates, computes, and draws.

    Raises:
        SheetError, InvalidInputError: the sheet and its scenario do not go together.
    """
    served = serve(sheet.serving, say)

    def at(values: Mapping[str, float]) -> Economics:
        return Economics(served, values, sheet.curve)

    def measure(values: Mapping[str, float]) -> dict[str, float]:
        found = economics.measure(at(values)) | options.measure(at(values))
        cheapest = min(OPTIONS, key=lambda name: found[f"expected_cost_{name}"])
        return found | {f"cheapest_{name}": float(name == cheapest) for name in OPTIONS}

    base = at(sheet.values)
    say(f"drawing {draws:,} sets of assumptions")
    spreads = monte_carlo(samples(sheet.assumptions, draws, seed), measure)
    say("looking for what flips the decision")
    flips = options.flips(sheet.assumptions, lambda values: options.best(at(values)))
    quantities = economics.figures(base) | options.figures(base)
    figures = [from_quantity(key, q, spreads[key]) for key, q in quantities.items()]
    figures += [
        probability(key, spreads[of], draws, seed) for key, (_, of) in PROBABILITIES.items()
    ]
    assumed = {name: from_assumption(a) for name, a in sheet.assumptions.items()}
    return VentureReport(
        schema=SCHEMA,
        title=sheet.title,
        dated=today.isoformat(),
        draws=draws,
        seed=seed,
        simulation=_simulation(served),
        figures=figures,
        assumptions=_assumed(sheet, assumed),
        distributions={key: spreads[key] for key in quantities},
        tornadoes={
            key: tornado(
                sheet.assumptions,
                lambda values, key=key: economics.measure(at(values))[key],  # type: ignore[misc]
            )
            for key in TORNADOES
        },
        curve_name=sheet.curve_name,
        hours=base.hours_used,
        by_utilisation=_by_utilisation(base),
        best=options.best(base),
        choices=[
            Choice(
                name,
                sheet.values[f"options.{name}.months_to_serve"],
                spreads[f"cheapest_{name}"].positive,
            )
            for name in OPTIONS
        ],
        flips=flips,
        moats=judge(sheet.moats, sheet.values["options.horizon_months"]),
        thesis=thesis.paragraphs(sheet.thesis, {f.key: f for f in figures} | assumed),
        falsifiers=[line for line in sheet.falsifiers if line.strip()],
        problems=lint(sheet, today),
    )


def _simulation(served: Served) -> Simulation:
    return Simulation(**{name: getattr(served, name) for name in Simulation.__dataclass_fields__})


def _assumed(sheet: Sheet, figures: Mapping[str, Figure]) -> list[Assumed]:
    return [
        Assumed(
            name,
            KEYS[name].words,
            KEYS[name].unit,
            figures[name].anchor,
            a.value,
            a.low,
            a.high,
            a.distribution,
            a.date,
            a.source,
            a.example,
        )
        for name, a in sheet.assumptions.items()
    ]


def _by_utilisation(e: Economics) -> list[AtUtilisation]:
    shared, share = e.hardware_month + e.storage_month, e.served.input_share
    found = []
    for percent in range(5, 101, 5):
        sold = e.deployments * e.full_month * percent / 100
        found.append(
            AtUtilisation(
                percent / 100,
                shared * share / (sold * e.served.input_per_output),
                shared * (1 - share) / sold + e.egress_per_million,
            )
        )
    return [point for point in found if finite(point.per_million_output) is not None]


def read_report(path: Path) -> VentureReport:
    """The report that was saved at `path`.

    Raises:
        TrackRecordError: it cannot be read, or is not such a report.
    """
    again = "make it again: trackrecord venture report SHEET.toml"
    try:
        if path.stat().st_size > MOST_BYTES:
            raise TrackRecordError(f"{str(path)!r} is too large for a venture report: {again}")
        data = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise TrackRecordError(f"cannot read {str(path)!r}: {error.strerror}") from None
    except (ValueError, RecursionError):
        raise TrackRecordError(f"{str(path)!r} is not JSON: {again}") from None
    if not isinstance(data, dict) or data.get("schema") != SCHEMA:
        raise TrackRecordError(f"{str(path)!r} is not a {SCHEMA} document: {again}")
    try:
        report = from_json(VentureReport, data)
        _check(report)
    except (InvalidInputError, ValueError, RecursionError) as error:
        raise TrackRecordError(f"{str(path)!r}: {error}: {again}") from None
    return report


def _check(report: VentureReport) -> None:
    """That a page can be drawn of it."""
    keys = {figure.key for figure in report.figures}
    wanted = {*economics.FIGURES, *options.FIGURES, *PROBABILITIES}
    drawn = {*economics.FIGURES, *options.FIGURES}
    if (
        keys != wanted
        or set(report.distributions) != drawn
        or set(report.tornadoes) != {*TORNADOES}
    ):
        raise ValueError("lacks figures that a report has")
    if [a.key for a in report.assumptions] != list(KEYS) or len(report.hours) != 24:
        raise ValueError("lacks assumptions that a report has")
    if any(bar.key not in KEYS for bars in report.tornadoes.values() for bar in bars) or any(
        flip.key not in KEYS for flip in report.flips
    ):
        raise ValueError("names an assumption that there is not")
    if [choice.name for choice in report.choices] != list(OPTIONS) or report.best not in OPTIONS:
        raise ValueError("lacks an option")
    anchors = {f.anchor for f in report.figures} | {a.anchor for a in report.assumptions}
    linked = {segment.anchor for paragraph in report.thesis for segment in paragraph}
    if not linked <= {"", *anchors}:
        raise ValueError("has a number that links to no derivation")
    for spread in report.distributions.values():
        if len(spread.edges) != len(spread.counts) + 1 or not spread.counts:
            raise ValueError("has a histogram that is none")
    if not report.by_utilisation:
        raise ValueError("has no cost by utilisation")
