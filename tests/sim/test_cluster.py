"""Routers, prefill apart from decode, sessions: who serves what, when, and that nobody is lost."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import replace
from itertools import pairwise

import pytest
from by_hand import Ledger, Line, ask, pool, served
from hypothesis import given, settings
from hypothesis import strategies as st

from mini_vllm.errors import InvalidInputError
from mini_vllm.sim.cluster import ROUTERS, Cluster
from mini_vllm.sim.outcome import Slo
from mini_vllm.sim.traffic import Arrival, Lengths, Tenant, arrivals


def prompts_of(cluster: Cluster) -> list[int]:
    """Prompt tokens that each engine computed."""
    return [engine.load.prompt_tokens for engine in cluster.engines]


# --- routers


def test_round_robin_takes_turns() -> None:
    cluster = Cluster(pool(3), "round-robin", Ledger())
    served(cluster, [ask(float(n), 2**n, 1, start=n) for n in range(6)])
    assert prompts_of(cluster) == [1 + 8, 2 + 16, 4 + 32]


def test_least_loaded_goes_where_fewest_wait_or_run() -> None:
    cluster = Cluster(pool(3), "least-loaded", Ledger())
    served(cluster, [ask(0.0, 1, 100), ask(0.1, 2, 100), ask(0.2, 4, 1), ask(5.0, 8, 1)])
    assert prompts_of(cluster) == [1, 2, 4 + 8]


def test_prefix_affine_keeps_a_key_together() -> None:
    cluster = Cluster(pool(4), "prefix-affine", Ledger())
    served(cluster, [ask(10.0 * n, 10, 1, key=5, start=n) for n in range(20)])
    assert sorted(prompts_of(cluster)) == [0, 0, 0, 200]


def test_prefix_affine_spreads_keys_over_all_engines() -> None:
    cluster = Cluster(pool(4), "prefix-affine", Ledger())
    served(cluster, [ask(10.0 * n, 10, 1, key=n, start=n) for n in range(100)])
    assert min(prompts_of(cluster)) > 100


def test_prefix_affine_leaves_a_favourite_that_is_crowded_and_comes_back() -> None:
    cluster = Cluster(pool(2), "prefix-affine", Ledger())
    crowd = [ask(0.0, 1, 50, key=5, start=n) for n in range(30)]
    served(cluster, [*crowd, *(ask(1000.0 + 10 * n, 100, 1, key=5) for n in range(5))])
    counts = prompts_of(cluster)
    assert sum(counts) == 530
    assert 0 < min(counts) < 30  # some of the crowd went elsewhere, and none of those after it


def test_sessions_find_their_cache_through_an_affine_router() -> None:
    def hits(router: str) -> int:
        tenant = Tenant(
            rate=0.2,
            turns=4,
            think_seconds=5,
            prompt=Lengths("fixed", 200),
            output=Lengths("fixed", 20),
        )
        cluster = Cluster(pool(4, enable_prefix_caching=True), router, Ledger())
        cluster.run(arrivals((tenant,), 1), 100)
        managers = [engine.core.scheduler.kv_cache_manager for engine in cluster.engines]
        return sum(manager.prefix_cache_hits for manager in managers)

    assert hits("prefix-affine") > 2 * hits("round-robin")


def test_every_request_of_a_prefix_but_the_first_finds_it_in_the_cache() -> None:
    tenant = Tenant(
        rate=0.01,
        arrivals="constant",
        prefixes=1,
        prefix_tokens=320,
        prompt=Lengths("fixed", 20),
        output=Lengths("fixed", 1),
    )
    cluster = Cluster(pool(enable_prefix_caching=True), "least-loaded", Ledger())
    cluster.run(arrivals((tenant,), 0), 50)
    manager = cluster.engines[0].core.scheduler.kv_cache_manager
    assert manager.prefix_cache_hits == 49 * 320
    assert prompts_of(cluster) == [340 + 49 * 20]


def test_an_unknown_router_is_refused() -> None:
    with pytest.raises(InvalidInputError, match="router must be one of"):
        Cluster(pool(), "random", Ledger())


# --- prefill apart from decode


def apart(
    cost: Line, *, transfer: float = 5.0, prefillers: int = 1, engines: int = 1
) -> tuple[Cluster, Ledger]:
    ledger = Ledger()
    decoding, prefill = pool(engines, cost, free=True), pool(prefillers, cost)
    return Cluster(decoding, "round-robin", ledger, prefill, lambda tokens: transfer), ledger


def test_the_first_token_comes_when_the_prompt_is_computed() -> None:
    cluster, ledger = apart(Line(1.0, 0.1))
    served(cluster, [ask(2.0, 4, 3)])
    assert ledger.ttft.mean == pytest.approx(1.4)


def test_the_second_token_waits_for_keys_and_values_to_travel() -> None:
    cluster, ledger = apart(Line(1.0, 0.0))
    served(cluster, [ask(0.0, 4, 4)])
    # prefill to 1; on its way to 6; tokens at 7, 8 and 9
    assert ledger.ends == pytest.approx({0: 9.0})
    assert ledger.itl.largest == pytest.approx(6.0)
    assert (ledger.itl.total, ledger.itl.sum) == (3, pytest.approx(8.0))
    assert ledger.tpot.mean == pytest.approx(8 / 3)


def test_the_way_is_as_long_as_the_prompt_says() -> None:
    ledger = Ledger()
    cost = Line(1.0, 0.0)
    cluster = Cluster(
        pool(1, cost, free=True), "round-robin", ledger, pool(1, cost), lambda tokens: tokens * 1.0
    )
    served(cluster, [ask(0.0, 100, 2)])
    assert ledger.ends[0] == pytest.approx(1 + 100 + 1, abs=1)


def test_an_answer_of_one_token_never_travels() -> None:
    cluster, ledger = apart(Line())
    served(cluster, [ask(0.0, 4, 1)])
    assert ledger.ends == pytest.approx({0: 1.4})
    assert cluster.engines[0].load.steps == 0


def test_keys_that_arrive_during_a_step_join_the_next() -> None:
    cluster, ledger = apart(Line(1.0, 0.0), transfer=0.5)
    served(cluster, [ask(0.0, 1, 20), ask(2.2, 2, 2, start=1)])
    # The first decodes from 1.5 on. The second is prefilled by 3.2, there at 3.7, in at 4.5.
    ends = {life.prompt_tokens: end for life, end in ledger.lives}
    assert ends == pytest.approx({1: 20.5, 2: 5.5})


def test_prompts_do_not_hold_up_those_who_decode() -> None:
    cluster, ledger = apart(Line(1.0, 1.0), transfer=0.0)
    served(cluster, [ask(0.0, 1, 20), ask(5.0, 500, 2, start=1)])
    ends = {life.prompt_tokens: end for life, end in ledger.lives}
    assert ends[1] < 50
    assert ends[500] > 500


def test_both_kinds_of_engine_are_routed_to() -> None:
    cluster, _ = apart(Line(), prefillers=2, engines=3)
    served(cluster, [ask(20.0 * n, 10, 2, start=n) for n in range(6)])
    assert [engine.load.prompt_tokens for engine in cluster.prefillers] == [30, 30]
    assert [engine.load.output_tokens for engine in cluster.engines] == [2, 2, 2]


# --- the door


def test_a_request_beyond_the_context_is_refused_and_the_others_served() -> None:
    cluster = Cluster(pool(max_model_len=64), "least-loaded", Ledger())
    ledger = served(cluster, [ask(0.0, 60, 5), ask(1.0, 60, 4, start=1), ask(2.0, 64, 1, start=2)])
    assert (ledger.refused, ledger.finished) == (2, 1)
    assert list(ledger.ends) == [1]


def test_a_request_that_could_outgrow_the_cache_is_refused() -> None:
    cluster = Cluster(pool(num_blocks=5), "least-loaded", Ledger())
    ledger = served(cluster, [ask(0.0, 30, 35), ask(0.0, 30, 34, start=1)])
    assert (ledger.refused, ledger.finished) == (1, 1)


def test_a_request_for_more_tokens_than_can_be_asked_for_is_refused() -> None:
    ledger = served(Cluster(pool(), "least-loaded", Ledger()), [ask(0, 4, 2**31), ask(1.0, 4, 1)])
    assert (ledger.refused, ledger.finished) == (1, 1)


def test_an_objective_is_not_met_where_requests_are_refused() -> None:
    ledger = Ledger(Slo(ttft=1000.0))
    served(Cluster(pool(max_model_len=64), "least-loaded", ledger), [ask(0, 4, 1), ask(0, 70, 1)])
    assert ledger.attained == 1.0
    assert not ledger.meets_slo


def test_an_objective_counts_who_kept_it_and_which_term_was_broken() -> None:
    ledger = Ledger(Slo(ttft=2.0, e2e=3.0, attainment=0.5))
    asked = [ask(0.0, 1, 1), ask(100.0, 20, 1, tenant="b"), ask(200.0, 1, 5)]
    served(Cluster(pool(), "least-loaded", ledger), asked)
    # 1.1 s; a first token after 3 s; five tokens in 5.5 s
    assert (ledger.kept, ledger.kept_output_tokens) == (1, 1)
    assert ledger.broken == {"ttft": 1, "e2e": 1}
    assert ledger.tenants == {"all": [2, 1], "b": [1, 0]}


# --- sessions


def session(turns: int, time: float = 0.0, start: int = 0) -> Arrival:
    """Turns that follow 3 s after each answer, of ten new tokens."""

    def following(tokens: list[int], end: float) -> Arrival:
        made = session(turns - 1, end + 3.0, start)
        return replace(made, prompt_token_ids=[*tokens, *range(10)])

    first = ask(time, 10, 2, start=start)
    return replace(first, following=following if turns > 1 else None)


def test_every_turn_is_a_request() -> None:
    ledger = Ledger()
    cluster = Cluster(pool(), "least-loaded", ledger)
    cluster.run(iter([session(3), session(3, start=1)]), 100)
    assert ledger.finished == 6


def test_as_many_requests_are_served_as_were_asked_for() -> None:
    ledger = Ledger()
    cluster = Cluster(pool(2), "round-robin", ledger)
    cluster.run((session(4, n * 1.0, n) for n in range(1000)), 50)
    assert ledger.finished == 50


def test_a_turn_holds_the_whole_conversation() -> None:
    ledger = Ledger()
    Cluster(pool(), "least-loaded", ledger).run(iter([session(3)]), 10)
    assert [life.prompt_tokens for life, _ in ledger.lives] == [10, 22, 34]


def test_a_turn_comes_after_the_answer() -> None:
    ledger = Ledger()
    Cluster(pool(), "least-loaded", ledger).run(iter([session(3)]), 10)
    for (_, end), (life, _) in pairwise(ledger.lives):
        assert life.arrival == pytest.approx(end + 3)


def test_a_conversation_goes_on_where_prompts_are_computed_apart() -> None:
    cluster, ledger = apart(Line())
    cluster.run(iter([session(3)]), 10)
    assert [life.prompt_tokens for life, _ in ledger.lives] == [10, 22, 34]


# --- nobody is lost

TIMES = st.floats(0, 30, allow_subnormal=False)


@st.composite
def asked(draw: st.DrawFn) -> list[Arrival]:
    entries = draw(
        st.lists(
            st.tuples(TIMES, st.integers(1, 40), st.integers(1, 30), st.integers(0, 3)),
            min_size=1,
            max_size=25,
        )
    )
    return [
        ask(time, prompt, output, key=key, start=number)
        for number, (time, prompt, output, key) in enumerate(sorted(entries))
    ]


@settings(deadline=None, derandomize="CI" in os.environ, max_examples=150)
@given(asked(), st.sampled_from(ROUTERS), st.integers(1, 3), st.integers(0, 2), st.booleans())
def test_every_request_is_finished_once_or_refused(
    given_arrivals: list[Arrival], router: str, engines: int, prefillers: int, caching: bool
) -> None:
    config = {"num_blocks": 15, "block_size": 4, "max_model_len": 60, "max_num_seqs": 4}
    config |= {"max_num_batched_tokens": 24, "enable_prefix_caching": caching}
    ledger = Ledger()
    cluster = Cluster(
        pool(engines, free=prefillers > 0, **config),
        router,
        ledger,
        pool(prefillers, **config) if prefillers else None,
        lambda tokens: tokens / 10,
    )
    served(cluster, given_arrivals)

    assert ledger.finished == len(ledger.ends)  # none twice
    assert ledger.finished + ledger.refused == len(given_arrivals)
    fitting = {
        n
        for n, arrival in enumerate(given_arrivals)
        if len(arrival.prompt_token_ids) + arrival.output_tokens <= 56
    }
    assert ledger.finished == len(fitting)
    assert ledger.output_tokens == sum(given_arrivals[n].output_tokens for n in fitting)
    assert ledger.output_tokens == sum(load.output_tokens for load in cluster.loads)
    for engine in [*cluster.engines, *cluster.prefillers]:
        assert engine.outstanding == 0
        assert engine.core.scheduler.kv_cache_manager.usage == 0
    for life, end in ledger.lives:
        assert life.first_token is not None
        assert life.arrival < life.first_token <= end
    lived = sum(end - (life.first_token or 0) for life, end in ledger.lives)
    assert ledger.itl.sum == pytest.approx(lived)
    assert ledger.moments == sorted(ledger.moments)


# --- the order of events


def test_arrivals_are_taken_one_by_one_as_time_comes_to_them() -> None:
    """A stream without end is read no further than it has to be."""
    taken = 0

    def endless() -> Iterator[Arrival]:
        nonlocal taken
        while True:
            taken += 1
            yield ask(taken * 1.0, 4, 2, start=taken)

    Cluster(pool(), "least-loaded", Ledger()).run(endless(), 10)
    assert taken <= 11


def test_an_engine_does_not_run_ahead_of_what_will_reach_it() -> None:
    """Both arrive before the engine is free: they share its second step."""
    cluster = Cluster(pool(), "least-loaded", Ledger())
    ledger = served(cluster, [ask(0.0, 1, 1), ask(0.5, 1, 1, start=1), ask(1.0, 1, 1, start=2)])
    assert ledger.ends == pytest.approx({0: 1.1, 1: 2.3, 2: 2.3})


def test_engines_run_beside_each_other() -> None:
    cluster = Cluster(pool(2), "round-robin", Ledger())
    ledger = served(cluster, [ask(0.0, 1, 10), ask(0.0, 1, 10, start=1)])
    assert ledger.ends == pytest.approx({0: 11.0, 1: 11.0})


def test_the_timeline_stays_short_and_covers_the_run() -> None:
    ledger = served(
        Cluster(pool(), "least-loaded", Ledger()),
        [ask(n * 3.0, 4, 5, start=n) for n in range(400)],
    )
    timeline = ledger.timeline
    assert 60 <= len(timeline) < 240
    assert [m.time for m in timeline] == sorted(m.time for m in timeline)
    assert timeline[-1].time > 0.9 * ledger.end
    assert all(0 <= moment.kv_usage <= 1 for moment in timeline)
