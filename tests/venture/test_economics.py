"""Unit economics, against arithmetic done by hand, and against real simulations."""

from __future__ import annotations

import dataclasses
import math
from dataclasses import replace

import pytest

from mini_vllm.sim.scenario import load_scenario
from mini_vllm.sim.simulate import simulate
from trackrecord.venture.economics import FIGURES, Economics, figures, measure
from trackrecord.venture.serving import lasting, serve, under
from trackrecord.venture.sheet import Serving, SheetError

approx = pytest.approx


def with_values(e: Economics, **changes: float) -> Economics:
    renamed = {key.replace("__", "."): value for key, value in changes.items()}
    assert set(renamed) <= set(e.values)
    return dataclasses.replace(e, values={**e.values, **renamed})


def test_the_price_of_a_working_gpu_hour_counts_what_interruptions_lose(round_economics):
    assert round_economics.spot_lost == approx(6 * 48 / 1440)
    assert round_economics.gpu_hour == approx(0.5 * 2 + 0.25 * 4 + 0.25 * 1 / 0.8)


def test_a_fleet_is_what_the_traffic_takes_with_the_margin_of_safety(round_economics):
    assert round_economics.full_month == approx(2628)
    assert round_economics.planned_utilisation == approx(0.5)
    assert round_economics.deployments == approx(2)
    assert round_economics.utilisation == approx(0.5)


def test_one_deployment_is_the_least_and_then_idles(round_economics):
    small = with_values(round_economics, demand__million_output_tokens_per_month=262.8)
    assert small.deployments == 1
    assert small.utilisation == approx(0.1)


def test_costs_and_margins_by_hand(round_economics):
    hardware = 2 * 8 * 730 * 2.3125
    egress = 2628 * 1e6 * 1000 / 1e9 * 0.1
    revenue = 2628 * (12 + 2 * 4)
    found = measure(round_economics)
    assert found["hardware_month"] == approx(hardware)
    assert found["serving_month"] == approx(hardware + 1000 + egress)
    assert found["cost_per_million_input"] == approx((hardware + 1000) * 0.25 / 5256)
    assert found["cost_per_million_output"] == approx((hardware + 1000) * 0.75 / 2628 + 0.1)
    assert found["full_cost_per_million_output"] == approx(8 * 730 * 2.3125 * 0.75 / 2628)
    assert found["revenue_month"] == approx(revenue)
    assert found["gross_margin"] == approx(1 - (hardware + 1000 + egress) / revenue)
    assert found["operating_margin"] == approx(1 - (hardware + 1000 + egress + 20_000) / revenue)


def test_input_and_output_together_cost_what_serving_costs(round_economics):
    e = round_economics
    parts = e.cost_per_million_input * e.input_traffic + e.cost_per_million_output * e.traffic
    assert parts == approx(e.serving_month(e.traffic))


def test_at_the_break_even_traffic_nothing_is_left(round_economics):
    for price in (12.0, 3.0):
        e = with_values(round_economics, price__price_per_million_output_usd=price)
        at = e.break_even_traffic
        again = with_values(e, demand__million_output_tokens_per_month=at)
        assert again.operating_margin == approx(0, abs=1e-9)


def test_at_the_break_even_utilisation_the_fleet_earns_what_it_costs(round_economics):
    e = round_economics
    sold = e.break_even_utilisation * e.deployments * e.full_month
    earned = sold * (e.revenue_per_million - e.egress_per_million)
    assert earned == approx(e.hardware_month + e.storage_month + e.engineers_month)


def test_a_price_below_the_cost_has_no_break_even(round_economics):
    e = with_values(
        round_economics,
        price__price_per_million_output_usd=0.01,
        price__price_per_million_input_usd=0.0,
    )
    assert math.isinf(e.break_even_traffic)
    assert math.isinf(e.break_even_utilisation)
    assert all(figures(e)[name].derivation for name in FIGURES)


def test_nothing_earned_is_no_margin_at_all(round_economics):
    e = with_values(
        round_economics,
        price__price_per_million_output_usd=0.0,
        price__price_per_million_input_usd=0.0,
    )
    assert e.gross_margin == -math.inf


def test_no_hour_is_fuller_than_the_goodput(round_economics):
    e = with_values(round_economics, demand__utilisation_factor=3.0)
    assert max(e.hours_used) == approx(0.5)


