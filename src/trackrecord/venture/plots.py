"""The pictures of a venture report, in the portfolio's style.

Like all plots here they contain numbers and fixed words only: labels are `keys`' own words.
"""

from __future__ import annotations

import textwrap
from itertools import pairwise

from matplotlib.axes import Axes
from matplotlib.ticker import FuncFormatter, MaxNLocator

from trackrecord.portfolio import plots
from trackrecord.portfolio.plots import BLUE, GREEN, INK, MUTED, ORANGE, Plot
from trackrecord.venture.figures import Figure
from trackrecord.venture.keys import KEYS
from trackrecord.venture.report import VentureReport
from trackrecord.venture.words import money

_BARS = 8
_LABEL = 26
_ORDER = ("build", "buy", "upstream")


def all_plots(report: VentureReport) -> dict[str, Plot]:
    """Every picture, by what it shows."""
    return {
        "tornado_margin": _tornado(report, "gross_margin", "What moves the gross margin"),
        "tornado_cost": _tornado(
            report, "cost_per_million_output", "What moves the cost of output tokens"
        ),
        "histogram": _histogram(report),
        "utilisation": _by_utilisation(report),
        "day": _day(report),
        "options": _options(report),
    }


def _scaled(figure: Figure) -> tuple[float, str]:
    """Factor and unit of an axis."""
    if figure.unit == "share":
        return 100.0, "% of the revenue"
    return 1.0, figure.unit


def _tornado(report: VentureReport, key: str, title: str) -> Plot:
    figure = report.figure(key)
    scale, unit = _scaled(figure)
    bars = [
        bar for bar in report.tornadoes[key] if bar.at_low is not None and bar.at_high is not None
    ][:_BARS]
    middle = scale * (figure.value or 0.0)

    def draw(axes: Axes) -> None:
        for row, bar in enumerate(bars):
            for end, color, at in ((bar.at_low, ORANGE, "low"), (bar.at_high, BLUE, "high")):
                width = scale * (end or 0.0) - middle
                label = f"assumption at its {at} end" if not row else None
                axes.barh(row, width, left=middle, height=0.55, color=color, label=label)
        labels = [textwrap.fill(KEYS[bar.key].words, _LABEL) for bar in bars]
        axes.set_yticks(range(len(bars)), labels, fontsize=8.5)
        axes.invert_yaxis()
        axes.grid(axis="y", visible=False)
        axes.axvline(middle, color=INK, linewidth=1)
        axes.xaxis.set_major_locator(MaxNLocator(4))
        axes.set_xlabel(unit.replace("/million", " per million"))
        if bars:
            axes.legend(loc="lower right", bbox_to_anchor=(1.0, 1.0), ncol=1, borderaxespad=0)

    widest = "; ".join(
        f"{KEYS[bar.key].words}: {scale * (bar.at_low or 0):.3g} to "
        f"{scale * (bar.at_high or 0):.3g} {unit}"
        for bar in bars[:3]
    )
    alt = f"Tornado chart of the {figure.name} around {middle:.3g} {unit}. Widest: {widest}."
    height = 1.5 + 0.38 * max(3, len(bars))
    return plots.make_plot(f"venture-tornado-{key.replace('_', '-')}", title, alt, draw, height)


def _histogram(report: VentureReport) -> Plot:
    spread = report.distributions["gross_margin"]
    edges = [100 * edge for edge in spread.edges]
    widths = [b - a or 1.0 for a, b in pairwise(edges)]
    points = [
        (100 * p, name)
        for p, name in ((spread.p5, "p5"), (spread.p50, "p50"), (spread.p95, "p95"))
        if p is not None
    ]

    def draw(axes: Axes) -> None:
        axes.bar(edges[:-1], spread.counts, widths, align="edge", color=BLUE, alpha=0.35)
        top = axes.get_xaxis_transform()
        for at, name in points:
            axes.axvline(at, color=BLUE, linewidth=1.2, linestyle="-" if name == "p50" else ":")
            axes.text(at, 1.01, name, transform=top, ha="center", va="bottom", fontsize=9.5)
        if edges[0] < 0 < edges[-1]:
            axes.axvline(0, color=ORANGE, linewidth=1.4)
        axes.grid(axis="x", visible=False)
        axes.xaxis.set_major_locator(MaxNLocator(5))
        axes.set_xlabel("gross margin, %")
        axes.set_ylabel(f"of {report.draws:,} draws")

    shown = ", ".join(f"{name} {at:.3g} %" for at, name in points)
    alt = f"Histogram of the gross margin over {report.draws:,} draws: {shown or 'no number'}."
    return plots.make_plot("venture-margin", "The gross margin over all draws", alt, draw)


