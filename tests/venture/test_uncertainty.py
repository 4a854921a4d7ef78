"""Tornado and Monte Carlo: known distributions, and the same draws for the same seed."""

from __future__ import annotations

import math
from random import Random

import pytest

from trackrecord.venture.keys import KEYS
from trackrecord.venture.sheet import Assumption
from trackrecord.venture.uncertainty import distribution, draw, monte_carlo, samples, tornado

approx = pytest.approx

PRICE = KEYS["hardware.spot_gpu_hour_usd"]
SHARE = KEYS["hardware.spot_share"]


def drawn(assumption, count=20_000):
    rng = Random(1)
    return sorted(draw(assumption, rng) for _ in range(count))


def test_a_fixed_value_stays():
    assert set(drawn(Assumption(PRICE, 2.0, 2.0, 2.0), 10)) == {2.0}


def test_a_uniform_value_is_anywhere_between():
    values = drawn(Assumption(PRICE, 2.0, 1.0, 3.0, "uniform"))
    assert values[0] >= 1
    assert values[-1] <= 3
    assert sum(values) / len(values) == approx(2, rel=0.01)


def test_a_triangular_value_has_its_mean():
    values = drawn(Assumption(PRICE, 1.0, 1.0, 4.0, "triangular"))
    assert sum(values) / len(values) == approx((1 + 1 + 4) / 3, rel=0.01)


def test_a_lognormal_value_is_the_median_and_its_ends_span_nine_of_ten_draws():
    values = drawn(Assumption(PRICE, 2.0, 1.0, 4.0, "lognormal"))
    assert values[len(values) // 2] == approx(2, rel=0.02)
    assert values[len(values) * 95 // 100] / values[len(values) * 5 // 100] == approx(4, rel=0.05)


def test_no_draw_leaves_the_bounds_of_its_key():
    values = drawn(Assumption(SHARE, 0.9, 0.4, 1.0, "lognormal"))
    assert values[-1] == 1.0


def test_the_same_seed_draws_the_same_and_another_assumption_changes_nothing():
    first = {"a": Assumption(PRICE, 2.0, 1.0, 3.0, "uniform")}
    more = {**first, "b": Assumption(SHARE, 0.5, 0.0, 1.0, "uniform")}
    assert [s["a"] for s in samples(first, 50, 7)] == [s["a"] for s in samples(more, 50, 7)]
    assert samples(first, 50, 7) != samples(first, 50, 8)


def test_a_tornado_is_sorted_and_leaves_out_what_moves_nothing():
    assumptions = {
        "a": Assumption(PRICE, 2.0, 1.0, 3.0, "uniform"),
        "b": Assumption(PRICE, 2.0, 0.0, 9.0, "uniform"),
        "fixed": Assumption(PRICE, 2.0, 2.0, 2.0),
        "idle": Assumption(PRICE, 2.0, 0.0, 9.0, "uniform"),
    }
    bars = tornado(assumptions, lambda values: 10 * values["a"] - values["b"])
    assert [bar.key for bar in bars] == ["a", "b"]
    assert (bars[0].at_low, bars[0].at_high) == (8.0, 28.0)


def test_an_end_without_a_number_swings_the_most():
    assumptions = {"a": Assumption(PRICE, 2.0, 0.0, 3.0, "uniform")}
    [bar] = tornado(assumptions, lambda values: 1 / values["a"] if values["a"] else math.inf)
    assert bar.at_low is None
    assert bar.swing == math.inf


def test_percentiles_and_the_share_above_zero():
    found = distribution([float(n) for n in range(-49, 51)])
    assert (found.p5, found.p50, found.p95) == (-45.0, 0.0, 45.0)
    assert found.positive == 0.5
    assert sum(found.counts) == 99
    assert len(found.edges) == len(found.counts) + 1


@pytest.mark.parametrize("figures", [[3.0] * 20, [math.inf] * 20, [-math.inf, 1.0]])
def test_degenerate_figures_are_still_a_distribution(figures):
    found = distribution(figures)
    assert len(found.counts) == 30
    assert all(math.isfinite(edge) for edge in found.edges)


def test_a_normal_sum_has_the_spread_it_should():
    assumptions = {str(n): Assumption(PRICE, 0.5, 0.0, 1.0, "uniform") for n in range(12)}
    sets = samples(assumptions, 5000, 3)
    found = monte_carlo(sets, lambda values: {"sum": sum(values.values()) - 6})["sum"]
    assert found.p95 == approx(1.645, abs=0.1)
    assert found.positive == approx(0.5, abs=0.03)
