from __future__ import annotations

import math
from itertools import pairwise
from statistics import mean, stdev

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mini_vllm.bench.traffic import TRAFFICS, Costs, choose_traffic, poisson_arrivals


@settings(deadline=None)
@given(
    st.floats(min_value=0.1, max_value=50), st.floats(min_value=0.1, max_value=50), st.integers()
)
def test_arrivals_are_ordered_inside_the_window_and_repeat_with_the_seed(rate, window, seed):
    times = poisson_arrivals(rate, window, seed)
    assert times == sorted(times)
    assert all(0 <= time < window for time in times)
    assert times == poisson_arrivals(rate, window, seed)


def test_gaps_are_exponential():
    # Exponential gaps have a standard deviation equal to their mean, and a median of mean x ln 2.
    times = poisson_arrivals(rate=5.0, window=4000.0)
    gaps = sorted(later - earlier for earlier, later in pairwise(times))
    assert mean(gaps) == pytest.approx(0.2, rel=0.03)
    assert stdev(gaps) == pytest.approx(0.2, rel=0.05)
    assert gaps[len(gaps) // 2] == pytest.approx(0.2 * math.log(2), rel=0.05)


def test_counts_in_disjoint_windows_are_as_spread_as_poissons():
    times = poisson_arrivals(rate=3.0, window=3000.0)
    counts = [0] * 1000
    for time in times:
        counts[int(time // 3)] += 1
    assert mean(counts) == pytest.approx(9, rel=0.05)
    assert stdev(counts) ** 2 == pytest.approx(9, rel=0.15)


def test_a_higher_rate_is_the_same_draws_faster():
    slow, fast = poisson_arrivals(1.0, 20.0, 5), poisson_arrivals(4.0, 5.0, 5)
    assert fast == pytest.approx([time / 4 for time in slow])


@pytest.mark.parametrize("traffic", TRAFFICS, ids=lambda traffic: traffic.name)
def test_requests_keep_their_bounds_and_share_prefixes(traffic):
    requests = traffic.requests(100, vocab_size=49_152)
    own = [len(r.prompt_token_ids) - traffic.shared_tokens for r in requests]
    assert traffic.own_tokens[0] <= min(own) < max(own) <= traffic.own_tokens[1]
    outputs = [r.output_tokens for r in requests]
    assert traffic.output_tokens[0] <= min(outputs) < max(outputs) <= traffic.output_tokens[1]
    prefixes = {tuple(r.prompt_token_ids[: traffic.shared_tokens]) for r in requests}
    assert len(prefixes) == traffic.num_prefixes
    assert traffic.requests(10, 49_152) == requests[:10]


def test_a_slower_machine_gets_shorter_requests():
    names = [
        choose_traffic(Costs(cost, 10 * cost, 0.0), 12.0, 5.0, lowest_share=0.3).name
        for cost in (0.00001, 0.0004, 0.1)
    ]
    assert names == ["chat", "short", "tiny"]


def test_requests_must_have_time_to_end():
    names = [
        choose_traffic(Costs(0.0, 0.0, step), 12.0, 5.0, lowest_share=0.3).name
        for step in (0.02, 0.05, 1.0)
    ]
    assert names == ["chat", "short", "tiny"]
