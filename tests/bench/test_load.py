"""The load generator, against real engines and against made-up steps."""

from __future__ import annotations

import asyncio

import pytest

from mini_vllm import AsyncEngine
from mini_vllm.bench.load import LoadGenerator, Slo, Trace, run_load, timeline
from mini_vllm.bench.traffic import Traffic
from mini_vllm.engine.stats import StepStats
from mini_vllm.errors import EngineDeadError, InvalidInputError

TRAFFIC = Traffic("test", 2, 32, [4, 8], [2, 4])
ENDLESS = Traffic("endless", 1, 16, [4, 8], [400, 400])


def against(config, traffic, use):
    """What `use(generator, engine)` gives on a running engine."""

    async def main():
        engine = AsyncEngine(config)
        await engine.start()
        try:
            return await use(LoadGenerator(engine, traffic), engine)
        finally:
            await engine.shutdown(drain=False)

    return asyncio.run(main())


def test_every_arrival_is_served_and_accounted_for(small_engine):
    async def use(generator, engine):
        return await generator.phase(40.0, 0.5, window=0.5, time_limit=60.0)

    phase = against(small_engine, TRAFFIC, use)
    assert phase.arrived == phase.completed > 5
    assert phase.cancelled == phase.failed == 0
    assert phase.ttft.n == phase.e2e.n == phase.arrived
    assert 0 < phase.ttft.p50 <= phase.e2e.p50
    assert phase.timeline.running[0] >= 0
    assert max(phase.timeline.running) >= 1
    assert max(phase.timeline.kv_cache_usage) > 0
    # Two prefixes of two blocks each: all but the first requests find them.
    assert phase.timeline.prefix_hit_rate[-1] > 0.3


def test_what_is_unfinished_at_the_limit_is_cancelled_counted_and_gone(small_engine):
    async def use(generator, engine):
        cut = await generator.phase(200.0, 2.0, window=0.05, time_limit=0.1)
        left = engine.num_unfinished_requests()
        return cut, left, await engine.reset_prefix_cache()

    cut, left, no_block_is_held = against(small_engine, ENDLESS, use)
    assert cut.cancelled > 0
    assert cut.arrived == cut.completed + cut.cancelled + cut.failed
    assert left == 0
    assert no_block_is_held


def test_a_phase_does_not_profit_from_the_one_before(small_engine):
    async def use(generator, engine):
        return [await generator.phase(40.0, 0.5, 0.4, 60.0) for _ in range(2)]

    first, second = against(small_engine, TRAFFIC, use)
    assert first.timeline.prefix_hit_rate[-1] == second.timeline.prefix_hit_rate[-1]


def test_rates_follow_from_the_measured_capacity(small_engine):
    async def use(generator, engine):
        return await run_load(generator, 2.0, (0.2, 0.4), Slo(ttft=1e-9), burst=6)

    result = against(small_engine, TRAFFIC, use)
    capacity = result.capacity.value
    assert [p.rate.value for p in result.phases] == [0.2 * capacity, 0.4 * capacity]
    assert [p.goodput.value for p in result.phases] == [0, 0]


def test_an_engine_that_has_stopped_is_an_error_and_not_a_figure(small_engine):
    async def use(generator, engine):
        await engine.shutdown()
        return await generator.phase(10.0, 0.5, 0.1, 1.0)

    with pytest.raises(EngineDeadError):
        against(small_engine, TRAFFIC, use)


def test_traffic_longer_than_the_context_is_refused(small_engine):
    async def use(generator, engine):
        raise AssertionError

    with pytest.raises(InvalidInputError, match="reach 3000 tokens and the engine's context has"):
        against(small_engine, Traffic("long", 1, 1000, [1, 1000], [1, 1000]), use)


def test_latencies_count_from_when_a_request_was_due():
    trace = Trace(due=1.0, dispatched=1.5, token_times=[2.0, 2.3, 2.9], token_count=4)
    assert trace.ttft == 1.0
    assert trace.e2e == pytest.approx(1.9)
    assert trace.tpot == pytest.approx(0.9 / 3)
    assert trace.itl == pytest.approx([0.3, 0.6])


def test_a_single_token_has_no_time_per_output_token_but_meets_a_bound_on_it():
    trace = Trace(due=0.0, token_times=[0.2], token_count=1)
    assert trace.tpot is None
    assert trace.itl == []
    assert trace.meets(Slo(tpot=0.001))


@pytest.mark.parametrize(
    ("slo", "met"),
    [
        (Slo(), True),
        (Slo(ttft=1.0), True),
        (Slo(ttft=0.99), False),
        (Slo(ttft=1.0, tpot=0.29), False),
        (Slo(e2e=1.8), False),
        (Slo(1.0, 0.31, 2.0), True),
    ],
)
def test_an_objective_is_met_when_each_latency_is(slo, met):
    trace = Trace(due=1.0, token_times=[2.0, 2.3, 2.9], token_count=4)
    assert trace.meets(slo) is met


def step(end, seconds, running, waiting=0, queries=0, hits=0):
    return StepStats(end, seconds, running, waiting, running / 10, 0, 0, 0, queries, hits)


def test_a_timeline_spreads_steps_over_time_and_shows_idle_time():
    steps = [step(101.0, 1.0, 2, 1, queries=10), step(103.5, 1.5, 3, queries=10, hits=5)]
    line = timeline(steps, start=100.0, seconds=5.0, points=5)
    assert line.seconds == [1, 2, 3, 4, 5]
    assert line.running == [2, 2, 3, 3, 0]
    assert line.waiting == [1, 1, 0, 0, 0]
    assert line.kv_cache_usage == [0.2, 0.2, 0.3, 0.3, 0.0]
    assert line.prefix_hit_rate == [None, 0.0, 0.0, 0.25, 0.25]


def test_a_timeline_of_nothing_is_idle():
    line = timeline([], start=0.0, seconds=1.0, points=3)
    assert line.running == [0, 0, 0]
    assert line.prefix_hit_rate == [None, None, None]
