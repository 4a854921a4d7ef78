"""Build, buy or upstream: what each costs over the horizon, and what would change the choice.

Until an option serves, all traffic is bought at the bought option's prices; from then on it runs on
own hardware (or goes on being bought), and from its gain on that hardware does more. All sums are
discounted to today, month by month.

The option value is that of one right: to stop at the decision date, if demand has failed to come.
Without it the horizon would be paid for at the traffic that is left; with it the lock-in is paid,
where that is less.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from math import ceil, floor, isfinite

from mini_vllm.sim.quantity import Quantity
from trackrecord.venture.economics import Economics
from trackrecord.venture.keys import OPTIONS
from trackrecord.venture.sheet import Assumption
from trackrecord.venture.words import number, percent

BEYOND = 10.0
"""How far beyond an assumption's value a flip is looked for, as a factor either way."""
_GRID = 12
_HALVINGS = 40


@dataclass(frozen=True)
class Cost:
    """Discounted USD, by what is paid for."""

    engineers: float = 0.0
    bought: float = 0.0
    own: float = 0.0

    @property
    def total(self) -> float:
        return self.engineers + self.bought + self.own


@dataclass(frozen=True)
class Option:
    """One way of serving, with everything that decides.

    Args:
        cost: over the horizon, if demand comes.
        lock_in: what stopping at the decision date costs: `leaving` once, and each committed month
            as much as the one after that date (`month`).
        stopped: the rest of the horizon at the traffic that is left, if nobody stops.
        option_value: what the right to stop is worth today.
        expected: cost over the horizon, with the right to stop.
        months_to_serve: time to value.
    """

    name: str
    cost: Cost
    lock_in: float
    leaving: float
    month: float
    stopped: float
    until_decision: float
    option_value: float
    expected: float
    months_to_serve: float


def options(economics: Economics) -> list[Option]:
    """The three, in the order of `OPTIONS`."""
    return [_option(economics, name) for name in OPTIONS]


def best(economics: Economics) -> str:
    """The option with the lowest expected cost; the first of equals."""
    return min(options(economics), key=lambda option: option.expected).name


def _option(e: Economics, name: str) -> Option:
    value = e.values
    horizon = value["options.horizon_months"]
    decision = min(value["options.decision_month"], horizon)
    left = value["options.failure_traffic_share"]
    failing = value["options.failure_share"]
    before = _between(e, name, 0, decision, 1.0)
    after = _between(e, name, decision, horizon, 1.0)
    stopped = _between(e, name, decision, horizon, left).total
    month = _between(e, name, decision, decision + 1, 1.0).total
    leaving = value[f"options.{name}.exit_cost_usd"] / _growth(e, decision)
    lock_in = leaving + value[f"options.{name}.committed_months"] * month
    worth = failing * max(0.0, stopped - lock_in)
    expected = before.total + (1 - failing) * after.total + failing * min(stopped, lock_in)
    return Option(
        name,
        Cost(
            before.engineers + after.engineers,
            before.bought + after.bought,
            before.own + after.own,
        ),
        lock_in,
        leaving,
        month,
        stopped,
        before.total,
        worth,
        expected,
        value[f"options.{name}.months_to_serve"],
    )


def _growth(e: Economics, month: float) -> float:
    """What a dollar of `month` is divided by."""
    return float((1 + e.values["options.discount_per_year_share"]) ** (month / 12))


