"""The venture page: a pure function from a report to HTML, Markdown, data and pictures."""

from __future__ import annotations

import json
from dataclasses import dataclass

from mini_vllm.sim.quantity import seconds
from trackrecord.portfolio.page import Page
from trackrecord.portfolio.render import Table, render
from trackrecord.venture.figures import Figure
from trackrecord.venture.keys import KEYS, OPTIONS
from trackrecord.venture.options import BEYOND, Flip
from trackrecord.venture.plots import all_plots
from trackrecord.venture.report import Assumed, VentureReport
from trackrecord.venture.words import bare, money, number, percent, shown

SLUG = "venture"
_UNIT_ROWS = (
    *("goodput", "gpu_hour", "utilisation", "deployments", "serving_month"),
    *("full_cost_per_million_input", "full_cost_per_million_output"),
    *("cost_per_million_input", "cost_per_million_output"),
    *("revenue_month", "gross_margin", "operating_margin"),
    *("break_even_utilisation", "break_even_traffic"),
)
_MOST_FLIPS = 12


@dataclass(frozen=True)
class Row:
    """One row of the table of assumptions, with the anchor that numbers link to."""

    anchor: str
    cells: list[str]


def venture_page(report: VentureReport) -> Page:
    """The page of `report`, under `venture.html`, `venture.md` and `venture.json`."""
    plots = all_plots(report)
    values = {
        "title": report.title,
        "summary": summary(report),
        "dated": _dated(report),
        "data": f"{SLUG}.json",
        "tiles": _tiles(report),
        "thesis": report.thesis,
        "falsifiers": report.falsifiers,
        "problems": [str(problem) for problem in report.problems if problem.is_error],
        "warnings": _warnings(report),
        "simulation": _simulation(report),
        "economics": [report.figure(key) for key in _UNIT_ROWS],
        "certainty": [
            report.figure("probability_gross_margin"),
            report.figure("probability_operating_margin"),
        ],
        "spread": _spread(report),
        "options": _options(report),
        "choice": _choice(report),
        "flips": [_flip(flip) for flip in report.flips[:_MOST_FLIPS]],
        "no_flips": f"No assumption flips it, moved alone up to {BEYOND:g} times either way.",
        "moats": report.moats,
        "figures": report.figures,
        "columns": ["Assumption", "Value", "Range", "Distribution", "Seen"],
        "assumptions": [_row(assumed) for assumed in report.assumptions],
        "limits": _limits(report),
        "plots": plots,
    }
    files = {
        f"{SLUG}.html": render("venture.html", **values),
        f"{SLUG}.md": render("venture.md", **values),
        f"{SLUG}.json": json.dumps(report.to_json(), indent=1, allow_nan=False).encode() + b"\n",
    }
    for plot in plots.values():
        files |= {f"plots/{plot.name}.svg": plot.svg, f"plots/{plot.name}.png": plot.png}
    return Page(SLUG, report.title, summary(report), files)


def summary(report: VentureReport) -> str:
    """The result in a few sentences, with ranges."""
    margin, cost = report.figure("gross_margin"), report.figure("cost_per_million_output")
    likely = report.figure("probability_gross_margin")
    median = report.distributions["gross_margin"].p50
    middle, drawn = shown(median, "share"), f"{report.draws:,} draws"
    often = max(report.choices, key=lambda choice: choice.cheapest)
    return (
        f"A million output tokens cost {money(cost.value or 0.0)} USD ({cost.range}). The gross "
        f"margin is {margin.with_range} at the values believed most, {middle} in the median of "
        f"{drawn}, and above 0 in {likely.shown} of them. Over the horizon {report.best} costs "
        f"least at the values believed most, and {often.name} in most draws "
        f"({percent(often.cheapest)})."
    )


def _dated(report: VentureReport) -> str:
    return (
        f"Made {report.dated} from a sheet of assumptions and a simulation of "
        f"{report.simulation.requests:,} requests; ranges are the 5th to the 95th percentile of "
        f"{report.draws:,} draws (seed {report.seed})"
    )


def _tiles(report: VentureReport) -> list[tuple[str, str, str]]:
    """The headline figures: value, unit, what it is and its range."""
    found = []
    for key, what in (
        ("cost_per_million_input", "a million input tokens cost"),
        ("cost_per_million_output", "a million output tokens cost"),
        ("gross_margin", "gross margin"),
        ("break_even_traffic", "output tokens a month to break even"),
    ):
        figure = report.figure(key)
        value, _, _ = figure.shown.partition(" ")
        unit = {"share": "%", "million tokens/month": "M"}.get(figure.unit, "USD")
        if figure.value is None:
            value, unit = "never", ""
        found.append((value, unit, f"{what} ({figure.range})" if figure.range else what))
    likely = report.figure("probability_gross_margin")
    found.append((likely.shown.split(" ")[0], "%", "of draws have a gross margin above 0"))
    return found


