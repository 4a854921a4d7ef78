"""Build, buy or upstream: sums by hand, and what flips them."""

from __future__ import annotations

import dataclasses

import pytest

from trackrecord.venture import options
from trackrecord.venture.economics import Economics
from trackrecord.venture.keys import KEYS
from trackrecord.venture.sheet import Assumption

approx = pytest.approx


@pytest.fixture
def economics(round_economics):
    """Buying for 20,000 USD a month; upstream serves from month 2 and gains from month 4."""
    return dataclasses.replace(
        round_economics,
        values={
            **round_economics.values,
            "demand.million_output_tokens_per_month": 1000.0,
            "options.buy.price_per_million_output_usd": 12.0,
            "options.buy.price_per_million_input_usd": 4.0,
            "options.buy.exit_cost_usd": 500.0,
            "options.upstream.engineers_count": 3.0,
            "options.upstream.maintenance_engineers_count": 1.0,
            "options.upstream.months_to_serve": 2.0,
            "options.upstream.months_to_gain": 4.0,
            "options.upstream.goodput_gain_share": 0.25,
            "options.upstream.exit_cost_usd": 1000.0,
            "options.upstream.committed_months": 1.0,
            "options.build.engineers_count": 9.0,
            "options.build.months_to_serve": 12.0,
        },
    )


def change(e: Economics, **changes: float) -> Economics:
    renamed = {key.replace("__", "."): value for key, value in changes.items()}
    assert set(renamed) <= set(KEYS)
    return dataclasses.replace(e, values={**e.values, **renamed})


def of(e: Economics, name: str) -> options.Option:
    return next(option for option in options.options(e) if option.name == name)


def test_total_costs_by_hand(economics):
    buy, upstream = of(economics, "buy"), of(economics, "upstream")
    assert buy.cost.total == buy.cost.bought == approx(12 * 20_000)
    plain, faster = economics.serving_month(1000), economics.serving_month(1000, 0.25)
    assert upstream.cost.engineers == approx((3 * 4 + 1 * 8) * 10_000)
    assert upstream.cost.bought == approx(2 * 20_000)
    assert upstream.cost.own == approx(2 * plain + 8 * faster)
    assert of(economics, "build").cost.total == approx(12 * 9 * 10_000 + 12 * 20_000)


def test_a_month_may_be_shared_between_bought_and_own(economics):
    half = of(change(economics, options__upstream__months_to_serve=2.5), "upstream")
    assert half.cost.bought == approx(2.5 * 20_000)


def test_later_money_counts_less_and_bought_tokens_get_cheaper(economics):
    found = of(
        change(
            economics,
            options__discount_per_year_share=0.1,
            options__buy__price_decline_per_year_share=0.2,
            options__traffic_growth_per_month_share=0.01,
        ),
        "buy",
    )
    months = [20_000 * (0.8 / 1.1) ** (m / 12) * 1.01**m for m in range(12)]
    assert found.cost.total == approx(sum(months))


def test_the_right_to_stop_is_worth_what_it_saves_where_demand_fails(economics):
    e = change(economics, options__failure_share=0.4, options__failure_traffic_share=0.5)
    upstream = of(e, "upstream")
    stopped = 6 * (10_000 + e.serving_month(500, 0.25))
    lock_in = 1000 + 10_000 + e.serving_month(1000, 0.25)
    assert upstream.stopped == approx(stopped)
    assert upstream.lock_in == approx(lock_in)
    assert upstream.option_value == approx(0.4 * (stopped - lock_in))
    after = 6 * (10_000 + e.serving_month(1000, 0.25))
    before = upstream.cost.total - after
    assert upstream.expected == approx(before + 0.6 * after + 0.4 * lock_in)


def test_the_right_to_stop_is_never_worth_less_than_nothing(economics):
    e = change(economics, options__failure_share=0.4, options__upstream__exit_cost_usd=1e9)
    assert of(e, "upstream").option_value == 0


def test_every_figure_of_an_option_has_a_derivation(economics):
    found = options.figures(economics)
    assert set(found) == set(options.FIGURES)
    assert all(quantity.derivation for quantity in found.values())
    measured = options.measure(economics)
    assert {name: q.value for name, q in found.items()} == measured


def test_a_flip_is_found_to_the_point(economics):
    chosen = options.best(economics)
    assert chosen == "buy"
    assumptions = {
        name: Assumption(KEYS[name], value, value, value)
        for name, value in economics.values.items()
    }
    found = options.flips(
        assumptions,
        lambda values: options.best(dataclasses.replace(economics, values=values)),
    )
    [flip] = [f for f in found if f.key == "options.buy.price_per_million_output_usd"]
    assert not flip.within
    for factor, best in ((1 - 1e-9, "buy"), (1 + 1e-9, flip.to)):
        at = {**economics.values, flip.key: flip.at * factor}
        assert options.best(dataclasses.replace(economics, values=at)) == best
    upstream = of(economics, "upstream")
    others = upstream.cost.engineers + upstream.cost.own
    # 12 months of buying against 2 and the rest: at the flip both cost the same.
    assert 10 * 1000 * (flip.at + 2 * 4) == approx(others)


def test_a_flip_within_the_range_comes_first():
    key = KEYS["options.buy.price_per_million_output_usd"]
    far = KEYS["options.buy.price_per_million_input_usd"]
    assumptions = {
        far.name: Assumption(far, 1.0, 1.0, 1.0),
        key.name: Assumption(key, 1.0, 0.5, 5.0, "uniform"),
    }

    def choose(values):
        return "buy" if values[key.name] < 4 and values[far.name] < 1.5 else "upstream"

    first, second = options.flips(assumptions, choose)
    assert (first.key, first.within, first.to) == (key.name, True, "upstream")
    assert first.at == approx(4)
    assert (second.key, second.within) == (far.name, False)
    assert second.at == approx(1.5)


def test_what_flips_nothing_is_not_listed():
    key = KEYS["hardware.spot_share"]
    assumptions = {key.name: Assumption(key, 0.5, 0.0, 1.0, "uniform")}
    assert options.flips(assumptions, lambda values: "buy") == []