def _by_utilisation(report: VentureReport) -> Plot:
    points = report.by_utilisation
    at = [100 * point.utilisation for point in points]
    now = 100 * (report.figure("utilisation").value or 0.0)
    price = next(
        a.value for a in report.assumptions if a.key == "price.price_per_million_output_usd"
    )

    def draw(axes: Axes) -> None:
        axes.plot(at, [p.per_million_output for p in points], color=BLUE, label="output")
        axes.plot(at, [p.per_million_input for p in points], "--", color=GREEN, label="input")
        axes.axhline(price, color=ORANGE, linestyle=":", label="our price of output")
        axes.axvline(now, color=MUTED, linewidth=0.8)
        top = axes.get_xaxis_transform()
        axes.text(now, 1.01, "now", transform=top, ha="center", va="bottom", fontsize=9.5)
        highest = next(p.per_million_output for p in points if p.utilisation >= 0.1)
        axes.set_ylim(0, max(highest, 1.3 * price))
        axes.set_xlim(0, 100)
        axes.set_xlabel("mean utilisation of this fleet, %")
        axes.set_ylabel("USD per million tokens")
        axes.legend(loc="upper right")

    first, last = points[0], points[-1]
    alt = (
        f"Line chart: a million output tokens cost {money(first.per_million_output)} USD at "
        f"{first.utilisation:.0%} utilisation and {money(last.per_million_output)} USD at "
        f"{last.utilisation:.0%}; the fleet is at {now:.0f} %."
    )
    return plots.make_plot("venture-utilisation", "Cost against utilisation", alt, draw)


def _day(report: VentureReport) -> Plot:
    shares = [100 * share for share in report.hours]

    def draw(axes: Axes) -> None:
        axes.bar(range(24), shares, width=1.0, align="edge", color=BLUE, alpha=0.35)
        mean = sum(shares) / len(shares)
        axes.axhline(mean, color=BLUE, linewidth=1.2, label=f"mean {mean:.0f} %")
        axes.set_xlim(0, 24)
        axes.set_ylim(0, 100)
        axes.set_xticks(range(0, 25, 6))
        axes.grid(axis="x", visible=False)
        axes.set_xlabel("hour of the day")
        axes.set_ylabel("% of goodput sold")
        axes.legend(loc="lower left", bbox_to_anchor=(-0.02, 0.99), borderaxespad=0)

    alt = (
        f"Bar chart over 24 hours: from {min(shares):.0f} % to {max(shares):.0f} % of the goodput "
        "is sold."
    )
    return plots.make_plot("venture-day", "A day of the fleet", alt, draw)


def _options(report: VentureReport) -> Plot:
    found = [report.figure(f"expected_cost_{name}") for name in _ORDER]

    def draw(axes: Axes) -> None:
        for row, figure in enumerate(found):
            value = (figure.value or 0.0) / 1e6
            axes.barh(row, value, height=0.5, color=BLUE, alpha=0.35)
            if figure.low is not None and figure.high is not None:
                axes.plot([figure.low / 1e6, figure.high / 1e6], [row, row], color=BLUE)
                axes.plot([value], [row], "o", color=BLUE)
        axes.set_yticks(range(len(_ORDER)), _ORDER)
        axes.invert_yaxis()
        axes.grid(axis="y", visible=False)
        axes.set_xlim(left=0)
        axes.xaxis.set_major_locator(MaxNLocator(5))
        axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
        axes.set_xlabel("expected cost over the horizon, million USD")

    costs = "; ".join(
        f"{n} {(f.value or 0) / 1e6:.3g} ({f.range})" for n, f in zip(_ORDER, found, strict=True)
    )
    alt = f"Bar chart with ranges from the 5th to the 95th percentile, in USD: {costs}."
    return plots.make_plot("venture-options", "Build, buy or upstream", alt, draw)