def _warnings(report: VentureReport) -> list[str]:
    """Findings that are no errors; the same of many keys in one line."""
    lines, examples = [], 0
    for problem in report.problems:
        if problem.rule == "example":
            examples += 1
        elif not problem.is_error:
            lines.append(str(problem).removeprefix("warning: "))
    if examples:
        lines.insert(
            0,
            f"{examples} of {len(report.assumptions)} assumptions are still the "
            "example's values, not yours",
        )
    return lines


def _simulation(report: VentureReport) -> Table:
    found = report.simulation
    kept = f"{percent(found.attained)} of {found.requests:,} requests"
    rows = [
        ["Scenario", found.title],
        ["Devices", str(found.devices)],
        ["Traffic", f"{number(found.load)} x the scenario's; {number(found.rate)} requests/s done"],
        [
            "Objective",
            (("kept by " if found.meets_slo else "broken: kept by ") + kept)
            if found.has_slo
            else "none stated",
        ],
        ["First token, p99", _time(found.ttft_p99)],
        ["Time per output token, p99", _time(found.tpot_p99)],
        ["Step times", found.cost_model],
        ["Bottleneck", found.bottleneck],
    ]
    return Table("The deployment behind the figures, simulated", ["What", "Value"], rows)


def _time(value: float | None) -> str:
    return "–" if value is None else seconds(value)


def _spread(report: VentureReport) -> Table:
    rows = []
    for key in ("cost_per_million_output", "gross_margin", "operating_margin"):
        figure, spread = report.figure(key), report.distributions[key]
        points = (spread.p5, spread.p25, spread.p50, spread.p75, spread.p95)
        unit = "%" if figure.unit == "share" else figure.unit
        cells = [_cell(p, figure.unit) for p in points]
        rows.append([f"{figure.name}, {unit}", *cells, percent(spread.positive)])
    return Table(
        f"Percentiles over {report.draws:,} draws",
        ["Figure", "p5", "p25", "p50", "p75", "p95", "Above 0"],
        rows,
    )


def _cell(value: float | None, unit: str) -> str:
    return bare(value, unit).removesuffix(" %")


def _options(report: VentureReport) -> Table:
    rows = []
    for choice in report.choices:

        def of(what: str, name: str = choice.name) -> str:
            return _thousands(report.figure(f"{what}_{name}"))

        rows.append(
            [
                choice.name,
                of("expected_cost"),
                of("cost"),
                of("engineering"),
                f"{choice.months_to_serve:g} months",
                of("lock_in"),
                of("option_value"),
                percent(choice.cheapest),
            ]
        )
    return Table(
        "Thousands of USD, discounted; in brackets the 5th to the 95th percentile",
        [
            *("Option", "Expected cost", "If demand comes", "Of it engineering"),
            *("Time to value", "Lock-in", "Right to stop", "Cheapest in"),
        ],
        rows,
    )


def _thousands(figure: Figure) -> str:
    value, low, high = (f"{(v or 0) / 1000:,.0f}" for v in (figure.value, figure.low, figure.high))
    return f"{value} ({low}–{high})" if figure.is_uncertain else value


def _choice(report: VentureReport) -> str:
    shares = ", ".join(f"{choice.name} in {percent(choice.cheapest)}" for choice in report.choices)
    return (
        f"With the right to stop, {report.best} costs least at the values believed most. Over all "
        f"draws the cheapest is {shares}."
    )


def _flip(flip: Flip) -> str:
    key = KEYS[flip.key]
    where = "within its range" if flip.within else "outside of its range"
    times = f", {flip.at / flip.value:.3g} x that" if flip.value else ""
    return (
        f"{key.words}, at {shown(flip.at, key.unit)} (believed: {shown(flip.value, key.unit)}"
        f"{times}; {where}): {flip.to} costs less"
    )


def _row(assumed: Assumed) -> Row:
    spread = "–"
    if assumed.low != assumed.high:
        spread = f"{bare(assumed.low, assumed.unit)} to {bare(assumed.high, assumed.unit)}"
    seen = ", ".join(part for part in (assumed.source, assumed.date) if part)
    if assumed.example:
        seen = f"EXAMPLE: {seen}" if seen else "EXAMPLE"
    return Row(
        assumed.anchor,
        [
            assumed.words,
            shown(assumed.value, assumed.unit),
            spread,
            assumed.distribution,
            seen or "–",
        ],
    )


def _limits(report: VentureReport) -> list[str]:
    """What the figures do not show."""
    return [
        "Goodput is simulated: the scheduler is real, step times are modelled, and what production "
        "reaches of it is itself an assumption.",
        "Draws are independent of each other. Real assumptions move together (a price war lowers "
        "both what GPUs cost and what tokens earn), so the tails are wider or narrower than shown.",
        "A fleet grows smoothly beyond its first deployment, and runs all day at one size. What a "
        "GPU costs stays the same over the horizon; what is bought gets cheaper as assumed.",
        "Of input tokens all are counted as sold at the price of input: cached ones are not "
        "cheaper.",
        f"The options {', '.join(OPTIONS)} are compared by cost alone, for the same traffic.",
    ]
