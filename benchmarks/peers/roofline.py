"""Draws a comparison under the machine's roofline.

    python benchmarks/peers/roofline.py comparison.json --out roofline.png

Up is what an engine achieved, to the right how much there is to compute for each byte that must be
moved (`work.py`): under the slope, memory is the limit; under the flat part, arithmetic. Both are
as measured on that machine. A workload is a column of points, one for each engine.

Source: Williams, Waterman, Patterson, "Roofline", CACM 52(4), 2009.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import matplotlib
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from results import Comparison, read_comparison
from work import BYTES_PER_WEIGHT, work_of

from mini_vllm import console
from mini_vllm.bench.figures import digits
from mini_vllm.bench.workloads import WORKLOADS
from mini_vllm.errors import InvalidInputError
from mini_vllm.sim.models import find_model

INK, MUTED, GRID = "#1a1d21", "#57606a", "#d8dee4"
COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#000000", "#8c6d1f")
"""Okabe and Ito's, which people with any colour vision tell apart, and one more."""
MARKERS = "osD^vPX*"
NEAR = 6.0
"""A workload whose next is less than so many times as intense has its names on its left."""
LABEL_GAP = 0.04
"""Of the height of the axes: labels that are nearer to each other are pushed apart."""


@dataclass(frozen=True)
class Point:
    """One workload on one engine: FLOP per byte, and GFLOP/s achieved (median)."""

    engine: str
    workload: str
    intensity: float
    gflops: float


def points(comparison: Comparison) -> list[Point]:
    """Those of engines whose weights `work.py` knows how to count."""
    model, found = find_model(comparison.model), []
    for engine in comparison.engines:
        for figures in engine.workloads:
            if engine.weights in BYTES_PER_WEIGHT:
                work = work_of(WORKLOADS[figures.name], model, engine.weights)
                rate = work.flops / figures.seconds.median / 1e9
                found.append(Point(engine.label, figures.name, work.intensity, rate))
    return found


def apart(values: Sequence[float], gap: float, ceiling: float) -> list[float]:
    """`values` moved by little, so that they are `gap` apart in the order they were in, and none is
    above `ceiling`."""
    order = sorted(range(len(values)), key=lambda i: values[i])
    placed = [values[i] for i in order]
    for _ in range(100):  # each pass halves what is lacking
        for i in range(1, len(placed)):
            lack = max(0.0, gap - (placed[i] - placed[i - 1]))
            placed[i - 1] -= lack / 2
            placed[i] += lack / 2
    for i in reversed(range(len(placed))):
        placed[i] = min(placed[i], ceiling)
        ceiling = placed[i] - gap
    result = [0.0] * len(values)
    for place, i in zip(placed, order, strict=True):
        result[i] = place
    return result


def short(label: str) -> str:
    """An engine's label without the names of its settings: "llama.cpp q8_0"."""
    name, _, settings = label.partition(":")
    words = [name]
    for pair in settings.split(",") if settings else ():
        key, _, value = pair.partition("=")
        words.append(key if value == "true" else value)
    return " ".join(words)


def draw(comparison: Comparison) -> Figure:
    found = points(comparison)
    if not found:
        raise InvalidInputError("the comparison has no workload to draw")
    machine = comparison.machine
    bandwidth = machine.read_bandwidth.value / 1e9
    peak = max(rate.value for rate in machine.matmul_rates.values()) / 1e9
    left = min(p.intensity for p in found) / 1.6
    right = max(max(p.intensity for p in found) * 4.5, 3 * peak / bandwidth)
    low = min(p.gflops for p in found) / 2.5
    with matplotlib.rc_context({"font.size": 9, "font.family": "DejaVu Sans"}):
        figure = Figure(figsize=(12.5, 6.4), dpi=130, layout="constrained")
        axes = figure.add_subplot(xscale="log", yscale="log")
        axes.set(xlim=(left, right), ylim=(low, peak * 1.5))
        _limits(axes, bandwidth, peak, left, right)
        _points(axes, found, peak)
        axes.set_xlabel("operations for each byte of weights and KV cache, FLOP/byte", color=MUTED)
        axes.set_ylabel("achieved, GFLOP/s", color=MUTED)
        axes.set_title(
            f"{comparison.model} on {machine.cpu}, {comparison.threads} cores: "
            f"medians of {comparison.rounds} rounds",
            loc="left",
            fontsize=10,
            color=INK,
        )
        axes.grid(True, which="major", color=GRID, linewidth=0.6)
        axes.tick_params(colors=MUTED, which="both", length=0)
        for side in ("top", "right"):
            axes.spines[side].set_visible(False)
    return figure


