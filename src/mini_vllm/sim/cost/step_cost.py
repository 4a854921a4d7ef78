"""What a model of a step's time promises.

A step's time is the sum of its terms, so that a simulation can say at its end where the time went.
"""

from __future__ import annotations

from typing import NamedTuple, Protocol

from mini_vllm.sim.cost.shape import StepShape


class Terms(NamedTuple):
    """Seconds of one step, by what they are spent on."""

    arithmetic: float = 0.0
    """Products that wait for the arithmetic units."""
    weights: float = 0.0
    """Products that wait for weights to be read."""
    attention: float = 0.0
    """Keys and values read, and attention's own arithmetic."""
    communication: float = 0.0
    """Between devices, and between stages."""
    overhead: float = 0.0
    """Launches, the scheduler, sampling: what does not shrink with the hardware."""

    @property
    def seconds(self) -> float:
        return self[0] + self[1] + self[2] + self[3] + self[4]


class StepCost(Protocol):
    """A model of how long a step takes."""

    @property
    def name(self) -> str:
        """Which model, and by whose figures, for a report."""

    def terms(self, shape: StepShape) -> Terms:
        """The time of a step; called once a step, in order."""

    @property
    def extrapolated(self) -> float:
        """Share of the time so far that lies outside of what was measured, 0 to 1."""
