"""What a brief gives, in words: the model's shape, the devices, the traffic, the objective.

Invariant: every figure is read from the catalogues and the scenario that is simulated, so that a
brief never tells another story than the simulator.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from math import isfinite
from typing import Any

from mini_vllm.sim.hardware import find_hardware
from mini_vllm.sim.models import ModelSpec, find_model
from mini_vllm.sim.quantity import seconds, show
from mini_vllm.sim.sizing import ACTIVATION_RESERVE
from trackrecord.loop.design.task import DesignTask


def prompt_of(task: DesignTask) -> str:
    """The brief with all that it gives."""
    return f"{task.brief}\n" + "\n".join(f"- {line}" for line in _facts(task)) + "\n"


def _facts(task: DesignTask) -> Iterator[str]:
    yield f"Model: {_shape(find_model(task.given['model']))}."
    for name, price in task.prices.items():
        gpu = find_hardware(name)
        peaks = ", ".join(f"{kind} {show(rate, 'FLOP/s')}" for kind, rate in gpu.flops.items())
        yield (
            f"{name}: {gpu.title}, {gpu.memory / 1e9:.2f} GB ({gpu.memory / 2**30:.1f} GiB) at "
            f"{show(gpu.bandwidth, 'B/s')}, link {show(gpu.link, 'B/s')}, peak {peaks}; "
            f"{price:,.2f} USD an hour."
        )
    for entry in task.given["traffic"]:
        yield f"Traffic: {_traffic(entry)}."
    yield f"Objective: {_objective(task)}."
    yield f"At most {task.devices} devices{_money(task)}."
    yield f"Predict at least {', '.join(task.predict)}; work out the quantities that decide."
    yield (
        f"Conventions: an engine takes 90% of the memory unless memory_utilization says otherwise, "
        f"{ACTIVATION_RESERVE:.0%} of that for activations and graphs; embedding and head stay in "
        f"bf16; what is left blank has the simulator's default; peak rates without sparsity."
    )


def _shape(model: ModelSpec) -> str:
    parts = [f"{model.name}, {model.num_layers} layers, hidden size {model.hidden_size:,}"]
    if model.is_mla:
        parts.append(
            f"{model.num_heads} heads, MLA with a latent of {model.kv_lora_rank} and RoPE keys of "
            f"{model.qk_rope_head_dim}"
        )
    else:
        parts.append(f"{model.num_heads} heads, {model.num_kv_heads} KV heads of {model.head_dim}")
    if model.num_experts:
        parts.append(
            f"{model.num_experts} routed experts of {model.moe_intermediate_size:,} in "
            f"{model.num_moe_layers} layers, {model.experts_per_token} a token"
        )
    if model.intermediate_size:
        parts.append(f"feed-forward {model.intermediate_size:,}")
    return ", ".join([*parts, f"vocabulary {model.vocab_size:,}"])


def _traffic(entry: Mapping[str, Any]) -> str:
    kind = "sessions" if entry.get("turns", 1) > 1 else "requests"
    if entry.get("arrivals") == "constant" and entry["rate"] >= 1000:
        parts = ["all there at the beginning"]
    else:
        parts = [f"{entry['rate']:g} {kind} a second ({entry.get('arrivals', 'poisson')})"]
    if entry.get("prefixes"):
        parts.append(f"{entry['prefixes']} shared prefixes of {entry['prefix_tokens']:,} tokens")
    if entry.get("turns", 1) > 1:
        parts.append(f"{entry['turns']} turns, {entry['think_seconds']:g} s between them")
    parts += [f"{name} {_lengths(entry[name])}" for name in ("prompt", "output")]
    return "; ".join(parts)


def _lengths(entry: Mapping[str, Any]) -> str:
    mean, most = f"{entry['mean']:,}", f"{entry['most']:,}"
    return f"log-normal, mean {mean}, cv {entry['cv']:g}, at most {most} tokens"


def _objective(task: DesignTask) -> str:
    slo = task.given.get("slo", {})
    bounds = [
        f"{name.upper()} within {seconds(slo[f'{name}_ms'] / 1000)}"
        for name in ("ttft", "tpot", "e2e")
        if f"{name}_ms" in slo
    ]
    if not bounds:
        return "the cost alone"
    return f"{' and '.join(bounds)} for {slo.get('attainment', 0.99):.0%} of requests"


def _money(task: DesignTask) -> str:
    parts = []
    if isfinite(task.budget):
        parts.append(f"{task.budget:,.2f} USD an hour")
    if isfinite(task.cost):
        parts.append(f"{task.cost:,.2f} USD a million output tokens")
    return f", {' and '.join(parts)}" if parts else ""