def _limits(axes: Axes, bandwidth: float, peak: float, left: float, right: float) -> None:
    ridge = peak / bandwidth
    axes.plot([left, ridge, right], [left * bandwidth, peak, peak], color=INK, linewidth=1.6)
    axes.annotate(
        f"bfloat16 or float32 products: {digits(peak)} GFLOP/s",
        (ridge, peak),
        (0, 5),
        textcoords="offset points",
        color=INK,
    )
    at = left * 1.15
    axes.annotate(
        f"memory: {digits(bandwidth)} GB/s",
        (at, at * bandwidth),
        (0, 6),
        textcoords="offset points",
        rotation=_slope(axes),
        rotation_mode="anchor",
        color=INK,
    )


def _slope(axes: Axes) -> float:
    """Degrees at which a line of slope one is drawn."""
    (left, right), (low, high) = axes.get_xlim(), axes.get_ylim()
    width, height = axes.figure.get_size_inches()
    return math.degrees(math.atan2(height / math.log(high / low), width / math.log(right / left)))


def _points(axes: Axes, found: list[Point], peak: float) -> None:
    """The points, each named beside it: names of a workload stand in a column to its right, or to
    its left where the next workload is too near, in the order of their points."""
    engines = list(dict.fromkeys(point.engine for point in found))
    low, high = (math.log(edge) for edge in axes.get_ylim())
    ceiling = (math.log(peak) - low) / (high - low) - LABEL_GAP / 2
    by_workload: dict[str, list[Point]] = {}
    for point in sorted(found, key=lambda p: p.intensity):
        by_workload.setdefault(point.workload, []).append(point)
    columns = list(by_workload.values())
    for number, column in enumerate(columns):
        first, last = column[0].intensity, max(p.intensity for p in column)
        after = columns[number + 1][0].intensity if number + 1 < len(columns) else math.inf
        left = after < NEAR * last
        at, align = (first / 1.13, "right") if left else (last * 1.13, "left")
        heights = [(math.log(p.gflops) - low) / (high - low) for p in column]
        for point, height in zip(column, apart(heights, LABEL_GAP, ceiling), strict=True):
            which = engines.index(point.engine)
            colour = COLOURS[which % len(COLOURS)]
            marker = MARKERS[which % len(MARKERS)]
            axes.plot(point.intensity, point.gflops, marker, color=colour, zorder=3)
            axes.annotate(
                f"{short(point.engine)} {digits(point.gflops)}",
                (point.intensity, point.gflops),
                (at, math.exp(low + height * (high - low))),
                ha=align,
                va="center",
                fontsize=7.5,
                color=colour,
                arrowprops={"arrowstyle": "-", "color": colour, "linewidth": 0.5},
            )
        axes.annotate(
            column[0].workload,
            (math.sqrt(first * last), 0.02),
            xycoords=("data", "axes fraction"),
            ha="center",
            fontsize=10,
            fontweight="bold",
            color=INK,
        )


def main(argv: Sequence[str]) -> int:
    parser = console.Parser(prog="roofline.py", description=(__doc__ or "").split("\n", 1)[0])
    parser.add_argument("comparison", type=Path, help="a document of compare.py")
    parser.add_argument("--out", type=Path, required=True, metavar="FILE.png")
    args = parser.parse_args(argv)
    if not args.out.parent.is_dir():
        raise InvalidInputError(f"cannot write {str(args.out)!r}: its folder does not exist")
    draw(read_comparison(args.comparison)).savefig(args.out)
    console.say(f"written to {args.out}")
    return console.EXIT_OK


if __name__ == "__main__":
    sys.exit(console.run("roofline.py", main, None))
