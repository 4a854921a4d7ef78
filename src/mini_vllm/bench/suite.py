"""One whole measurement, in an order in which no part disturbs another.

The workloads come first, in a process that has done nothing else, so that its peak memory is
theirs; then, with that engine gone, fresh processes, the load, and last the machine's own ceilings.
"""

from __future__ import annotations

import asyncio
import gc
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from mini_vllm import __version__
from mini_vllm.bench.budget import Budget
from mini_vllm.bench.cold_start import MAX_RUNS, measure_cold_start
from mini_vllm.bench.figures import Figure
from mini_vllm.bench.load import (
    BURST_SHARE,
    LEAST_BURST,
    MOST_BURST,
    WINDOW_SHARE,
    LoadGenerator,
    LoadResult,
    Slo,
    run_load,
)
from mini_vllm.bench.machine import OtherPrograms, peak_rss_bytes, probe
from mini_vllm.bench.measure import OfflineRunner, WorkloadResult, check_context, measure
from mini_vllm.bench.report import SCHEMA, ModelFacts, Report, engine_settings, public_model_name
from mini_vllm.bench.traffic import TRAFFICS, Costs, Traffic, choose_traffic
from mini_vllm.bench.workloads import WORKLOADS, Workload
from mini_vllm.engine.config import EngineConfig

if TYPE_CHECKING:
    from mini_vllm.engine.llm import LLM

COLD_START_SHARE, LOAD_SHARE = 0.12, 0.4
"""Parts of a time budget that starting fresh processes and the load may take."""
PROBE_SECONDS = 6.0
"""Left for probing the machine."""
LEAST_LOAD_SECONDS, LEAST_LOAD_SHARE = 12.0, 0.2
"""What the load takes at least, the second in parts of the workloads' time: on a machine so slow
that these used up the budget, a load of a few seconds would see nothing."""

Progress = Callable[[str], None]


@dataclass(frozen=True)
class Plan:
    """What to measure. Give `rounds`, or `budget_seconds` to measure as often as time allows.

    `load_shares` are the arrival rates of the load test as shares of the measured capacity; empty
    leaves it out. `command` is the one that the report names for measuring this again.
    """

    config: EngineConfig
    command: list[str]
    workloads: Sequence[Workload] = field(default_factory=lambda: list(WORKLOADS.values()))
    rounds: int | None = None
    budget_seconds: float | None = None
    load_shares: Sequence[float] = ()
    slo: Slo | None = None
    seed: int = 0


def run_plan(plan: Plan, progress: Progress) -> Report:
    """Measures all of `plan`.

    Raises:
        ModelLoadError, InvalidInputError: before anything is measured, for a model or a workload
            that cannot be run.
    """
    budget = Budget(plan.budget_seconds or math.inf)
    others = OtherPrograms()
    facts, threads, workloads, peak_memory = _measure_offline(plan, budget, progress)
    gc.collect()
    cold_start = measure_cold_start(
        plan.config,
        budget.part(COLD_START_SHARE * budget.seconds),
        max_runs=min(plan.rounds or MAX_RUNS, MAX_RUNS),
        progress=progress,
    )
    load = (
        asyncio.run(_measure_load(plan, workloads, budget, progress)) if plan.load_shares else None
    )
    progress("measuring what the machine can do")
    machine, others_share = probe(), others.share()
    return Report(
        schema=SCHEMA,
        created=datetime.now(UTC).isoformat(timespec="seconds"),
        engine_version=__version__,
        command=plan.command,
        seed=plan.seed,
        settings=engine_settings(plan.config),
        model=facts,
        machine=machine,
        threads=threads,
        other_programs=None if others_share is None else Figure(others_share, "share"),
        cold_start=cold_start,
        workloads=workloads,
        peak_memory=peak_memory,
        load=load,
    )


def _measure_offline(
    plan: Plan, budget: Budget, progress: Progress
) -> tuple[ModelFacts, int, list[WorkloadResult], Figure]:
    """The workloads, on an engine that is gone when this returns."""
    import torch

    from mini_vllm.engine.llm import LLM

    progress(f"loading {plan.config.model}")
    llm = LLM(**vars(plan.config))
    check_context(plan.workloads, llm.engine.max_model_len)
    kept = LOAD_SHARE + COLD_START_SHARE if plan.load_shares else COLD_START_SHARE
    results = measure(
        plan.workloads,
        OfflineRunner(llm, plan.seed),
        rounds=plan.rounds,
        budget=budget.part(budget.left() - kept * budget.seconds) if plan.budget_seconds else None,
        progress=progress,
    )
    peak_memory = Figure(peak_rss_bytes(), "bytes")
    return _facts(llm, plan.config), torch.get_num_threads(), results, peak_memory


def _facts(llm: LLM, config: EngineConfig) -> ModelFacts:
    dtype = str(llm.engine.dtype).removeprefix("torch.")
    name = public_model_name(config.model)
    return ModelFacts.of(name, llm.model_config, dtype, llm.engine.dtype.itemsize)


async def _measure_load(
    plan: Plan, workloads: Sequence[WorkloadResult], budget: Budget, progress: Progress
) -> LoadResult:
    """The load test, on an engine of its own, in the time that is left."""
    from mini_vllm.engine.async_engine import AsyncEngine

    engine = AsyncEngine(plan.config)
    await engine.start()
    try:
        spent = sum(sum(result.seconds.samples) for result in workloads)
        least = max(LEAST_LOAD_SECONDS, LEAST_LOAD_SHARE * spent)
        most = LOAD_SHARE * budget.seconds if plan.budget_seconds else least
        seconds = max(least, min(budget.left() - PROBE_SECONDS, most))
        traffic, burst = _traffic(_costs(workloads), seconds, plan.load_shares)
        generator = LoadGenerator(engine, traffic, plan.seed)
        return await run_load(generator, seconds, plan.load_shares, plan.slo, burst, progress)
    finally:
        await engine.shutdown(drain=False)


def _costs(workloads: Sequence[WorkloadResult]) -> Costs | None:
    """What the workloads showed of the engine's speed; None if a needed one was left out."""
    by_name = {result.name: result for result in workloads}
    if not {"single", "batch", "prefill"} <= by_name.keys():
        return None
    single, batch, prefill = (by_name[name] for name in ("single", "batch", "prefill"))
    prompt_token = prefill.seconds.median / (prefill.num_requests * prefill.prompt_tokens)
    prompts = batch.num_requests * batch.prompt_tokens * prompt_token
    decoding = max(batch.seconds.median - prompts, 0.1 * batch.seconds.median)
    return Costs(
        prompt_token=prompt_token,
        output_token=decoding / (batch.num_requests * batch.output_tokens),
        step=single.seconds.median / single.output_tokens,
    )


def _traffic(costs: Costs | None, seconds: float, shares: Sequence[float]) -> tuple[Traffic, int]:
    """Traffic that suits an engine of these costs, and how much of it to measure capacity with."""
    if costs is None:
        return TRAFFICS[-1], LEAST_BURST
    limit = (1 - BURST_SHARE) * seconds / len(shares)
    window = WINDOW_SHARE * limit
    traffic = choose_traffic(costs, window, limit - window, min(shares))
    affordable = int(BURST_SHARE * seconds / traffic.seconds_each(costs))
    return traffic, min(MOST_BURST, max(LEAST_BURST, affordable))
