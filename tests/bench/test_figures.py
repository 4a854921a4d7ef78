from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mini_vllm.bench.figures import digits, percent, percentiles, quantity, summarise

SAMPLES = st.lists(st.floats(min_value=0, max_value=1e6), min_size=1, max_size=200)


@settings(deadline=None)
@given(SAMPLES)
def test_percentiles_are_numpys(samples):
    found = percentiles(samples, "s")
    expected = np.percentile(samples, [50, 90, 99])
    assert [found.p50, found.p90, found.p99] == pytest.approx(list(expected))
    assert found.n == len(samples)


@settings(deadline=None)
@given(SAMPLES)
def test_summaries_are_numpys(samples):
    found = summarise(samples, "s")
    assert found.median == pytest.approx(float(np.median(samples)))
    assert (found.min, found.max, found.n) == (min(samples), max(samples), len(samples))
    assert found.samples == samples


def test_nothing_measured_has_no_percentiles_and_no_summary():
    found = percentiles([], "s")
    assert (found.p50, found.p90, found.p99, found.n) == (None, None, None, 0)
    with pytest.raises(ValueError, match="at least one sample"):
        summarise([], "s")


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        (0, "0"),
        (0.01234, "0.0123"),
        (1, "1.00"),
        (9.996, "10.0"),
        (99.96, "100"),
        (1234.5, "1,234"),
    ],
)
def test_numbers_are_shown_to_three_digits(value, shown):
    assert digits(value) == shown


@pytest.mark.parametrize(
    ("value", "unit", "shown"),
    [
        (0.0123, "s", "12.3 ms"),
        (0.99999, "s", "1.00 s"),
        (0, "s", "0 µs"),
        (3.5e-5, "s", "35.0 µs"),
        (2**30, "bytes", "1.00 GiB"),
        (21.5e9, "bytes/s", "21.5 GB/s"),
        (1.4e11, "FLOP/s", "140 GFLOP/s"),
        (12, "requests/s", "12.0 requests/s"),
    ],
)
def test_quantities_take_the_unit_that_reads_best(value, unit, shown):
    assert quantity(value, unit) == shown


def test_percentages():
    assert [percent(share) for share in (0, 0.004, 0.054, 0.1, 0.925)] == [
        *("0%", "0.4%", "5.4%", "10%", "92%"),
    ]
