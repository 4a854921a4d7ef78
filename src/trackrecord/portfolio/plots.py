"""Plots of a report: small, alike, and legible at the width of a phone.

Each is drawn once and kept as three texts of the same picture: an SVG to inline, whose colours are
the page's own (so that it follows light and dark), an SVG to link and a PNG, both on white.
Colours are Okabe and Ito's, which people with any colour vision tell apart; lines also differ in
marker and dash. Plots contain numbers and fixed words only, never text from outside.
"""

from __future__ import annotations

import io
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import accumulate

import matplotlib
from markupsafe import Markup, escape
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from mini_vllm.bench.figures import Percentiles, digits
from mini_vllm.bench.load import LoadResult, Phase
from mini_vllm.bench.measure import WorkloadResult

INK, MUTED, GRID, PAPER = "#1a1d21", "#57606a", "#d8dee4", "#ffffff"
BLUE, ORANGE, GREEN = "#0072b2", "#d55e00", "#007a5a"
_THEME = {INK: "ink", MUTED: "muted", GRID: "grid", BLUE: "blue", ORANGE: "orange", GREEN: "green"}

WIDTH, HEIGHT = 4.6, 2.9
"""Inches; at a phone's width a point is then about one pixel."""

_STYLE = {
    "font.size": 10.5,
    "font.family": "sans-serif",
    "font.sans-serif": ["DejaVu Sans"],
    "svg.fonttype": "none",
    "axes.edgecolor": MUTED,
    "axes.labelcolor": MUTED,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": GRID,
    "grid.linewidth": 0.7,
    "xtick.color": MUTED,
    "ytick.color": MUTED,
    "xtick.major.size": 0,
    "ytick.major.size": 0,
    "text.color": INK,
    "legend.frameon": False,
    "legend.fontsize": 10,
    "lines.linewidth": 1.8,
    "lines.markersize": 5,
}


@dataclass(frozen=True)
class Plot:
    """One picture. `alt` says in words what it shows."""

    name: str
    title: str
    alt: str
    inline_svg: Markup
    svg: bytes
    png: bytes


def throughput_plot(results: Sequence[WorkloadResult]) -> Plot:
    """Total tokens/s of each workload: the median as a bar, every run as a dot."""

    def draw(axes: Axes) -> None:
        for row, result in enumerate(results):
            rate = result.total_rate
            axes.barh(row, rate.median, height=0.55, color=BLUE, alpha=0.35)
            axes.plot(rate.samples, [row] * rate.n, "o", color=BLUE, markersize=4)
            label = f"{digits(rate.median)}  (n={rate.n})"
            axes.annotate(label, (rate.max, row), (6, 0), textcoords="offset points", va="center")
        axes.set_yticks(range(len(results)), [result.name for result in results])
        axes.invert_yaxis()
        axes.grid(axis="y", visible=False)
        axes.set_xlim(0, 1.35 * max(result.total_rate.max for result in results))
        axes.xaxis.set_major_locator(MaxNLocator(4))
        axes.xaxis.set_major_formatter("{x:,.0f}")
        axes.set_xlabel("prompt and output tokens per second")

    medians = "; ".join(f"{r.name} {digits(r.total_rate.median)} tokens/s" for r in results)
    return make_plot(
        "throughput", "Throughput by workload", f"Bar chart. Medians: {medians}.", draw
    )


def latency_plots(load: LoadResult) -> list[Plot]:
    """TTFT, TPOT and end-to-end percentiles against the arrival rate: a plot each."""
    return [
        _latency_plot(load, "ttft", "Time to first token", lambda phase: phase.ttft),
        _latency_plot(load, "tpot", "Time per output token", lambda phase: phase.tpot),
        _latency_plot(load, "e2e", "End-to-end latency", lambda phase: phase.e2e),
    ]