def test_every_derivation_ends_in_its_figure(round_economics):
    for name in ("cost_per_million_input", "revenue_month", "hardware_month", "gpu_hour"):
        quantity = figures(round_economics)[name]
        last = quantity.derivation[-1].rpartition("= ")[2].split(" ")[0].replace(",", "")
        assert float(last) == approx(quantity.value, rel=1e-3)


# The simulation behind it.


def test_goodput_is_the_simulations_own(folder):
    served = serve(Serving(folder / "scenario.toml"))
    result = simulate(load_scenario(folder / "scenario.toml"))
    assert result.attained == 1
    assert served.output_rate == approx(result.output_rate)
    assert served.input_rate == approx(result.total_rate - result.output_rate)
    assert served.input_per_output == approx(8)
    assert served.rate == result.rate


def test_requests_that_break_the_objective_are_not_sold(folder):
    path = folder / "scenario.toml"
    path.write_text(path.read_text().replace("rate = 4,", "rate = 400,"))
    served = serve(Serving(path))
    result = simulate(load_scenario(path))
    assert 0 < result.attained < 1
    assert served.output_rate == approx(result.output_rate * result.attained)
    assert not served.meets_slo


def test_prompts_take_the_share_that_the_cost_model_gives_them(folder):
    path = folder / "scenario.toml"
    shares = []
    for prompt in (100, 400, 1600):
        text = path.read_text().replace("prompt = 400", f"prompt = {prompt}")
        (folder / "other.toml").write_text(text)
        shares.append(serve(Serving(folder / "other.toml")).input_share)
    assert 0 < shares[0] < shares[1] < shares[2] < 1


def test_with_prefill_apart_the_devices_are_the_shares(folder):
    path = folder / "scenario.toml"
    path.write_text(
        path.read_text().replace('gpu = "h100"', 'gpu = "h100", replicas = 3')
        + "[disaggregation]\nprefill_replicas = 1\n"
    )
    assert serve(Serving(path)).input_share == 0.25


def test_a_search_ends_between_traffic_that_is_kept_and_traffic_that_is_not(folder):
    path = folder / "scenario.toml"
    served = serve(Serving(path, capacity="search"))
    assert served.meets_slo
    assert served.load > 1
    beyond = lasting(under(load_scenario(path), served.load * 1.1))
    assert not beyond.meets_slo


def test_a_burst_too_short_to_queue_is_not_taken_for_capacity(folder):
    hasty = replace(under(load_scenario(folder / "scenario.toml"), 8), requests=10)
    assert simulate(hasty).meets_slo
    assert not lasting(hasty).meets_slo


def test_traffic_without_a_rate_cannot_be_searched(folder):
    (folder / "t.csv").write_text("TIMESTAMP,ContextTokens,GeneratedTokens\n0,10,10\n")
    path = folder / "scenario.toml"
    path.write_text(path.read_text().replace("rate = 4, ", 'trace = "t.csv", '))
    with pytest.raises(SheetError, match="not a trace"):
        serve(Serving(path, capacity="search"))


def test_an_objective_that_no_traffic_keeps_is_refused(folder):
    path = folder / "scenario.toml"
    path.write_text(path.read_text().replace("tpot_ms = 30", "tpot_ms = 0.001"))
    with pytest.raises(SheetError, match="keeps its objective under no traffic; broken: tpot"):
        serve(Serving(path, capacity="search"))
    with pytest.raises(SheetError, match="no request keeps the objective"):
        serve(Serving(path))


def test_a_search_needs_an_objective(folder):
    path = folder / "scenario.toml"
    lines = [line for line in path.read_text().splitlines() if not line.startswith("slo")]
    path.write_text("\n".join(lines))
    with pytest.raises(SheetError, match=r"serving\.capacity: a search needs an objective"):
        serve(Serving(path, capacity="search"))
    assert serve(Serving(path)).meets_slo


def test_a_scenario_in_another_currency_is_mixed_units(folder):
    path = folder / "scenario.toml"
    path.write_text(path.read_text() + 'price = { gpu_hour = 2, currency = "EUR" }\n')
    with pytest.raises(SheetError, match=r"'EUR'.*mixed units"):
        serve(Serving(path))
