"""The engine on a virtual clock: decisions are `replay`'s, times can be added up by hand."""

from __future__ import annotations

import gc
import gzip
import json
import os
from itertools import repeat
from pathlib import Path
from typing import Any

import pytest
from by_hand import Ledger, Line, ask, pool, served
from hypothesis import given, settings
from hypothesis import strategies as st

from mini_vllm.core.request import Request
from mini_vllm.core.sampling_params import SamplingParams
from mini_vllm.core.scheduler import ModelRunnerOutput, SchedulerConfig, SchedulerOutput
from mini_vllm.replay import Workload, replay
from mini_vllm.sim.cluster import Cluster
from mini_vllm.sim.engine import Life, SimulatedEngine
from mini_vllm.sim.executor import SimulatedExecutor, replay_token
from mini_vllm.sim.traffic import Arrival

# Those with drafts are not among them: the simulator draws how many are accepted, by itself.
TRACES = sorted((Path(__file__).parents[1] / "data/traces").glob("[!d]*.workload.json.gz"))


class Witness(SimulatedExecutor):
    """Writes down each step as `replay` does, right after it was decided."""

    def __init__(self) -> None:
        super().__init__(Line(), sample=replay_token)
        self.engine: SimulatedEngine
        self.steps: list[dict[str, Any]] = []

    def execute(self, scheduler_output: SchedulerOutput) -> ModelRunnerOutput:
        manager = self.engine.core.scheduler.kv_cache_manager
        scheduled = {r.request_id: n for r, n in scheduler_output.num_scheduled_tokens.items()}
        self.steps.append(
            {
                "step": len(self.steps),
                "scheduled": scheduled,
                "new": [r.request_id for r in scheduler_output.new],
                "preempted": sorted(r.request_id for r in scheduler_output.preempted),
                "free_blocks": manager.block_pool.num_free_blocks,
                "block_ids": {name: manager.get_block_ids(name) for name in scheduled},
            }
        )
        return super().execute(scheduler_output)


class Run:
    """A workload in a simulated engine, arrivals and aborts before the steps that it names."""

    def __init__(self, workload: Workload) -> None:
        self.witness = Witness()
        self.ends: list[tuple[Life, float]] = []
        self.intervals: list[tuple[float, int]] = []
        self.engine = self.witness.engine = SimulatedEngine(
            workload.config,
            self.witness,
            lambda life, end: self.ends.append((life, end)),
            lambda seconds, count: self.intervals.append((seconds, count)),
        )
        arrivals, aborts, step = workload.arrivals[::-1], workload.aborts[::-1], 0
        while arrivals or self.engine.has_work:
            while arrivals and arrivals[-1].step <= step:
                request = arrivals.pop().request
                now, prompt = self.engine.now, request.num_prompt_tokens
                self.engine.add(Life(request, now, request.max_tokens or 0, prompt), now)
            while aborts and aborts[-1][0] <= step:
                self.engine.core.finish_requests([aborts.pop()[1]], 6)  # type: ignore[arg-type]
            self.engine.step()
            step += 1


def read(path: Path) -> Workload:
    return Workload.parse(json.loads(gzip.decompress(path.read_bytes())))


@pytest.mark.parametrize("path", TRACES, ids=lambda path: path.name.split(".")[0])
def test_decisions_are_those_of_replay(path: Path) -> None:
    ours, theirs = Run(read(path)).witness.steps, replay(read(path))["steps"]
    for mine, other in zip(ours, theirs, strict=True):
        assert mine == other
        assert list(mine["scheduled"]) == list(other["scheduled"])


@pytest.mark.parametrize("path", TRACES, ids=lambda path: path.name.split(".")[0])
def test_intervals_add_up_to_the_time_from_first_to_last_token(path: Path) -> None:
    workload = read(path)
    workload.aborts.clear()  # of an aborted request the last token is not known
    run = Run(workload)
    lived = sum(end - life.first_token for life, end in run.ends if life.first_token)
    assert sum(seconds * count for seconds, count in run.intervals) == pytest.approx(lived)
    tokens = sum(life.request.num_output_tokens - 1 for life, _ in run.ends)
    assert sum(count for _, count in run.intervals) == tokens


# --- times


def test_time_to_first_token_is_the_prompts_step() -> None:
    # 1 s a step and 0.1 s a token: a prompt of 4, then two steps of one token
    ledger = served(Cluster(pool(), "least-loaded", Ledger()), [ask(0.0, 4, 3)])
    assert ledger.ttft.mean == pytest.approx(1.4)
    assert ledger.itl.mean == pytest.approx(1.1)
    assert ledger.tpot.mean == pytest.approx(1.1)
    assert ledger.e2e.mean == pytest.approx(3.6)


