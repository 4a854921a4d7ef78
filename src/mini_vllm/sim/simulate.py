"""A scenario in, figures out."""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace
from typing import Any

from mini_vllm.sim.cluster import Cluster, Pool
from mini_vllm.sim.cost.choose import choose_cost
from mini_vllm.sim.cost.step_cost import StepCost, Terms
from mini_vllm.sim.deployment import Deployment
from mini_vllm.sim.executor import SimulatedExecutor
from mini_vllm.sim.histogram import Histogram
from mini_vllm.sim.outcome import Outcome
from mini_vllm.sim.scenario import Scenario
from mini_vllm.sim.sizing import kv_bytes_per_token
from mini_vllm.sim.traffic import arrivals

_PERCENTILES = {"p50": 0.5, "p90": 0.9, "p99": 0.99}
BUSY = 0.9
"""Busy share from which an engine has no time to spare."""


@dataclass(frozen=True)
class Result:
    """The figures of one simulation, ready for JSON; times in seconds, rates per second."""

    title: str
    cost_model: str
    extrapolated: float
    devices: int
    requests: int
    refused: int
    seconds: float
    rate: float
    """Requests finished a second."""
    output_rate: float
    total_rate: float
    goodput: float
    """Requests a second that kept the objective."""
    attained: float
    has_slo: bool
    meets_slo: bool
    broken: dict[str, int]
    latency: dict[str, dict[str, float | None]]
    kv_usage: dict[str, float]
    prefix_hit_rate: float
    preemptions: int
    mean_running: float
    busy: float
    """Share of the time in which the engines computed."""
    shares: dict[str, float]
    """Where busy time went, by term."""
    bottleneck: str
    tenants: dict[str, dict[str, float]]
    cost_per_hour: float
    cost_per_million_output: float | None
    currency: str
    timeline: list[dict[str, float]]

    def to_json(self) -> dict[str, Any]:
        return asdict(self)


def simulate(scenario: Scenario) -> Result:
    """Runs a scenario.

    Raises:
        InvalidInputError: it cannot be run: the model does not fit, a trace is unusable.
    """
    outcome = Outcome(scenario.slo)
    costs: list[StepCost] = []
    pool = _pool(scenario, scenario.deployment, scenario.replicas, costs)
    prefill = None
    apart = scenario.disaggregation
    if apart.prefill_replicas:
        prefill = _pool(scenario, scenario.prefill_deployment, apart.prefill_replicas, costs)
        pool = replace(pool, make=_decoding_only(scenario, costs))
    whole = replace(scenario.deployment, tp=1, pp=1, ep=False)  # each head travels once
    each = kv_bytes_per_token(whole).value
    cluster = Cluster(
        pool,
        scenario.router,
        outcome,
        prefill,
        lambda tokens: apart.latency + tokens * each / apart.link,
    )
    cluster.run(arrivals(scenario.tenants, scenario.seed), scenario.requests)
    return _result(scenario, cluster, outcome, costs)


def _pool(scenario: Scenario, deployment: Deployment, count: int, costs: list[StepCost]) -> Pool:
    config = scenario.scheduler_config(deployment)
    return Pool(count, config, lambda n: _executor(scenario, deployment, n, costs))


def _decoding_only(scenario: Scenario, costs: list[StepCost]) -> Any:
    return lambda n: _executor(scenario, scenario.deployment, n, costs, free_prompts=True)


def _executor(
    scenario: Scenario,
    deployment: Deployment,
    number: int,
    costs: list[StepCost],
    free_prompts: bool = False,
) -> SimulatedExecutor:
    spec = scenario.speculation
    cost = choose_cost(scenario, deployment)
    costs.append(cost)
    return SimulatedExecutor(
        cost,
        draft_tokens=spec.draft_tokens,
        acceptance=spec.acceptance,
        seed=scenario.seed * 1009 + number,
        free_prompts=free_prompts,
    )


def _result(
    scenario: Scenario, cluster: Cluster, outcome: Outcome, costs: list[StepCost]
) -> Result:
    seconds = outcome.end
    loads = cluster.loads
    busy = sum(load.busy for load in loads)
    terms = [sum(values) for values in zip(*(load.terms for load in loads), strict=True)]
    managers = [e.core.scheduler.kv_cache_manager for e in [*cluster.engines, *cluster.prefillers]]
    queries = sum(manager.prefix_cache_queries for manager in managers)
    hits = sum(manager.prefix_cache_hits for manager in managers)
    share = busy / (len(loads) * seconds) if seconds else 0.0
    shares = {n: t / busy if busy else 0.0 for n, t in zip(Terms._fields, terms, strict=True)}
    usage = sum(load.kv_seconds for load in loads) / busy if busy else 0.0
    most = max(load.kv_most for load in loads)
    preemptions = sum(load.preemptions for load in loads)
    hourly = scenario.price.gpu_hour * scenario.devices
    output_rate = outcome.output_tokens / seconds if seconds else 0.0
    kept_rate = outcome.kept_output_tokens / seconds if seconds else 0.0
    return Result(
        title=scenario.title,
        cost_model=costs[0].name,
        extrapolated=max(cost.extrapolated for cost in costs),
        devices=scenario.devices,
        requests=outcome.finished,
        refused=outcome.refused,
        seconds=seconds,
        rate=outcome.finished / seconds if seconds else 0.0,
        output_rate=output_rate,
        total_rate=(outcome.output_tokens + outcome.prompt_tokens) / seconds if seconds else 0.0,
        goodput=outcome.kept / seconds if seconds else 0.0,
        attained=outcome.attained,
        has_slo=scenario.slo.is_set,
        meets_slo=outcome.meets_slo,
        broken=outcome.broken,
        latency={
            name: _percentiles(getattr(outcome, name)) for name in ("ttft", "tpot", "itl", "e2e")
        },
        kv_usage={"mean": usage, "most": most},
        prefix_hit_rate=hits / queries if queries else 0.0,
        preemptions=preemptions,
        mean_running=sum(load.running_seconds for load in loads) / busy if busy else 0.0,
        busy=share,
        shares=shares,
        bottleneck=_bottleneck(share, shares, most, preemptions, outcome),
        tenants={
            name: {"requests": n, "attained": kept / n if n else 0.0}
            for name, (n, kept) in sorted(outcome.tenants.items())
        },
        cost_per_hour=hourly,
        cost_per_million_output=hourly / 3600 / kept_rate * 1e6 if hourly and kept_rate else None,
        currency=scenario.price.currency,
        timeline=[asdict(moment) for moment in outcome.timeline],
    )


def _percentiles(histogram: Histogram) -> dict[str, float | None]:
    found = {name: histogram.quantile(share) for name, share in _PERCENTILES.items()}
    return {**found, "mean": histogram.mean if histogram.total else None}


_WORDS = {
    "arithmetic": "arithmetic: products wait for the arithmetic units",
    "weights": "memory bandwidth: products wait for weights to be read",
    "attention": "memory bandwidth: reading keys and values",
    "communication": "communication between devices",
    "overhead": "overheads that do not shrink with the hardware: launches, scheduling, sampling",
}


def _bottleneck(
    busy: float, shares: dict[str, float], kv_most: float, preemptions: int, outcome: Outcome
) -> str:
    """What limits this deployment, in words."""
    term = max(shares, key=lambda name: shares[name])
    where = f"{_WORDS[term]} ({shares[term]:.0%} of busy time)"
    if preemptions > outcome.finished * 0.01:
        return f"KV cache memory: {preemptions} preemptions; after that {where}"
    if busy < BUSY:
        return f"none: engines are busy {busy:.0%} of the time; a step is mostly {where}"
    return where
