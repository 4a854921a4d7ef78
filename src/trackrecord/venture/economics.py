"""Unit economics: what a token costs, what it earns, and when the business breaks even.

All figures are of one month of 730 hours. A fleet is as many deployments as the traffic takes at
the day's mean utilisation, never less than one, and it runs all day: idle hours are paid for.

Invariant: `figures` shows the arithmetic of the properties, with their numbers.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from math import inf

from mini_vllm.sim.quantity import Quantity
from trackrecord.venture.serving import Served
from trackrecord.venture.words import number, percent

HOURS = 730.0
"""Of a month."""
MILLION = 1e6


@dataclass(frozen=True)
class Economics:
    """The arithmetic for one set of assumptions, `values` by key.

    Money in USD a month, traffic in millions of output tokens a month; input tokens follow at the
    simulated ratio.
    """

    served: Served
    values: Mapping[str, float]
    curve: Sequence[float]

    # Hardware.

    @cached_property
    def spot_lost(self) -> float:
        """Share of a spot GPU's time that interruptions take."""
        value = self.values
        lost = value["hardware.spot_interruptions_per_day"]
        return min(lost * value["hardware.spot_recovery_minutes"] / 1440, 0.99)

    @cached_property
    def spot_share(self) -> float:
        """What is left of the capacity, where the reserved share leaves less than is assumed."""
        return min(self.values["hardware.spot_share"], 1 - self.values["hardware.reserved_share"])

    @cached_property
    def gpu_hour(self) -> float:
        """An hour of a working GPU, over the mix."""
        value, reserved, spot = self.values, self.values["hardware.reserved_share"], self.spot_share
        return (
            reserved * value["hardware.reserved_gpu_hour_usd"]
            + (1 - reserved - spot) * value["hardware.on_demand_gpu_hour_usd"]
            + spot * value["hardware.spot_gpu_hour_usd"] / (1 - self.spot_lost)
        )

    # Capacity.

    @cached_property
    def goodput(self) -> float:
        """Output tokens/s of a deployment, in production."""
        return self.served.output_rate * self.values["demand.goodput_reached_share"]

    @cached_property
    def hours_used(self) -> list[float]:
        """Share of the goodput that is sold in each hour of the day."""
        factor, held = self.values["demand.utilisation_factor"], self._usable
        return [min(1.0, share * factor) * held for share in self.curve]

    @property
    def _usable(self) -> float:
        return 1 - self.values["overhead.safety_margin_share"]

    @cached_property
    def planned_utilisation(self) -> float:
        """Mean over the day of a fleet of the right size."""
        return sum(self.hours_used) / len(self.hours_used)

    @cached_property
    def full_month(self) -> float:
        """Millions of output tokens a deployment could sell in a month at full load."""
        return self.goodput * 3600 * HOURS / MILLION

    @property
    def traffic(self) -> float:
        return self.values["demand.million_output_tokens_per_month"]

    @property
    def deployments(self) -> float:
        return self.fleet(self.traffic)

    def fleet(self, traffic: float, gain: float = 0.0) -> float:
        """Deployments for the traffic, with engines that are faster by `gain`."""
        return max(1.0, traffic / (self.full_month * (1 + gain) * self.planned_utilisation))

    @property
    def utilisation(self) -> float:
        """Of the fleet that there is; below the planned one where a single deployment idles."""
        return self.traffic / (self.deployments * self.full_month)

    # Cost.

    @cached_property
    def deployment_month(self) -> float:
        return self.served.devices * HOURS * self.gpu_hour

    @property
    def hardware_month(self) -> float:
        return self.deployments * self.deployment_month

    @property
    def storage_month(self) -> float:
        return self.values["overhead.storage_month_usd"]

    @cached_property
    def egress_per_million(self) -> float:
        value = self.values
        sent = value["overhead.egress_bytes_per_output_token"] * MILLION / 1e9
        return sent * value["overhead.egress_gb_usd"]

    @property
    def engineers_month(self) -> float:
        value = self.values
        return value["overhead.engineers_count"] * value["overhead.engineer_year_usd"] / 12

    def serving_month(self, traffic: float, gain: float = 0.0) -> float:
        """Hardware, storage and egress for the traffic; no engineers."""
        hardware = self.fleet(traffic, gain) * self.deployment_month
        return hardware + self.storage_month + traffic * self.egress_per_million

    @property
    def input_traffic(self) -> float:
        """Millions of input tokens a month."""
        return self.traffic * self.served.input_per_output

    @property
    def cost_per_million_input(self) -> float:
        shared = self.hardware_month + self.storage_month
        return shared * self.served.input_share / self.input_traffic

    @property
    def cost_per_million_output(self) -> float:
        shared = self.hardware_month + self.storage_month
        return shared * (1 - self.served.input_share) / self.traffic + self.egress_per_million

    @property
    def full_cost_per_million_output(self) -> float:
        """What hardware alone would cost if no hour were idle."""
        return self.deployment_month * (1 - self.served.input_share) / self.full_month

    @property
    def full_cost_per_million_input(self) -> float:
        return (
            self.deployment_month
            * self.served.input_share
            / (self.full_month * self.served.input_per_output)
        )

    # Revenue and margin.

    @cached_property
    def revenue_per_million(self) -> float:
        """Of a million output tokens and the input that comes with them."""
        price = self.values["price.price_per_million_input_usd"]
        return (
            self.values["price.price_per_million_output_usd"] + price * self.served.input_per_output
        )

    @property
    def revenue_month(self) -> float:
        return self.traffic * self.revenue_per_million

    @property
    def gross_margin(self) -> float:
        """Share of the revenue that serving leaves; minus infinity where nothing is earned."""
        if not self.revenue_month:
            return -inf
        return 1 - self.serving_month(self.traffic) / self.revenue_month

    @property
    def operating_margin(self) -> float:
        """As the gross margin, engineers paid."""
        if not self.revenue_month:
            return -inf
        cost = self.serving_month(self.traffic) + self.engineers_month
        return 1 - cost / self.revenue_month

    @property
    def break_even_utilisation(self) -> float:
        """At which this fleet earns what it costs, engineers included; above 1 it never does."""
        earned = self.revenue_per_million - self.egress_per_million
        if earned <= 0:
            return inf
        fixed = self.hardware_month + self.storage_month + self.engineers_month
        return fixed / (earned * self.deployments * self.full_month)

    @property
    def break_even_traffic(self) -> float:
        """Millions of output tokens a month that pay for serving and engineers."""
        earned = self.revenue_per_million - self.egress_per_million
        fixed = self.storage_month + self.engineers_month
        whole = self.full_month * self.planned_utilisation
        if earned <= 0:
            return inf
        first = (fixed + self.deployment_month) / earned
        if first <= whole:
            return first
        left = earned - self.deployment_month / whole
        return fixed / left if left > 0 else inf


