"""What the simulated deployment gives: tokens that keep the objective, and what a token takes.

The scenario runs on the engine's own scheduler (`mini_vllm.sim`); its hardware price is not used,
because the sheet's is.

Input and output share the devices' time by this rule. A prompt takes what it adds to a step in
which the mean number of sequences decodes; an output token takes its part of such a step alone.
Both are asked of the same cost model that the simulation ran on. Idle time is shared alike. With
prefill on engines of its own, the devices of each kind are the shares.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from math import ceil, inf

from mini_vllm.sim.cost.choose import choose_cost
from mini_vllm.sim.cost.shape import StepShape
from mini_vllm.sim.quantity import seconds
from mini_vllm.sim.scenario import Price, Scenario, load_scenario
from mini_vllm.sim.simulate import Result, simulate
from trackrecord.venture import sheet
from trackrecord.venture.sheet import SheetError
from trackrecord.venture.words import number

_FINE_ENOUGH = 1.06
"""A search ends when the most traffic that is kept and the least that is not are this close."""
_FARTHEST = 1024.0
MOST_REQUESTS = 50_000
"""Of one run of a search."""
_LASTING = 10.0
"""How many times as long as a request a run has to be, for a queue that grows to be seen."""

Progress = Callable[[str], None]


@dataclass(frozen=True)
class Served:
    """One deployment under its traffic; rates in tokens/s of requests that keep the objective.

    Args:
        load: how many times the scenario's traffic it was under.
        rate: requests that finished a second.
        input_share: part of the devices' time that prompts take; see the module.
    """

    title: str
    cost_model: str
    devices: int
    requests: int
    load: float
    rate: float
    output_rate: float
    input_rate: float
    input_share: float
    input_share_lines: tuple[str, ...]
    attained: float
    has_slo: bool
    meets_slo: bool
    ttft_p99: float | None
    tpot_p99: float | None
    bottleneck: str

    @property
    def input_per_output(self) -> float:
        """Input tokens for each output token."""
        return self.input_rate / self.output_rate


def serve(serving: sheet.Serving, say: Progress = lambda message: None) -> Served:
    """Simulates the scenario that a sheet names.

    Raises:
        InvalidInputError: the scenario cannot be used.
        SheetError: it contradicts the sheet, or no request keeps its objective.
    """
    scenario = load_scenario(serving.scenario)
    if scenario.price.gpu_hour and scenario.price.currency.upper() != "USD":
        raise SheetError(
            f"serving.scenario: its price.currency is {scenario.price.currency!r}, and this "
            "sheet is in USD: mixed units"
        )
    scenario = replace(
        scenario,
        requests=scenario.requests if serving.requests is None else serving.requests,
        seed=scenario.seed if serving.seed is None else serving.seed,
        # At 1 a device-hour, the simulation's cost of a million tokens is their device-hours.
        price=Price(gpu_hour=1.0),
    )
    load = 1.0
    if serving.capacity == "search":
        if not scenario.slo.is_set:
            raise SheetError(
                "serving.capacity: a search needs an objective, and the scenario has no [slo]; "
                'write capacity = "offered"'
            )
        if any(tenant.trace for tenant in scenario.tenants):
            raise SheetError(
                "serving.capacity: a search needs traffic with a rate, not a trace; write "
                'capacity = "offered"'
            )
        load, result = _most_traffic(scenario, say)
    else:
        say(f"simulating {scenario.requests:,} requests on {scenario.devices} devices")
        result = simulate(scenario)
    if not result.cost_per_million_output:
        raise SheetError(
            "serving.scenario: no request keeps the objective, so no token can be sold "
            f"(broken: {', '.join(result.broken) or 'all refused'})"
        )
    return _served(under(scenario, load), result, load)


def under(scenario: Scenario, load: float) -> Scenario:
    """The scenario with every tenant's traffic `load` times as fast."""
    tenants = tuple(replace(tenant, rate=tenant.rate * load) for tenant in scenario.tenants)
    return replace(scenario, tenants=tenants)


def lasting(scenario: Scenario) -> Result:
    """The simulation, with as many more requests as make it last long enough to judge by.

    A short run keeps an objective that the same traffic breaks in the long run, never the other way
    round; so one that breaks it is judged as it is.
    """
    result = simulate(scenario)
    mean = result.latency["e2e"]["mean"]
    if not result.meets_slo or mean is None:
        return result
    offered = sum(tenant.rate * tenant.turns for tenant in scenario.tenants)
    needed = min(ceil(offered * _LASTING * mean), MOST_REQUESTS)
    return simulate(replace(scenario, requests=needed)) if needed > scenario.requests else result