def timeline_plots(load: LoadResult) -> list[Plot]:
    """Requests, KV cache use and prefix-cache hit rate over the whole load test: a plot each."""
    running = [value for phase in load.phases for value in phase.timeline.running]
    waiting = [value for phase in load.phases for value in phase.timeline.waiting]
    usage = [100 * value for phase in load.phases for value in phase.timeline.kv_cache_usage]
    hits = [
        [None if value is None else 100 * value for value in phase.timeline.prefix_hit_rate]
        for phase in load.phases
    ]
    last_hits = [values[-1] or 0.0 for values in hits if values]

    def draw_requests(axes: Axes) -> None:
        _fill_timeline(axes, load.phases, lambda p: p.timeline.running, BLUE, "running")
        _line_timeline(axes, load.phases, lambda p: p.timeline.waiting, ORANGE, "waiting", "--")
        axes.yaxis.set_major_locator(MaxNLocator(6, integer=True))
        axes.set_ylabel("requests")
        axes.legend(loc="lower left", bbox_to_anchor=(-0.02, 1.07), ncol=2, borderaxespad=0)

    def draw_usage(axes: Axes) -> None:
        shares = [[100 * v for v in phase.timeline.kv_cache_usage] for phase in load.phases]
        _fill_timeline(axes, load.phases, lambda p: shares[load.phases.index(p)], BLUE, None)
        axes.set_ylabel("% of KV cache blocks")

    def draw_hits(axes: Axes) -> None:
        _line_timeline(axes, load.phases, lambda p: hits[load.phases.index(p)], GREEN, None, "-")
        axes.set_ylim(0, 100)
        axes.set_ylabel("% of prompt tokens")

    return [
        make_plot(
            "requests",
            "Requests in the engine",
            f"Line chart over time: at most {max(running)} requests ran and {max(waiting)} waited.",
            _over_time(load, draw_requests),
        ),
        make_plot(
            "kv-usage",
            "KV cache in use",
            f"Area chart over time: at most {digits(max(usage))}% of the blocks were in use.",
            _over_time(load, draw_usage),
        ),
        make_plot(
            "prefix-hits",
            "Prompt tokens found in the prefix cache",
            "Line chart over time, from an empty cache at each rate: ending at "
            + ", ".join(f"{digits(value)}%" for value in last_hits)
            + ".",
            _over_time(load, draw_hits),
        ),
    ]


def _latency_plot(
    load: LoadResult, name: str, title: str, latency: Callable[[Phase], Percentiles]
) -> Plot:
    found = [latency(phase) for phase in load.phases]
    rates = [phase.rate.value for phase in load.phases]
    slowest = max((p.p99 for p in found if p.p99 is not None), default=0.0)
    scale, unit = (1.0, "s") if slowest >= 1 else (1000.0, "ms")

    def draw(axes: Axes) -> None:
        for key, color, style in (
            ("p99", ORANGE, "^:"),
            ("p90", GREEN, "s--"),
            ("p50", BLUE, "o-"),
        ):
            values = [getattr(p, key) for p in found]
            shown = [float("nan") if value is None else scale * value for value in values]
            axes.plot(rates, shown, style, color=color, label=key)
        axes.set_xlim(0, 1.08 * max(rates))
        axes.set_ylim(0, 1.1 * scale * slowest or 1)
        axes.set_xlabel("arrival rate, requests per second")
        axes.set_ylabel(f"{title.lower()}, {unit}")
        axes.legend(loc="lower left", bbox_to_anchor=(-0.02, 0.99), ncol=3, borderaxespad=0)

    points = "; ".join(
        f"at {digits(rate)} requests/s p50 {digits(scale * p.p50)} {unit} "
        f"and p99 {digits(scale * p.p99)} {unit}"
        for rate, p in zip(rates, found, strict=True)
        if p.p50 is not None and p.p99 is not None
    )
    return make_plot(f"latency-{name}", title, f"Line chart against arrival rate: {points}.", draw)


def _starts(phases: Sequence[Phase]) -> list[float]:
    """When each phase begins, if they are drawn one after another."""
    return list(accumulate((phase.seconds.value for phase in phases), initial=0.0))


