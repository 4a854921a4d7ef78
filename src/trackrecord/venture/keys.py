"""The assumptions a sheet makes: their keys, units and bounds.

Invariant: the unit is in the key's name, and every amount of money is in US dollars.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import inf

OPTIONS = ("build", "buy", "upstream")


@dataclass(frozen=True)
class Key:
    """One assumption that a sheet must make.

    Args:
        name: dotted, as the sheet's tables nest.
        words: what it is, for a reader.
        least, most: bounds of every value it may take, draws included.
    """

    name: str
    unit: str
    words: str
    least: float = 0.0
    most: float = inf

    @property
    def is_price(self) -> bool:
        """Whether it must say when and where it was seen."""
        return self.name.endswith("_usd")


_PER_GPU_HOUR = "USD/GPU-hour"
_PER_MILLION = "USD/million tokens"


def _of_option(option: str) -> list[Key]:
    """What each way of serving assumes; only the bought one has prices, only the others gain."""
    where = f"options.{option}"
    keys = [
        Key(f"{where}.engineers_count", "engineers", f"{option}: engineers until it is done"),
        Key(
            f"{where}.maintenance_engineers_count", "engineers", f"{option}: engineers from then on"
        ),
        Key(f"{where}.months_to_serve", "months", f"{option}: until it serves the first request"),
        Key(f"{where}.exit_cost_usd", "USD", f"{option}: what leaving it costs once"),
        Key(f"{where}.committed_months", "months", f"{option}: months still owed after stopping"),
    ]
    if option == "buy":
        return [
            *keys,
            Key(f"{where}.price_per_million_input_usd", _PER_MILLION, "buy: price of input"),
            Key(f"{where}.price_per_million_output_usd", _PER_MILLION, "buy: price of output"),
            Key(
                f"{where}.price_decline_per_year_share",
                "share",
                "buy: how much cheaper it gets each year",
                -1.0,
                0.95,
            ),
        ]
    return [
        *keys,
        Key(f"{where}.months_to_gain", "months", f"{option}: until its faster engine is in use"),
        Key(
            f"{where}.goodput_gain_share",
            "share",
            f"{option}: goodput that the work adds",
            -0.9,
            10,
        ),
    ]


_ALL = [
    Key("hardware.reserved_gpu_hour_usd", _PER_GPU_HOUR, "price of a reserved GPU"),
    Key("hardware.on_demand_gpu_hour_usd", _PER_GPU_HOUR, "price of a GPU on demand"),
    Key("hardware.spot_gpu_hour_usd", _PER_GPU_HOUR, "price of a spot GPU"),
    Key("hardware.reserved_share", "share", "capacity on reserved GPUs", 0, 1),
    Key("hardware.spot_share", "share", "capacity on spot GPUs; the rest is on demand", 0, 1),
    Key("hardware.spot_interruptions_per_day", "interruptions/day", "interruptions of a spot GPU"),
    Key("hardware.spot_recovery_minutes", "minutes", "lost to each interruption"),
    Key("demand.million_output_tokens_per_month", "million tokens/month", "output tokens sold"),
    Key("demand.utilisation_factor", "x", "the day's curve is multiplied by", 0.01, 10),
    Key(
        "demand.goodput_reached_share",
        "share",
        "simulated goodput that production reaches",
        0.05,
        2,
    ),
    Key("price.price_per_million_input_usd", _PER_MILLION, "our price of input"),
    Key("price.price_per_million_output_usd", _PER_MILLION, "our price of output"),
    Key("overhead.engineers_count", "engineers", "who run the service"),
    Key("overhead.engineer_year_usd", "USD/engineer-year", "an engineer, all costs in"),
    Key("overhead.storage_month_usd", "USD/month", "storage: weights, logs"),
    Key("overhead.egress_gb_usd", "USD/GB", "traffic to the customers"),
    Key("overhead.egress_bytes_per_output_token", "B/token", "sent for each output token"),
    Key("overhead.safety_margin_share", "share", "capacity held back for failures", 0, 0.9),
    Key("options.horizon_months", "months", "over which options are compared", 1, 120),
    Key("options.decision_month", "months", "when the project can be stopped", 0, 120),
    Key("options.discount_per_year_share", "share", "discount rate", 0, 1),
    Key("options.traffic_growth_per_month_share", "share", "growth of the traffic", -0.5, 0.5),
    Key("options.failure_share", "share", "probability that demand fails to come", 0, 1),
    Key("options.failure_traffic_share", "share", "traffic that is left if so", 0, 1),
    *(key for option in OPTIONS for key in _of_option(option)),
]
KEYS: dict[str, Key] = {key.name: key for key in _ALL}
"""By dotted name, in the order in which reports list them."""

CURVES: dict[str, tuple[float, ...]] = {
    "flat": (1.0,) * 24,
    "office": (
        *(0.10, 0.08, 0.08, 0.08, 0.10, 0.15, 0.30, 0.55, 0.80, 0.95, 1.00, 0.98),
        *(0.85, 0.92, 1.00, 0.98, 0.90, 0.75, 0.50, 0.35, 0.28, 0.22, 0.17, 0.13),
    ),
    "consumer": (
        *(0.45, 0.33, 0.25, 0.20, 0.18, 0.20, 0.28, 0.40, 0.52, 0.60, 0.66, 0.70),
        *(0.72, 0.72, 0.73, 0.75, 0.78, 0.83, 0.90, 0.97, 1.00, 0.96, 0.82, 0.62),
    ),
    "global": (
        *(0.78, 0.76, 0.75, 0.74, 0.75, 0.77, 0.80, 0.84, 0.88, 0.92, 0.95, 0.97),
        *(0.98, 1.00, 1.00, 0.99, 0.97, 0.95, 0.92, 0.89, 0.86, 0.84, 0.82, 0.80),
    ),
}
"""Shapes of a day, each hour as a share of the busiest: illustrations, not measurements."""
