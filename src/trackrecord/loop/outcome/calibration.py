"""How a person's own scores compare with the machine's.

A gap is own minus machine: above 0 for who thinks better of an answer than its evidence.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass

from trackrecord.loop.graded import GradedAnswer
from trackrecord.loop.marks import LAYER_TITLES, LAYERS, Layer
from trackrecord.loop.outcome.evidence import mean


@dataclass(frozen=True)
class LayerGap:
    """One layer: `gap` is the mean, `off` the mean of its size; None without own scores."""

    layer: Layer
    answers: int
    gap: float | None
    off: float | None


@dataclass(frozen=True)
class Calibration:
    """All layers; `pairs` counts how often (own, machine) occurred."""

    layers: tuple[LayerGap, ...]
    pairs: tuple[tuple[int, int, int], ...]

    @property
    def words(self) -> str:
        if not self.pairs:
            return "No own scores were given, so there is nothing to calibrate."
        parts = [
            f"{round(gap.gap, 1) + 0.0:+.1f} in {LAYER_TITLES[gap.layer]} (n={gap.answers})"
            for gap in self.layers
            if gap.gap is not None
        ]
        return f"Own score minus the machine's, on average: {', '.join(parts)}."


def calibration(answers: Iterable[GradedAnswer]) -> Calibration:
    """Over every answer that was scored by both."""
    gaps: dict[Layer, list[int]] = {layer: [] for layer in LAYERS}
    pairs: Counter[tuple[int, int]] = Counter()
    for graded in answers:
        for layer, gap in graded.gap.items():
            machine = graded.mark.scores[layer]
            gaps[layer].append(gap)
            pairs[machine + gap, machine] += 1
    layers = tuple(
        LayerGap(layer, len(found), mean(found), mean([abs(gap) for gap in found]))
        for layer, found in gaps.items()
    )
    return Calibration(layers, tuple((own, machine, n) for (own, machine), n in pairs.items()))
