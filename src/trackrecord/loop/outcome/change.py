"""What changed between two runs, by area and layer."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, get_args

from mini_vllm.console import printable
from trackrecord.loop.graded import GradedRun
from trackrecord.loop.marks import LAYER_TITLES, Layer
from trackrecord.loop.outcome.evidence import GOOD, in_order
from trackrecord.loop.outcome.matrix import make_matrix

Kind = Literal["gained", "better", "same", "worse", "lost", "new", "not asked again"]
"""`gained` and `lost`: the score came to 3 or better, or fell below it."""


@dataclass(frozen=True)
class Step:
    """One area's layer, in the earlier run and in the later one; None where it was not asked."""

    area: str
    layer: Layer
    before: float | None
    after: float | None

    @property
    def kind(self) -> Kind:
        if self.before is None:
            return "new"
        if self.after is None:
            return "not asked again"
        if (self.before >= GOOD) != (self.after >= GOOD):
            return "gained" if self.after >= GOOD else "lost"
        if self.before == self.after:
            return "same"
        return "better" if self.after > self.before else "worse"

    @property
    def words(self) -> str:
        what = f"{self.area}, {LAYER_TITLES[self.layer]}"
        if self.before is None:
            return f"{what}: new, {self.after:.1f}"
        if self.after is None:
            return f"{what}: was {self.before:.1f}, not asked again"
        if self.before == self.after:
            return f"{what}: still {self.after:.1f}"
        return f"{what}: {self.kind}, from {self.before:.1f} to {self.after:.1f}"


@dataclass(frozen=True)
class Change:
    """From one run to another; `steps` by area and layer, areas of neither left out."""

    earlier: str
    later: str
    steps: tuple[Step, ...]

    def of(self, *kinds: Kind) -> tuple[Step, ...]:
        return tuple(step for step in self.steps if step.kind in kinds)

    @property
    def moved(self) -> tuple[Step, ...]:
        """What was asked both times and differs, the largest difference first."""
        steps = self.of("gained", "better", "worse", "lost")
        return tuple(sorted(steps, key=lambda s: -abs((s.after or 0.0) - (s.before or 0.0))))

    @property
    def words(self) -> str:
        """The counts in a sentence."""
        counts = [f"{len(self.of(kind))} {kind}" for kind in get_args(Kind) if self.of(kind)]
        begins = f"From run {printable(self.earlier)} to {printable(self.later)}, area by layer"
        return f"{begins}: {', '.join(counts)}."


def change_between(earlier: GradedRun, later: GradedRun) -> Change:
    """What became of each area and layer; each run by its own answers alone."""
    before, after = (make_matrix(in_order([run])) for run in (earlier, later))
    steps = []
    for old, new in zip(before.areas, after.areas, strict=True):
        for was, is_now in zip(old.cells, new.cells, strict=True):
            if was.score is not None or is_now.score is not None:
                steps.append(Step(new.title, was.layer, was.score, is_now.score))
    return Change(earlier.run, later.run, tuple(steps))