def _between(e: Economics, name: str, start: float, end: float, traffic_share: float) -> Cost:
    """What is paid from month `start` to month `end`, at a share of the traffic expected then."""
    value = e.values
    where = f"options.{name}"
    serves = value[f"{where}.months_to_serve"]
    done = serves if name == "buy" else max(serves, value[f"{where}.months_to_gain"])
    gain = 0.0 if name == "buy" else value[f"{where}.goodput_gain_share"]
    salary = value["overhead.engineer_year_usd"] / 12
    api = _bought_price(e)
    decline = 1 - value["options.buy.price_decline_per_year_share"]
    growth = 1 + value["options.traffic_growth_per_month_share"]
    engineers = bought = own = 0.0
    for month in range(floor(start), ceil(end)):
        first, last = max(start, month), min(end, month + 1)
        discount = 1 / _growth(e, month)
        building = _overlap(first, last, 0, done)
        engineers += discount * salary * building * value[f"{where}.engineers_count"]
        maintaining = last - first - building
        engineers += discount * salary * maintaining * value[f"{where}.maintenance_engineers_count"]
        traffic = e.traffic * traffic_share * growth**month
        buying = last - first if name == "buy" else _overlap(first, last, 0, serves)
        if buying:
            bought += discount * buying * traffic * api * decline ** (month / 12)
        plain = last - first - buying
        faster = 0.0 if name == "buy" else _overlap(first, last, done, last)
        plain -= faster
        if plain > 0:
            own += discount * plain * e.serving_month(traffic)
        if faster:
            own += discount * faster * e.serving_month(traffic, gain)
    return Cost(engineers, bought, own)


def _bought_price(e: Economics) -> float:
    """Of a million output tokens and their input, bought today."""
    value = e.values
    return (
        value["options.buy.price_per_million_output_usd"]
        + value["options.buy.price_per_million_input_usd"] * e.served.input_per_output
    )


def _overlap(first: float, last: float, start: float, end: float) -> float:
    return max(0.0, min(last, end) - max(first, start))


def measure(economics: Economics) -> dict[str, float]:
    """The figures of every option, by name."""
    found: dict[str, float] = {}
    for option in options(economics):
        found |= {
            f"cost_{option.name}": option.cost.total,
            f"engineering_{option.name}": option.cost.engineers,
            f"lock_in_{option.name}": option.lock_in,
            f"option_value_{option.name}": option.option_value,
            f"expected_cost_{option.name}": option.expected,
        }
    return found


FIGURES = tuple(
    f"{what}_{name}"
    for name in OPTIONS
    for what in ("cost", "engineering", "lock_in", "option_value", "expected_cost")
)
"""Names of the figures, all in USD."""


def figures(e: Economics) -> dict[str, Quantity]:
    """The figures of every option with their arithmetic, by name."""
    found: dict[str, Quantity] = {}
    for option in options(e):
        for name, title, value, lines in _derivations(e, option):
            found[f"{name}_{option.name}"] = Quantity(
                f"{title}: {option.name}", value, "USD", lines
            )
    return found


def _derivations(e: Economics, option: Option) -> list[tuple[str, str, float, tuple[str, ...]]]:
    value, where, cost = e.values, f"options.{option.name}", option.cost
    failing = value["options.failure_share"]
    decision = min(value["options.decision_month"], value["options.horizon_months"])
    done = option.months_to_serve
    if option.name != "buy":
        done = max(done, value[f"{where}.months_to_gain"])
    after = cost.total - option.until_decision
    salary = value["overhead.engineer_year_usd"] / 12
    horizon = value["options.horizon_months"]
    building = min(done, horizon)
    first, later = (
        value[f"{where}.engineers_count"],
        value[f"{where}.maintenance_engineers_count"],
    )
    rate = (
        f"discounted month by month at {percent(value['options.discount_per_year_share'])} a year"
    )
    growth = f"{percent(value['options.traffic_growth_per_month_share'])} more traffic each month"
    engineers = (
        f"({number(first)} engineers x {number(building)} months + {number(later)} x "
        f"{number(horizon - building)}) x {number(salary)} USD = "
        f"{number((first * building + later * (horizon - building)) * salary)} USD; {rate}: "
        f"{number(cost.engineers)}"
    )
    api = (
        f"{number(value['options.buy.price_per_million_output_usd'])} + "
        f"{number(e.served.input_per_output)} x "
        f"{number(value['options.buy.price_per_million_input_usd'])}"
    )
    until = horizon if option.name == "buy" else min(option.months_to_serve, horizon)
    bought = (
        f"bought for {number(until)} months, from {number(e.traffic)} M tokens x ({api}) USD = "
        f"{number(e.traffic * _bought_price(e))} a month, {growth}, "
        f"{percent(value['options.buy.price_decline_per_year_share'])} cheaper each year; {rate}: "
        f"{number(cost.bought)}"
    )
    own = (
        f"served by oneself for {number(horizon - until)} months, at today's traffic "
        f"{number(e.serving_month(e.traffic))} USD a month"
    )
    if option.name != "buy":
        gain = value[f"{where}.goodput_gain_share"]
        own += (
            f", from month {number(done)} with {percent(gain)} more goodput "
            f"{number(e.serving_month(e.traffic, gain))}"
        )
    own += f"; {growth}; {rate}: {number(cost.own)}"
    return [
        ("engineering", "engineering", option.cost.engineers, (engineers,)),
        (
            "cost",
            "total cost",
            cost.total,
            (
                engineers,
                bought,
                own,
                f"{number(cost.engineers)} + {number(cost.bought)} + {number(cost.own)} = "
                f"{number(cost.total)}",
            ),
        ),
        (
            "lock_in",
            "lock-in",
            option.lock_in,
            (
                f"leaving in month {number(decision)}: "
                f"{number(value[f'{where}.exit_cost_usd'])} USD, discounted "
                f"{number(option.leaving)}, + {number(value[f'{where}.committed_months'])} months "
                f"x {number(option.month)} = {number(option.lock_in)}",
            ),
        ),
        (
            "option_value",
            "value of being able to stop",
            option.option_value,
            (
                f"going on from month {number(decision)} at "
                f"{number(value['options.failure_traffic_share'])} of the traffic costs "
                f"{number(option.stopped)}; stopping costs the lock-in {number(option.lock_in)}",
                f"{number(failing)} x max(0, {number(option.stopped)} - "
                f"{number(option.lock_in)}) = {number(option.option_value)}",
            ),
        ),
        (
            "expected_cost",
            "expected cost",
            option.expected,
            (
                f"to month {number(decision)}: {number(option.until_decision)}",
                f"after it, if demand comes: {number(1 - failing)} x {number(after)}",
                f"if not: {number(failing)} x min({number(option.stopped)}, "
                f"{number(option.lock_in)})",
                f"together {number(option.expected)}",
            ),
        ),
    ]