FIGURES: dict[str, tuple[Callable[[Economics], float], str]] = {
    "goodput": (lambda e: e.goodput, "output tokens/s"),
    "gpu_hour": (lambda e: e.gpu_hour, "USD/GPU-hour"),
    "utilisation": (lambda e: e.utilisation, "share"),
    "deployments": (lambda e: e.deployments, "deployments"),
    "hardware_month": (lambda e: e.hardware_month, "USD/month"),
    "serving_month": (lambda e: e.serving_month(e.traffic), "USD/month"),
    "full_cost_per_million_input": (
        lambda e: e.full_cost_per_million_input,
        "USD/million tokens",
    ),
    "full_cost_per_million_output": (
        lambda e: e.full_cost_per_million_output,
        "USD/million tokens",
    ),
    "cost_per_million_input": (lambda e: e.cost_per_million_input, "USD/million tokens"),
    "cost_per_million_output": (lambda e: e.cost_per_million_output, "USD/million tokens"),
    "revenue_month": (lambda e: e.revenue_month, "USD/month"),
    "gross_margin": (lambda e: e.gross_margin, "share"),
    "operating_margin": (lambda e: e.operating_margin, "share"),
    "break_even_utilisation": (lambda e: e.break_even_utilisation, "share"),
    "break_even_traffic": (lambda e: e.break_even_traffic, "million tokens/month"),
}
"""Each figure: how it is computed, and its unit."""


def measure(economics: Economics) -> dict[str, float]:
    """Every figure by name."""
    return {name: compute(economics) for name, (compute, _) in FIGURES.items()}


def figures(e: Economics) -> dict[str, Quantity]:
    """Every figure with its arithmetic, by name."""
    words = {name: (title, lines) for name, title, lines in _derivations(e)}
    return {
        name: Quantity(words[name][0], compute(e), unit, words[name][1])
        for name, (compute, unit) in FIGURES.items()
    }


