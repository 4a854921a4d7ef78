"""Percentiles in constant memory, against the sorted values themselves."""

from __future__ import annotations

import os
from math import ceil

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mini_vllm.sim.histogram import Histogram

SECONDS = st.floats(2e-6, 1e6)
SHARES = st.floats(0.001, 1.0)
SETTINGS = settings(deadline=None, derandomize="CI" in os.environ)


def filled(values: list[float]) -> Histogram:
    histogram = Histogram()
    for value in values:
        histogram.add(value)
    return histogram


@SETTINGS
@given(st.lists(SECONDS, min_size=1, max_size=60), SHARES)
def test_a_quantile_is_within_one_percent_of_the_exact_one(
    values: list[float], share: float
) -> None:
    exact = sorted(values)[ceil(share * len(values)) - 1]
    assert filled(values).quantile(share) == pytest.approx(exact, rel=0.01)


@SETTINGS
@given(st.lists(SECONDS, min_size=1, max_size=60))
def test_mean_total_and_largest_are_exact(values: list[float]) -> None:
    histogram = filled(values)
    assert histogram.mean == pytest.approx(sum(values) / len(values))
    assert histogram.total == len(values)
    assert histogram.largest == max(values)


@SETTINGS
@given(st.lists(SECONDS, max_size=40), st.lists(SECONDS, max_size=40), SHARES)
def test_merging_is_the_same_as_having_seen_both(
    ours: list[float], theirs: list[float], share: float
) -> None:
    merged, both = filled(ours), filled([*ours, *theirs])
    merged.merge(filled(theirs))
    assert merged.quantile(share) == both.quantile(share)
    assert (merged.total, merged.largest) == (both.total, both.largest)
    assert merged.mean == pytest.approx(both.mean)


@SETTINGS
@given(st.lists(st.tuples(SECONDS, st.integers(1, 5)), min_size=1, max_size=20), SHARES)
def test_a_weight_counts_a_value_that_often(
    weighted: list[tuple[float, int]], share: float
) -> None:
    histogram = Histogram()
    for value, weight in weighted:
        histogram.add(value, weight)
    repeated = filled([value for value, weight in weighted for _ in range(weight)])
    assert histogram.quantile(share) == repeated.quantile(share)
    assert histogram.mean == pytest.approx(repeated.mean)


@SETTINGS
@given(st.lists(SECONDS, min_size=1, max_size=60), SHARES, SHARES)
def test_quantiles_do_not_cross(values: list[float], one: float, other: float) -> None:
    low, high = sorted((one, other))
    histogram = filled(values)
    lower, upper = histogram.quantile(low), histogram.quantile(high)
    assert lower is not None
    assert upper is not None
    assert lower <= upper <= histogram.largest


def test_nothing_has_no_quantile() -> None:
    assert Histogram().quantile(0.5) is None
    assert Histogram().mean == 0.0


def test_zero_is_a_value() -> None:
    histogram = filled([0.0, 0.0, 0.0, 1.0])
    assert histogram.quantile(0.5) == 0.0
    assert histogram.quantile(1.0) == pytest.approx(1.0, rel=0.01)