def test_one_token_has_no_time_per_output_token() -> None:
    ledger = served(Cluster(pool(), "least-loaded", Ledger()), [ask(0.0, 4, 1)])
    assert (ledger.tpot.total, ledger.itl.total) == (0, 0)
    assert ledger.e2e.mean == ledger.ttft.mean == pytest.approx(1.4)


def test_an_idle_engine_begins_when_a_request_arrives() -> None:
    ledger = served(Cluster(pool(), "least-loaded", Ledger()), [ask(0, 4, 1), ask(50.0, 4, 1)])
    assert ledger.ends == pytest.approx({0: 1.4, 1: 51.4})


def test_a_request_that_arrives_during_a_step_waits_for_the_next() -> None:
    # first step 0 to 1.4 has the first prompt alone; 1.4 to 2.9: one decode and a prompt of 4
    ledger = served(Cluster(pool(), "least-loaded", Ledger()), [ask(0, 4, 2), ask(0.5, 4, 1)])
    assert ledger.ends == pytest.approx({0: 2.9, 1: 2.9})
    assert ledger.ttft.mean == pytest.approx((1.4 + 2.4) / 2)
    assert ledger.itl.mean == pytest.approx(1.5)


def test_a_prompt_in_chunks_has_its_first_token_after_the_last() -> None:
    cluster = Cluster(pool(max_num_batched_tokens=4), "least-loaded", Ledger())
    ledger = served(cluster, [ask(0.0, 10, 1)])  # 4, 4 and 2 tokens
    assert ledger.ttft.mean == pytest.approx(1.4 + 1.4 + 1.2)


def test_a_cached_prefix_costs_nothing() -> None:
    cluster = Cluster(pool(enable_prefix_caching=True), "least-loaded", Ledger())
    ledger = served(cluster, [ask(0.0, 33, 1), ask(100.0, 33, 1)])
    assert ledger.ends == pytest.approx({0: 4.3, 1: 101.1})  # two blocks of 16 are there


def test_a_preempted_request_waits_for_its_next_token_until_it_is_back() -> None:
    # Five blocks of 4; each request ends with 14 tokens, 4 blocks. The second gives way.
    config = {"num_blocks": 6, "block_size": 4}
    cluster = Cluster(pool(cost=Line(1.0, 0.0), **config), "least-loaded", Ledger())
    ledger = served(cluster, [ask(0.0, 6, 8), ask(0.0, 6, 8, start=1)])
    # Steps 1 to 3 give both a token each; step 4 needs a third block each, and the second goes.
    # The first ends alone at step 8. The second is computed anew at step 9, its fourth token.
    assert ledger.ends == {0: 8.0, 1: 13.0}
    assert cluster.engines[0].load.preemptions == 1
    assert ledger.itl.largest == 6.0
    assert ledger.itl.total == 14
    assert ledger.itl.sum == pytest.approx((8 - 1) + (13 - 1))


def requests(*, most: int) -> st.SearchStrategy[list[Arrival]]:
    one = st.tuples(st.floats(0, 20), st.integers(1, most), st.integers(1, most))
    return st.lists(one, min_size=1, max_size=8).map(
        lambda found: [
            ask(time, prompt, output, start=number)
            for number, (time, prompt, output) in enumerate(sorted(found))
        ]
    )


@settings(deadline=None, derandomize="CI" in os.environ, max_examples=200)
@given(requests(most=16), st.integers(1, 12), st.booleans(), st.sampled_from([0, 3]))
def test_intervals_add_up_in_a_cache_that_is_too_small(
    asked: list[Arrival], budget: int, caching: bool, drafts: int
) -> None:
    """However often requests are preempted, and wherever their prompts are cut."""
    config = SchedulerConfig(
        num_blocks=9,
        block_size=4,
        max_num_batched_tokens=budget,
        enable_prefix_caching=caching,
    )
    made = pool()
    cluster = Cluster(
        type(made)(
            1,
            config,
            lambda n: SimulatedExecutor(Line(), draft_tokens=drafts, acceptance=0.7),
        ),
        "least-loaded",
        Ledger(),
    )
    ledger = served(cluster, asked)
    assert ledger.finished == len(asked)
    lived = sum(end - (life.first_token or 0) for life, end in ledger.lives)
    assert ledger.itl.sum == pytest.approx(lived)


# --- loads


def test_load_adds_up_what_the_steps_took() -> None:
    cluster = Cluster(pool(), "least-loaded", Ledger())
    served(cluster, [ask(0.0, 4, 3), ask(50.0, 6, 2)])
    load = cluster.engines[0].load
    assert (load.steps, load.prompt_tokens, load.output_tokens) == (5, 10, 5)
    assert load.busy == pytest.approx(5 + 0.1 * (4 + 2 + 6 + 1))
    assert sum(load.terms) == pytest.approx(load.busy)