_Lines = tuple[str, ...]


def _derivations(e: Economics) -> list[tuple[str, str, _Lines]]:
    return [*_capacity_lines(e), *_cost_lines(e), *_margin_lines(e)]


def _capacity_lines(e: Economics) -> list[tuple[str, str, _Lines]]:
    value, served = e.values, e.served
    reserved, spot = value["hardware.reserved_share"], e.spot_share
    on_demand = 1 - reserved - spot
    needed = e.traffic / (e.full_month * e.planned_utilisation)
    hours = ", ".join(f"{share:.2f}" for share in e.hours_used)
    kept = f"{served.attained:.2%} of {served.requests:,} requests keep the objective"
    if not served.has_slo:
        kept = f"the scenario states no objective: all {served.requests:,} requests count"
    return [
        (
            "goodput",
            "goodput of a deployment",
            (
                f"simulated: {served.title}, {served.devices} devices, {served.load:.4g} x its "
                f"traffic, {number(served.rate)} requests/s; {kept}",
                f"{number(served.output_rate)} output tokens/s that keep it (start and end of the "
                "run included) x "
                f"{number(value['demand.goodput_reached_share'])} reached = {number(e.goodput)}",
            ),
        ),
        (
            "gpu_hour",
            "price of a working GPU-hour",
            (
                f"a spot GPU loses {number(value['hardware.spot_interruptions_per_day'])} x "
                f"{number(value['hardware.spot_recovery_minutes'])} min / 1,440 min = "
                f"{number(e.spot_lost)} of its time",
                f"{number(reserved)} reserved x {number(value['hardware.reserved_gpu_hour_usd'])} "
                f"+ {number(on_demand)} on demand x "
                f"{number(value['hardware.on_demand_gpu_hour_usd'])} + {number(spot)} spot x "
                f"{number(value['hardware.spot_gpu_hour_usd'])} / (1 - {number(e.spot_lost)}) = "
                f"{number(e.gpu_hour)} USD",
            ),
        ),
        (
            "utilisation",
            "mean utilisation",
            (
                f"by hour, the curve x {number(value['demand.utilisation_factor'])} (1 at most) "
                f"x (1 - {number(value['overhead.safety_margin_share'])} held back): {hours}",
                f"mean {number(e.planned_utilisation)}",
                f"of the fleet: {number(e.traffic)} M tokens / ({number(e.deployments)} "
                f"deployments x {number(e.full_month)} M tokens) = {number(e.utilisation)}",
            ),
        ),
        (
            "deployments",
            "deployments in the fleet",
            (
                f"one at full load: {number(e.goodput)} tokens/s x 3,600 s x 730 h = "
                f"{number(e.full_month)} M tokens/month",
                f"{number(e.traffic)} M tokens / ({number(e.full_month)} x "
                f"{number(e.planned_utilisation)}) = {number(needed)}"
                + (", and at least 1" if needed < 1 else ""),
            ),
        ),
    ]


def _cost_lines(e: Economics) -> list[tuple[str, str, _Lines]]:
    served, share = e.served, e.served.input_share
    shared = e.hardware_month + e.storage_month
    ratio = (
        f"{number(served.input_rate)} input / {number(served.output_rate)} output tokens/s = "
        f"{number(served.input_per_output)} input tokens for each output token"
    )
    sent = e.values["overhead.egress_bytes_per_output_token"]
    return [
        (
            "hardware_month",
            "hardware",
            (
                f"a deployment: {served.devices} GPUs x 730 h x {number(e.gpu_hour)} USD = "
                f"{number(e.deployment_month)} USD/month",
                f"x {number(e.deployments)} deployments = {number(e.hardware_month)} USD/month",
            ),
        ),
        (
            "serving_month",
            "cost of serving",
            (
                f"egress: {number(e.traffic)} M tokens x {number(sent)} B / 1e9 x "
                f"{number(e.values['overhead.egress_gb_usd'])} USD/GB = "
                f"{number(e.traffic * e.egress_per_million)} USD/month",
                f"hardware {number(e.hardware_month)} + storage {number(e.storage_month)} + egress "
                f"= {number(e.serving_month(e.traffic))} USD/month",
            ),
        ),
        (
            "full_cost_per_million_input",
            "hardware cost of a million input tokens, no hour idle",
            (
                *served.input_share_lines,
                ratio,
                f"{number(e.deployment_month)} USD x {number(share)} / ({number(e.full_month)} M "
                f"x {number(served.input_per_output)}) = "
                f"{number(e.full_cost_per_million_input)} USD",
            ),
        ),
        (
            "full_cost_per_million_output",
            "hardware cost of a million output tokens, no hour idle",
            (
                *served.input_share_lines,
                f"{number(e.deployment_month)} USD x (1 - {number(share)}) / "
                f"{number(e.full_month)} M = {number(e.full_cost_per_million_output)} USD",
            ),
        ),
        (
            "cost_per_million_input",
            "cost of a million input tokens",
            (
                ratio,
                f"(hardware {number(e.hardware_month)} + storage {number(e.storage_month)}) x "
                f"input's share {number(share)} = {number(shared * share)} USD/month",
                f"/ {number(e.input_traffic)} M tokens = {number(e.cost_per_million_input)} USD",
            ),
        ),
        (
            "cost_per_million_output",
            "cost of a million output tokens",
            (
                f"(hardware {number(e.hardware_month)} + storage {number(e.storage_month)}) x "
                f"(1 - input's share {number(share)}) = {number(shared * (1 - share))} USD/month",
                f"/ {number(e.traffic)} M tokens + egress {number(e.egress_per_million)} USD = "
                f"{number(e.cost_per_million_output)} USD",
            ),
        ),
    ]