@dataclass(frozen=True)
class Flip:
    """An assumption that, moved alone to `at`, makes another option the best.

    Args:
        within: whether `at` lies in the range that the sheet believes.
    """

    key: str
    value: float
    at: float
    to: str
    within: bool

    @property
    def distance(self) -> float:
        """How far away, relative to the value."""
        return abs(self.at - self.value) / max(abs(self.value), 1e-12)


def flips(
    assumptions: Mapping[str, Assumption], evaluate: Callable[[Mapping[str, float]], str]
) -> list[Flip]:
    """For each assumption the nearest value that flips the choice: those within their ranges
    first, then by distance. Looked for within the range and, beyond it, up to ten times and down to
    a tenth of the value, as far as the key's bounds allow.
    """
    base = {name: assumption.value for name, assumption in assumptions.items()}
    chosen = evaluate(base)
    found = []
    for name, assumption in assumptions.items():

        def choice(at: float, name: str = name) -> str:
            return evaluate({**base, name: at})

        value = assumption.value
        ends = (
            max(assumption.key.least, min(assumption.low, value / BEYOND, value * BEYOND)),
            min(assumption.key.most, max(assumption.high, value / BEYOND, value * BEYOND)),
        )
        nearest = [
            flip for end in ends if (flip := _flip(assumption, chosen, end, choice)) is not None
        ]
        if nearest:
            found.append(min(nearest, key=lambda flip: flip.distance))
    return sorted(found, key=lambda flip: (not flip.within, flip.distance, flip.key))


def _flip(
    assumption: Assumption, chosen: str, end: float, choice: Callable[[float], str]
) -> Flip | None:
    """The nearest flip between the value and `end`: on a grid, then by bisection."""
    value = assumption.value
    if not isfinite(end) or end == value:
        return None
    near = value
    for step in range(1, _GRID + 1):
        far = value + (end - value) * (step / _GRID) ** 2  # finer close to the value
        if choice(far) != chosen:
            break
        near = far
    else:
        return None
    for _ in range(_HALVINGS):
        middle = (near + far) / 2
        if choice(middle) != chosen:
            far = middle
        else:
            near = middle
    within = assumption.low <= far <= assumption.high
    return Flip(assumption.key.name, value, far, choice(far), within)
