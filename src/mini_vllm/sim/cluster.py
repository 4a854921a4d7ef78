"""Several engines behind a router, and prefill and decode on engines of their own.

One loop over what happens next: a request arrives, keys and values arrive where they are decoded,
or the engine that is furthest behind takes a step. An engine takes a step only when nothing that
would reach it earlier is still to come.

Source of the disaggregated layout: DistServe (arXiv 2401.09670) and vLLM's
`docs/features/disagg_prefill.md`.
"""

from __future__ import annotations

import heapq
import itertools
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from math import inf

from mini_vllm.core.request import Request
from mini_vllm.core.sampling_params import SamplingParams
from mini_vllm.core.scheduler import SchedulerConfig
from mini_vllm.errors import InvalidInputError
from mini_vllm.sim.engine import Life, Load, SimulatedEngine
from mini_vllm.sim.executor import SimulatedExecutor
from mini_vllm.sim.outcome import Moment, Outcome
from mini_vllm.sim.traffic import Arrival

ROUTERS = ("round-robin", "least-loaded", "prefix-affine")
AFFINITY_SLACK = 2
"""A prefix-affine router leaves its favourite for the least loaded engine when the favourite has
this many times the requests, and some more."""


@dataclass(frozen=True)
class Pool:
    """Engines of one kind: `make(i)` makes the executor of the i-th."""

    count: int
    config: SchedulerConfig
    make: Callable[[int], SimulatedExecutor]


@dataclass
class Cluster:
    """Engines, a router, and what came of the requests.

    Args:
        prefill: engines that compute prompts only; None where the others do both.
        transfer_seconds: from the number of prompt tokens to how long their keys and values travel.
    """

    pool: Pool
    router: str
    outcome: Outcome
    prefill: Pool | None = None
    transfer_seconds: Callable[[int], float] = lambda tokens: 0.0

    def __post_init__(self) -> None:
        if self.router not in ROUTERS:
            raise InvalidInputError(
                f"router must be one of {', '.join(ROUTERS)}, got {self.router!r}", "router"
            )
        self._numbers = itertools.count()
        self._later: list[tuple[float, int, Callable[[], None]]] = []
        self._about: dict[int, Arrival] = {}
        on_interval = self.outcome.itl.add
        self.engines = [
            SimulatedEngine(self.pool.config, self.pool.make(n), self._finished, on_interval)
            for n in range(self.pool.count)
        ]
        self.prefillers: list[SimulatedEngine] = []
        if (first := self.prefill) is not None:
            self.prefillers = [
                SimulatedEngine(first.config, first.make(n), self._prefilled, on_interval)
                for n in range(first.count)
            ]
        self._turn = {id(self.engines): 0, id(self.prefillers): 0}
        self._left = 0

    @property
    def loads(self) -> list[Load]:
        return [engine.load for engine in [*self.engines, *self.prefillers]]

    def run(self, arrivals: Iterator[Arrival], count: int) -> None:
        """Serves the first `count` requests, follow-up turns among them, to their end."""
        self._left = count
        engines = [*self.engines, *self.prefillers]
        coming = next(arrivals, None)
        while True:
            if self._left <= 0:
                coming = None
            event = self._later[0][0] if self._later else inf
            arrival = coming.time if coming else inf
            busy = min((e for e in engines if e.has_work), key=lambda e: e.now, default=None)
            step = busy.now if busy else inf
            if arrival <= event and arrival <= step and coming is not None:
                self._admit(coming)
                coming = next(arrivals, None)
            elif event <= step and event < inf:
                heapq.heappop(self._later)[2]()
            elif busy is not None:
                self._step(busy)
            else:
                return

    def _step(self, engine: SimulatedEngine) -> None:
        before, tokens = engine.now, engine.load.output_tokens
        engine.step()
        if engine is not self.engines[0]:
            return
        scheduler = engine.core.scheduler
        moment = Moment(
            engine.now,
            engine.now - before,
            len(scheduler.running),
            len(scheduler.waiting),
            scheduler.kv_cache_manager.usage,
            engine.load.output_tokens - tokens,
        )
        self.outcome.observe(moment)

    # The way of a request.

    def _admit(self, arrival: Arrival) -> None:
        if self._left <= 0:
            return
        self._left -= 1
        self.outcome.last_arrival = max(self.outcome.last_arrival, arrival.time)
        number = next(self._numbers)
        first = self.prefillers or self.engines
        asked = 1 if self.prefillers else arrival.output_tokens
        self._about[number] = arrival
        try:
            self._check(arrival)
            request = _request(f"r{number}", arrival.prompt_token_ids, asked, arrival)
            prompt = len(arrival.prompt_token_ids)
            life = Life(request, arrival.time, arrival.output_tokens, prompt, number)
            self._route(first, arrival.key).add(life, arrival.time)
        except InvalidInputError:
            del self._about[number]
            self.outcome.refused += 1

    def _check(self, arrival: Arrival) -> None:
        """A request whose answer could not be finished is refused at the door."""
        tokens = len(arrival.prompt_token_ids) + arrival.output_tokens
        if tokens > self.pool.config.max_model_len:
            raise InvalidInputError("longer than the context", "prompt")
        if tokens > (self.pool.config.num_blocks - 1) * self.pool.config.block_size:
            raise InvalidInputError("larger than the cache", "prompt")

    def _prefilled(self, life: Life, end: float) -> None:
        """The prompt is computed, with the first token: its keys and values travel."""
        arrival = self._about[life.number]
        if arrival.output_tokens == 1:
            self._finished(life, end)
            return
        tokens = life.request.token_ids
        at = end + self.transfer_seconds(life.prompt_tokens)

        def arrive() -> None:
            more = arrival.output_tokens - 1
            life.request = _request(f"r{life.number}", tokens, more, arrival)
            life.last_token = end
            self._route(self.engines, arrival.key).add(life, at)

        heapq.heappush(self._later, (at, next(self._numbers), arrive))

    def _finished(self, life: Life, end: float) -> None:
        arrival = self._about.pop(life.number)
        self.outcome.finish(life, end, arrival.tenant)
        if arrival.following is not None and self._left > 0:
            turn = arrival.following(life.request.token_ids, end)
            heapq.heappush(self._later, (turn.time, next(self._numbers), lambda: self._admit(turn)))

    def _route(self, engines: Sequence[SimulatedEngine], key: int) -> SimulatedEngine:
        if len(engines) == 1:
            return engines[0]
        if self.router == "round-robin":
            turn = self._turn[id(engines)]
            self._turn[id(engines)] = (turn + 1) % len(engines)
            return engines[turn]
        least = min(engines, key=lambda engine: engine.outstanding)
        if self.router == "least-loaded":
            return least
        favourite = engines[hash((key, 0x9E3779B9)) % len(engines)]
        crowded = favourite.outstanding > AFFINITY_SLACK * (least.outstanding + 4)
        return least if crowded else favourite


def _request(name: str, tokens: list[int], max_tokens: int, arrival: Arrival) -> Request:
    params = SamplingParams(max_tokens=max_tokens, temperature=0.0, ignore_eos=True)
    return Request(name, tokens, params, arrival_time=arrival.time, priority=arrival.priority)