def test_the_cache_is_empty_in_the_end() -> None:
    cluster = Cluster(pool(), "least-loaded", Ledger())
    served(cluster, [ask(0.0, 40, 30), ask(0.0, 60, 20)])
    manager = cluster.engines[0].core.scheduler.kv_cache_manager
    assert 0 < cluster.engines[0].load.kv_most < 1
    assert manager.usage == 0


# --- memory


def objects_after(count: int) -> tuple[int, int]:
    """(requests and lives, all objects) that are left when `count` requests are done."""
    cluster = Cluster(pool(enable_prefix_caching=True, num_blocks=50), "least-loaded", Ledger())
    outcome = cluster.outcome
    assert isinstance(outcome, Ledger)
    gc.collect()
    before = len(gc.get_objects())
    arrivals = (ask(n * 2.0, 20, 3, key=n, start=n) for n in range(count))
    cluster.run(arrivals, count)
    assert outcome.finished == count
    outcome.lives.clear()
    outcome.moments.clear()
    gc.collect()
    left = gc.get_objects()
    kept = sum(type(thing) in (Request, Life, Arrival) for thing in left)
    return kept, len(left) - before


def test_memory_does_not_grow_with_the_requests_that_have_finished() -> None:
    few_kept, few = objects_after(500)
    many_kept, many = objects_after(3000)
    assert few_kept == many_kept == 0
    assert many - few < 250  # the timeline has 240 points at most


# --- speculation


def decode(tokens: int, drafts: int, acceptance: float, seed: int = 0) -> SimulatedEngine:
    """An engine after one request alone for `tokens` tokens."""
    engine = SimulatedEngine(
        SchedulerConfig(num_blocks=2000),
        SimulatedExecutor(Line(), draft_tokens=drafts, acceptance=acceptance, seed=seed),
        lambda life, end: None,
        lambda seconds, count: None,
    )
    params = SamplingParams(max_tokens=tokens, temperature=0.0, ignore_eos=True)
    engine.add(Life(Request("r", [1, 2, 3], params), 0.0, tokens, 3), 0.0)
    while engine.has_work:
        engine.step()
    return engine


@pytest.mark.parametrize(("drafts", "acceptance"), [(1, 0.5), (3, 0.7), (5, 0.9), (4, 0.0)])
def test_a_step_yields_what_the_acceptance_promises(drafts: int, acceptance: float) -> None:
    """One token, and another for each guess that is right: sum of acceptance^k."""
    engine = decode(8000, drafts, acceptance)
    mean = (engine.load.output_tokens - 1) / (engine.load.steps - 1)
    assert mean == pytest.approx(sum(acceptance**k for k in range(drafts + 1)), rel=0.03)


@pytest.mark.parametrize("tokens", [1, 2, 3, 7, 500])
def test_speculation_gives_no_token_too_many(tokens: int) -> None:
    assert decode(tokens, 5, 0.95).load.output_tokens == tokens


def test_a_step_computes_its_guesses_along() -> None:
    engine = decode(2, drafts=4, acceptance=0.0)
    assert engine.load.busy == pytest.approx(1.3 + 1.5)  # a prompt of 3; one token and 4 guesses


def test_guesses_depend_on_the_seed_alone() -> None:
    assert decode(500, 3, 0.5, seed=1).now == decode(500, 3, 0.5, seed=1).now
    assert decode(500, 3, 0.5, seed=1).now != decode(500, 3, 0.5, seed=2).now


def test_without_drafts_a_step_is_a_token() -> None:
    assert decode(100, 0, 0.9).load.steps == 100


# --- prompts that were computed elsewhere


def test_free_prompts_are_not_computed() -> None:
    cluster = Cluster(pool(free=True), "least-loaded", Ledger())
    served(cluster, [ask(0.0, 500, 3)])
    assert cluster.engines[0].load.prompt_tokens <= 1
    assert cluster.outcome.e2e.mean < 4


def test_what_a_preemption_lost_is_computed_even_where_prompts_are_free() -> None:
    config = {"num_blocks": 6, "block_size": 4}
    cluster = Cluster(pool(free=True, **config), "least-loaded", Ledger())
    served(cluster, [ask(0.0, 6, 8), ask(0.0, 6, 8, start=1)])
    assert cluster.engines[0].load.preemptions == 1
    assert cluster.engines[0].load.prompt_tokens >= 8


# --- determinism


def test_the_same_arrivals_take_the_same_time() -> None:
    def once() -> dict[int, float]:
        asked = [ask(n * 0.7, 5 + n % 7, 3 + n % 5, start=n) for n in range(50)]
        return served(Cluster(pool(), "least-loaded", Ledger()), asked).ends

    first, second = (once() for _ in repeat(None, 2))
    assert first == second