def _margin_lines(e: Economics) -> list[tuple[str, str, _Lines]]:
    value = e.values
    serving = e.serving_month(e.traffic)
    earned = e.revenue_per_million - e.egress_per_million
    fixed = e.storage_month + e.engineers_month
    whole = e.full_month * e.planned_utilisation
    engineers = (
        f"engineers: {number(value['overhead.engineers_count'])} x "
        f"{number(value['overhead.engineer_year_usd'])} USD / 12 = "
        f"{number(e.engineers_month)} USD/month"
    )
    each = (
        f"a million output tokens and their input earn {number(e.revenue_per_million)} USD and "
        f"cost {number(e.egress_per_million)} USD of egress: {number(earned)} USD left"
    )
    if earned <= 0:
        utilisation_lines: _Lines = (each, "nothing is left, at any utilisation")
    else:
        utilisation_lines = (
            engineers,
            each,
            f"(hardware {number(e.hardware_month)} + storage {number(e.storage_month)} + engineers)"
            f" / ({number(earned)} USD x {number(e.deployments)} deployments x "
            f"{number(e.full_month)} M tokens) = {number(e.break_even_utilisation)}"
            + ("; above 1, so this fleet never does" if e.break_even_utilisation > 1 else ""),
        )
    first = (fixed + e.deployment_month) / earned if earned > 0 else inf
    if first <= whole:
        last = (
            f"within one deployment: (fixed {number(fixed)} + hardware "
            f"{number(e.deployment_month)}) / {number(earned)} = {number(first)} M tokens"
        )
    else:
        left = earned - e.deployment_month / whole
        last = (
            f"each million takes {number(e.deployment_month)} / {number(whole)} = "
            f"{number(e.deployment_month / whole)} USD of hardware: {number(left)} USD left; "
        )
        last += (
            f"fixed {number(fixed)} / {number(left)} = {number(e.break_even_traffic)} M tokens"
            if left > 0
            else "more traffic only loses more"
        )
    return [
        (
            "revenue_month",
            "revenue",
            (
                f"a million output tokens {number(value['price.price_per_million_output_usd'])} "
                f"USD + {number(e.served.input_per_output)} M input tokens x "
                f"{number(value['price.price_per_million_input_usd'])} USD = "
                f"{number(e.revenue_per_million)} USD",
                f"x {number(e.traffic)} M tokens = {number(e.revenue_month)} USD/month",
            ),
        ),
        (
            "gross_margin",
            "gross margin",
            (
                f"1 - cost of serving {number(serving)} / revenue {number(e.revenue_month)} = "
                f"{percent(e.gross_margin)}",
            ),
        ),
        (
            "operating_margin",
            "margin after engineers",
            (
                engineers,
                f"1 - (serving {number(serving)} + engineers {number(e.engineers_month)}) / "
                f"revenue {number(e.revenue_month)} = {percent(e.operating_margin)}",
            ),
        ),
        ("break_even_utilisation", "break-even utilisation", utilisation_lines),
        ("break_even_traffic", "break-even traffic", (engineers, each, last)),
    ]