def _over_time(load: LoadResult, draw: Callable[[Axes], None]) -> Callable[[Axes], None]:
    """`draw`, on a time axis that shows where one arrival rate ends and the next begins."""

    def draw_with_phases(axes: Axes) -> None:
        draw(axes)
        starts = _starts(load.phases)
        axes.set_xlim(0, starts[-1])
        axes.set_ylim(bottom=0)
        axes.set_xlabel("seconds of the load test")
        top = axes.get_xaxis_transform()
        for start, end, phase in zip(starts, starts[1:], load.phases, strict=False):
            if start:
                axes.axvline(start, color=MUTED, linewidth=0.8, linestyle=":")
            label, middle = f"{digits(phase.rate.value)}/s", (start + end) / 2
            axes.text(middle, 1.01, label, transform=top, ha="center", va="bottom", fontsize=9.5)

    return draw_with_phases


def _fill_timeline(
    axes: Axes,
    phases: Sequence[Phase],
    column: Callable[[Phase], Sequence[float]],
    color: str,
    label: str | None,
) -> None:
    for start, phase in zip(_starts(phases), phases, strict=False):
        seconds = [start + t for t in phase.timeline.seconds]
        first = not start
        axes.fill_between(seconds, column(phase), step="pre", color=color, alpha=0.3, linewidth=0)
        axes.step(
            seconds, column(phase), color=color, linewidth=1.2, label=label if first else None
        )


def _line_timeline(
    axes: Axes,
    phases: Sequence[Phase],
    column: Callable[[Phase], Sequence[float | None]],
    color: str,
    label: str | None,
    style: str,
) -> None:
    for start, phase in zip(_starts(phases), phases, strict=False):
        seconds = [start + t for t in phase.timeline.seconds]
        values = [float("nan") if value is None else value for value in column(phase)]
        axes.step(seconds, values, style, color=color, label=label if not start else None)


def make_plot(
    name: str, title: str, alt: str, draw: Callable[[Axes], None], height: float = HEIGHT
) -> Plot:
    """Draws once, in each form; the same data gives the same bytes. `height` is in inches."""
    with matplotlib.rc_context({**_STYLE, "svg.hashsalt": name}):
        figure = Figure(figsize=(WIDTH, height), layout="constrained", facecolor=PAPER)
        axes = figure.add_subplot(facecolor="none")
        draw(axes)
        figure.draw_without_rendering()
        figure.set_layout_engine("none")  # laid out once, for both forms
        svg, png = io.BytesIO(), io.BytesIO()
        figure.savefig(png, format="png", dpi=200, metadata={"Software": None})
        figure.savefig(svg, format="svg", metadata={"Date": None, "Creator": None})
    inline = _inlined(svg.getvalue().decode(), name, title, alt)
    return Plot(name, title, alt, inline, svg.getvalue(), png.getvalue())


def _inlined(svg: str, name: str, title: str, alt: str) -> Markup:
    """An SVG document as an element of a page: its ids made unique, its colours and font the
    page's, its size the column's, and a name and description for who cannot see it."""
    svg = svg[svg.index("<svg") :]
    svg = re.sub(r"<metadata>.*?</metadata>", "", svg, flags=re.DOTALL)
    svg = re.sub(r'\bid="', f'id="{name}-', svg)
    svg = re.sub(r"url\(#", f"url(#{name}-", svg)
    svg = re.sub(r'xlink:href="#', f'xlink:href="#{name}-', svg)
    svg = re.sub(r"(font: [^;\"']*?)'DejaVu Sans'[^;\"]*", r"\1var(--font)", svg)
    svg = svg.replace(f"fill: {PAPER}", "fill: none")
    for color, variable in _THEME.items():
        svg = svg.replace(color, f"var(--{variable})")
    labels = f"<title>{escape(title)}</title><desc>{escape(alt)}</desc>"
    head, body = svg.split(">", 1)
    head = re.sub(r' (width|height)="[^"]*"', "", head)
    return Markup(f'{head} role="img" aria-label="{escape(f"{title}. {alt}")}">{labels}{body}')  # noqa: S704