def _most_traffic(scenario: Scenario, say: Progress) -> tuple[float, Result]:
    """The most traffic, as a multiple of the scenario's, that keeps the objective."""
    kept, broken, load = 0.0, inf, 1.0
    best: Result | None = None
    while broken > kept * _FINE_ENOUGH:
        result = lasting(under(scenario, load))
        verdict = "kept" if result.meets_slo else "broken"
        say(f"simulated {load:.3g} x the traffic: objective {verdict}")
        if result.meets_slo:
            kept, best = load, result
        else:
            broken = load
        if best is None:
            if load < 1 / _FARTHEST:
                raise SheetError(
                    "serving.scenario: keeps its objective under no traffic; broken: "
                    f"{', '.join(result.broken) or 'requests are refused'}"
                )
            load /= 4
        elif kept >= _FARTHEST:
            raise SheetError(
                f"serving.capacity: {kept:g} x the scenario's traffic still keeps its objective; "
                "give a rate nearer to what the deployment can serve"
            )
        else:
            load = load * 2 if broken == inf else (kept * broken) ** 0.5
    assert best is not None
    return kept, best


def _served(scenario: Scenario, result: Result, load: float) -> Served:
    assert result.cost_per_million_output is not None
    output_rate = result.devices / 3600 / result.cost_per_million_output * 1e6
    # Of the prompts the simulation counts all; those whose request kept it are as long as others.
    kept = result.goodput / result.rate
    input_rate = (result.total_rate - result.output_rate) * kept
    share, lines = _input_share(scenario, result)
    return Served(
        title=result.title,
        cost_model=result.cost_model,
        devices=result.devices,
        requests=result.requests,
        load=load,
        rate=result.rate,
        output_rate=output_rate,
        input_rate=input_rate,
        input_share=share,
        input_share_lines=lines,
        attained=result.attained,
        has_slo=result.has_slo,
        meets_slo=result.meets_slo or not result.has_slo,
        ttft_p99=result.latency["ttft"]["p99"],
        tpot_p99=result.latency["tpot"]["p99"],
        bottleneck=result.bottleneck,
    )


def _input_share(scenario: Scenario, result: Result) -> tuple[float, tuple[str, ...]]:
    """Part of the devices' time that prompts take, and how it came about."""
    apart = scenario.disaggregation
    if apart.prefill_replicas:
        devices = apart.prefill_replicas * scenario.prefill_deployment.devices
        share = devices / scenario.devices
        line = f"{devices} of {scenario.devices} devices compute prompts only = {share:.4g}"
        return share, (line,)
    outputs = result.output_rate / result.rate
    prompts = (result.total_rate - result.output_rate) / result.rate
    computed = max(1, round(prompts * (1 - result.prefix_hit_rate)))
    batch = max(1, round(result.mean_running))
    context = round(prompts + outputs / 2)
    spec = scenario.speculation
    yielded = 1 + sum(spec.acceptance**n for n in range(1, spec.draft_tokens + 1))
    cost = choose_cost(scenario, scenario.deployment)

    def step(chunk: int) -> float:
        shape = StepShape(
            decodes=batch, decode_context=batch * context, verified=1 + spec.draft_tokens
        )
        if chunk:
            shape.add_chunk(chunk, max(chunk, round(prompts)))
        return cost.terms(shape).seconds

    alone = step(0)
    # A prompt longer than a step's budget is computed in pieces, each behind the same decodes.
    most = max(1, scenario.engine.max_num_batched_tokens - batch)
    pieces = -(-computed // most)
    prompt = pieces * (step(-(-computed // pieces)) - alone)
    answer = outputs * alone / (batch * yielded)
    share = prompt / (prompt + answer)
    lines = (
        f"a step of {batch} decodes at a context of {number(context)} takes {seconds(alone)}",
        f"a prompt of {number(computed)} tokens to compute adds {seconds(prompt)} to it",
        f"an answer of {number(outputs)} tokens takes {number(outputs)} x {seconds(alone)} / "
        f"{number(batch * yielded)} = {seconds(answer)}",
        f"input's share {seconds(prompt)} / ({seconds(prompt)} + {seconds(answer)}) = {share:.4g}",
    )
    return share, lines
