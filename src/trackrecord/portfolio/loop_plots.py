"""Pictures of the loop's outcome: two heat maps and the calibration.

A cell's shade and its number say the same, so that the picture reads in grey and without colour
vision; a cell that nobody was asked about is hatched and has no number.
"""

from __future__ import annotations

from collections.abc import Sequence

from matplotlib.axes import Axes
from matplotlib.patches import Rectangle

from trackrecord.loop.marks import FULL, LAYERS
from trackrecord.loop.outcome.calibration import Calibration
from trackrecord.loop.outcome.matrix import Row
from trackrecord.portfolio.plots import BLUE, GRID, INK, MUTED, ORANGE, Plot, make_plot

_HEADINGS = ("mechanism", "invariant or\narithmetic", "operational\nconsequence")
_ROW_INCHES = 0.235
_FONT = 8.5


def area_plot(rows: Sequence[Row]) -> Plot:
    """Areas by layer."""
    labels = [row.title for row in rows]
    return _heat_map("loop-areas", "Areas by layer", rows, labels)


def competency_plot(rows: Sequence[Row]) -> Plot:
    """Competencies by layer."""
    labels = [row.title.partition(":")[0] for row in rows]
    return _heat_map("loop-competencies", "Competencies by layer", rows, labels)


def calibration_plot(found: Calibration) -> Plot:
    """Own scores against the machine's; on the diagonal the two agree."""

    def draw(axes: Axes) -> None:
        axes.plot([-0.5, FULL + 0.5], [-0.5, FULL + 0.5], "-", color=GRID, linewidth=3)
        for own, machine, n in found.pairs:
            agree = own == machine
            color = BLUE if agree else ORANGE
            size = 130 + 60 * min(n, 12)
            axes.scatter(machine, own, s=size, color=color, alpha=0.35, linewidths=0)
            axes.annotate(str(n), (machine, own), ha="center", va="center", fontsize=_FONT)
        axes.set_xlim(-0.5, FULL + 0.5)
        axes.set_ylim(-0.5, FULL + 0.5)
        axes.set_xticks(range(FULL + 1))
        axes.set_yticks(range(FULL + 1))
        axes.set_xlabel("the machine's score")
        axes.set_ylabel("own score")

    agreeing = sum(n for own, machine, n in found.pairs if own == machine)
    total = sum(n for *_, n in found.pairs)
    alt = f"Own against machine score of {total} layers of answers; {agreeing} agree."
    return make_plot("loop-calibration", "Own scores beside the machine's", alt, draw, height=2.3)


def _heat_map(name: str, title: str, rows: Sequence[Row], labels: Sequence[str]) -> Plot:
    def draw(axes: Axes) -> None:
        for y, row in enumerate(rows):
            for x, cell in enumerate(row.cells):
                _draw_cell(axes, x, y, cell.score)
        axes.set_xlim(-0.5, len(LAYERS) - 0.5)
        axes.set_ylim(len(rows) - 0.5, -0.5)
        axes.set_xticks(range(len(LAYERS)), _HEADINGS, fontsize=7)
        axes.set_yticks(range(len(rows)), labels, fontsize=_FONT, color=INK)
        axes.xaxis.tick_top()
        axes.grid(visible=False)
        for side in ("left", "bottom"):
            axes.spines[side].set_visible(False)

    asked = sum(row.answers > 0 for row in rows)
    alt = f"Heat map of scores from 0 to {FULL}: {asked} of {len(rows)} rows were asked about."
    return make_plot(name, title, alt, draw, height=0.5 + _ROW_INCHES * len(rows))


def _draw_cell(axes: Axes, x: int, y: int, score: float | None) -> None:
    corner = (x - 0.5, y - 0.5)
    if score is None:
        axes.add_patch(
            Rectangle(corner, 1, 1, facecolor="none", edgecolor=MUTED, hatch="////", linewidth=0)
        )
        axes.add_patch(Rectangle(corner, 1, 1, fill=False, edgecolor=GRID, linewidth=0.6))
        return
    shade = 0.06 + 0.54 * score / FULL
    axes.add_patch(Rectangle(corner, 1, 1, facecolor=BLUE, alpha=shade, linewidth=0))
    axes.add_patch(Rectangle(corner, 1, 1, fill=False, edgecolor=GRID, linewidth=0.6))
    axes.annotate(f"{score:.1f}", (x, y), ha="center", va="center", fontsize=_FONT, color=INK)
