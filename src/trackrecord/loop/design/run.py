"""A candidate's design as a scenario of the simulator, and what came of it.

Invariant: what a brief gives is never the candidate's to change, and a design that would take the
simulator long is not run but said to be out of reach.
"""

from __future__ import annotations

import copy
from dataclasses import replace
from pathlib import Path
from typing import Any

from mini_vllm.errors import InvalidInputError
from mini_vllm.sim import sizing
from mini_vllm.sim.deployment import COMPUTES_IN
from mini_vllm.sim.hardware import find_hardware
from mini_vllm.sim.scenario import Scenario, scenario_from
from trackrecord.loop.design.keys import KEYS, Key
from trackrecord.loop.design.sheet import DesignFile
from trackrecord.loop.design.task import DesignTask
from trackrecord.loop.quantities.expressions import evaluate

_HERE = Path(__file__).parent / "scenarios"
"""Where paths in a scenario would start; it holds no model's folder."""
_LEAST_BATCHED = 256
_BLOCK_SIZES = (8, 256)


def scenario_of(task: DesignTask, design: DesignFile) -> Scenario:
    """The scenario that the design makes of the brief. Times come from the roofline, so that they
    are the same wherever it runs.

    Raises:
        InvalidInputError: it is no deployment: a gap, a contradiction, or too little memory.
    """
    for needed in ("gpu", "tp", "replicas"):
        if design.value(needed) is None:
            raise InvalidInputError(f"{needed} is not given under ## Topology", needed)
    document: dict[str, Any] = copy.deepcopy(dict(task.given))
    for key in _every_key():
        value = design.value(key.name)
        if value is not None and key.place:
            table, _, name = key.place.partition(".")
            document.setdefault(table, {})[name] = value
    document["title"] = task.title
    document["cost"] = {"model": "roofline"}
    document["price"] = {"gpu_hour": task.prices[design.value("gpu")], "currency": "USD"}
    if not design.value("prefill_replicas"):
        document.pop("disaggregation", None)
    if not design.value("num_speculative_tokens"):
        document.pop("speculation", None)
    scenario = scenario_from(document, _HERE)
    if not task.adapter_bytes:
        return scenario
    return _with_adapters(scenario, task, int(design.value("max_loras", 0)))


def _every_key() -> list[Key]:
    return [key for keys in KEYS.values() for key in keys.values()]


def _with_adapters(scenario: Scenario, task: DesignTask, held: int) -> Scenario:
    """The scenario with the adapters' memory taken from the KV cache."""
    deployment, engine = scenario.deployment, scenario.engine
    each = evaluate(task.adapter_bytes).value
    left = sizing.kv_cache_memory(deployment).value - held * each
    block = sizing.kv_bytes_per_token(deployment).value * engine.block_size
    if left < block:
        raise InvalidInputError(
            f"max_loras = {held} leaves no memory for the KV cache: "
            f"{sizing.kv_cache_memory(deployment).shown} before {held} adapters of "
            f"{each / 1e6:,.1f} MB",
            "max_loras",
        )
    return replace(scenario, engine=replace(engine, num_blocks=int(left // block) + 1))


def cache_tokens(scenario: Scenario) -> int:
    """Tokens that one engine's KV cache holds."""
    config = scenario.scheduler_config()
    return (config.num_blocks - 1) * config.block_size


def out_of_reach(task: DesignTask, scenario: Scenario) -> str:
    """Why a design is not simulated, although it fits; empty where it is."""
    if scenario.devices > 2 * task.devices:
        return f"it takes {scenario.devices:,} devices, and the brief allows {task.devices:,}"
    engine = scenario.engine
    if engine.max_num_batched_tokens < _LEAST_BATCHED:
        return f"max_num_batched_tokens = {engine.max_num_batched_tokens} is below {_LEAST_BATCHED}"
    if not _BLOCK_SIZES[0] <= engine.block_size <= _BLOCK_SIZES[1]:
        return f"block_size = {engine.block_size} is not from 8 to 256"
    return ""


def choices(task: DesignTask, design: DesignFile, model: DesignFile) -> dict[str, Any]:
    """What stands for `{...}` in formulas: the candidate's choice, else the model design's, else
    the simulator's."""
    found: dict[str, Any] = {
        "model": task.given["model"], "pp": 1, "weights": "bf16", "kv": "bf16",
        "memory_utilization": 0.9, "block_size": 16, "prefill_replicas": 0, "prefill_pp": 1,
        "num_speculative_tokens": 0, "max_loras": 0,
    }  # fmt: skip
    for key in _every_key():
        value = design.value(key.name, model.value(key.name))
        if value is not None:
            found[key.name] = value
    found.setdefault("prefill_tp", found["tp"])
    prefill = found["prefill_replicas"] * found["prefill_tp"] * found["prefill_pp"]
    found["devices"] = found["replicas"] * found["tp"] * found["pp"] + prefill
    computes = COMPUTES_IN[found["weights"]]
    found["computes"] = computes if computes in find_hardware(found["gpu"]).flops else "bf16"
    return found
