"""Traffic for the load test: what requests look like, and when they arrive.

Invariant: a seed fixes everything, on every machine. Arrivals at two rates are the same draws on
two time scales, so that rates are compared under the same bursts.
"""

from __future__ import annotations

from dataclasses import dataclass
from random import Random

from mini_vllm.bench.workloads import random_ids


@dataclass(frozen=True)
class TrafficRequest:
    """One request to send."""

    prompt_token_ids: list[int]
    output_tokens: int


@dataclass(frozen=True)
class Costs:
    """Seconds that the workloads showed: of a prompt token, of an output token in a large batch,
    and of a decode step of one request alone."""

    prompt_token: float
    output_token: float
    step: float


@dataclass(frozen=True)
class Traffic:
    """What requests look like: one of `num_prefixes` shared beginnings of `shared_tokens`, then
    random ids; lengths are drawn uniformly between the two bounds, both included."""

    name: str
    num_prefixes: int
    shared_tokens: int
    own_tokens: list[int]
    output_tokens: list[int]

    @property
    def max_tokens(self) -> int:
        """Longest context a request can reach."""
        return self.shared_tokens + self.own_tokens[1] + self.output_tokens[1]

    def seconds_each(self, costs: Costs) -> float:
        """Engine time that a request of middling length may be expected to take, in a batch."""
        own, output = sum(self.own_tokens) / 2, sum(self.output_tokens) / 2
        return own * costs.prompt_token + output * costs.output_token

    def requests(self, count: int, vocab_size: int, seed: int = 0) -> list[TrafficRequest]:
        """The first `count` requests of this traffic."""
        rng = Random(f"{seed}:{self.name}")
        prefixes = [
            random_ids(rng, self.shared_tokens, vocab_size) for _ in range(self.num_prefixes)
        ]
        requests: list[TrafficRequest] = []
        for _ in range(count):
            own = random_ids(rng, rng.randint(*self.own_tokens), vocab_size)
            output_tokens = rng.randint(*self.output_tokens)
            requests.append(TrafficRequest(rng.choice(prefixes) + own, output_tokens))
        return requests


TRAFFICS = (
    Traffic("chat", 4, 128, [32, 96], [32, 96]),
    Traffic("short", 4, 64, [16, 48], [16, 48]),
    Traffic("tiny", 4, 32, [8, 24], [4, 12]),
)
"""From long to short: a slow machine takes a shorter one, so as to see enough requests."""


def poisson_arrivals(rate: float, window: float, seed: int = 0) -> list[float]:
    """Arrival times in [0, window) seconds of a Poisson process of `rate` per second: the gaps
    are independent and exponential."""
    rng = Random(f"{seed}:arrivals")
    times: list[float] = []
    now = rng.expovariate(1.0) / rate
    while now < window:
        times.append(now)
        now += rng.expovariate(1.0) / rate
    return times


def choose_traffic(
    costs: Costs, window: float, drain: float, lowest_share: float, wanted: int = 20
) -> Traffic:
    """The longest traffic that a load test can see enough of; the shortest if there is none.

    At `lowest_share` of the capacity that `costs` imply, `wanted` requests should arrive within
    `window` seconds, and the longest of them should end within `drain` seconds even if a step
    takes twice as long as for one request alone.
    """
    for traffic in TRAFFICS:
        longest = traffic.output_tokens[1] * 2 * costs.step
        enough = lowest_share * window >= wanted * traffic.seconds_each(costs)
        if enough and longest <= drain:
            return traffic
    return TRAFFICS[-1]
