"""Which model of a step's time a scenario gets: measured tables, else the roofline, or a fit."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from mini_vllm.sim.cost.fitted import FittedCost
from mini_vllm.sim.cost.roofline import RooflineCost
from mini_vllm.sim.cost.step_cost import StepCost
from mini_vllm.sim.cost.tables import TablesCost, unavailable
from mini_vllm.sim.deployment import Deployment

if TYPE_CHECKING:
    from mini_vllm.sim.scenario import Scenario


def choose_cost(scenario: Scenario, deployment: Deployment) -> StepCost:
    """The model that the scenario asks for; "auto" takes measured tables where there are some.

    Raises:
        InvalidInputError: there are no tables for it, or the fit cannot be read.
    """
    if scenario.cost == "fit":
        return FittedCost.load(Path(scenario.cost_file))
    drafting = _draft_seconds(scenario, deployment)
    if scenario.cost == "tables" or (scenario.cost == "auto" and not unavailable(deployment)):
        return TablesCost(deployment, draft_seconds=drafting)
    return RooflineCost(deployment, cuda_graphs=scenario.engine.cuda_graphs, draft_seconds=drafting)


def _draft_seconds(scenario: Scenario, deployment: Deployment) -> float:
    """What the guesses of a step cost: each a share of the reading of the weights."""
    spec = scenario.speculation
    if not spec.draft_tokens:
        return 0.0
    from mini_vllm.sim.sizing import weight_memory

    reading = weight_memory(deployment).value / deployment.hardware.bandwidth
    return spec.draft_tokens * spec.draft_cost * reading
