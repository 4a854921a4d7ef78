"""Latency under load: requests arrive when a Poisson process says, engine ready or not.

Latencies count from the moment a request was due, not from when the client got round to sending it,
so that a stalled engine cannot hide its own queue ("coordinated omission"). What is unfinished at
the time limit is cancelled and counted, never dropped in silence: arrived = completed + cancelled +
failed. TTFT, TPOT, ITL and goodput are those of `vllm/benchmarks/serve.py` (`calculate_metrics`) at
v0.22.1.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import TYPE_CHECKING

from mini_vllm.bench.figures import Figure, Percentiles, percentiles
from mini_vllm.bench.traffic import Traffic, TrafficRequest, poisson_arrivals
from mini_vllm.core.sampling_params import RequestOutputKind, SamplingParams
from mini_vllm.errors import EngineDeadError, InvalidInputError, MiniVLLMError

if TYPE_CHECKING:
    from mini_vllm.engine.async_engine import AsyncEngine
    from mini_vllm.engine.engine import Prompt
    from mini_vllm.engine.stats import StepStats

TIMELINE_POINTS = 120
"""Points of a phase's timeline."""
WINDOW_SHARE = 0.7
"""Part of a phase's time limit in which requests arrive; in the rest the last of them end."""
BURST_SHARE = 0.25
"""Part of the time that measuring the capacity is to take."""
MOST_BURST, LEAST_BURST = 24, 4
"""Requests that arrive at once to measure the capacity."""
SETTLE_SECONDS = 30.0
"""How long the engine may take to let go of cancelled requests."""


@dataclass(frozen=True)
class Slo:
    """Service level objective, in seconds; None leaves a latency free."""

    ttft: float | None = None
    tpot: float | None = None
    e2e: float | None = None


@dataclass(frozen=True)
class Timeline:
    """The engine over one phase, a column per quantity and a row per equal slice of time: seconds
    at the slice's end since the phase began, most requests running and waiting, highest share of KV
    cache blocks in use, and the share of prompt tokens found in the prefix cache since the phase
    began (None before the first prompt)."""

    seconds: list[float]
    running: list[int]
    waiting: list[int]
    kv_cache_usage: list[float]
    prefix_hit_rate: list[float | None]


@dataclass(frozen=True)
class Phase:
    """One arrival rate, measured; latencies are of the completed requests. `dispatch_delay` is the
    longest time from a request's being due to its being handed over: what the client itself added.
    `goodput` counts completed requests per second that met the objective."""

    rate: Figure
    share_of_capacity: float
    window: Figure
    seconds: Figure
    arrived: int
    completed: int
    cancelled: int
    failed: int
    request_rate: Figure
    output_rate: Figure
    ttft: Percentiles
    tpot: Percentiles
    itl: Percentiles
    e2e: Percentiles
    goodput: Figure | None
    dispatch_delay: Figure
    preemptions: int
    timeline: Timeline

    @property
    def latencies(self) -> dict[str, Percentiles]:
        """The latencies by the name a table gives them."""
        return {"TTFT": self.ttft, "TPOT": self.tpot, "ITL": self.itl, "End to end": self.e2e}


@dataclass(frozen=True)
class LoadResult:
    """Latency at several rates. `capacity` is the rate at which the engine worked off
    `capacity_requests` of the same traffic that arrived at once."""

    traffic: Traffic
    capacity: Figure
    capacity_requests: int
    slo: Slo | None
    phases: list[Phase]


@dataclass(slots=True)
class Trace:
    """One request as its client saw it; times in seconds since the phase began."""

    due: float
    dispatched: float | None = None
    token_times: list[float] = field(default_factory=list)
    token_count: int = 0
    state: str = "cancelled"

    @property
    def ttft(self) -> float:
        return self.token_times[0] - self.due

    @property
    def e2e(self) -> float:
        return self.token_times[-1] - self.due

    @property
    def tpot(self) -> float | None:
        """Mean time per token after the first; None for a single token."""
        return (self.e2e - self.ttft) / (self.token_count - 1) if self.token_count > 1 else None

    @property
    def itl(self) -> list[float]:
        """Times between consecutive outputs."""
        times = self.token_times
        return [later - earlier for earlier, later in pairwise(times)]

    def meets(self, slo: Slo) -> bool:
        """Whether every latency is within its bound (TPOT of a single token counts as 0)."""
        pairs = ((self.ttft, slo.ttft), (self.tpot or 0.0, slo.tpot), (self.e2e, slo.e2e))
        return all(bound is None or latency <= bound for latency, bound in pairs)


@dataclass(frozen=True)
class _Sent:
    """What came of one schedule of arrivals; `start` is on the monotonic clock."""

    start: float
    seconds: float
    traces: list[Trace]
    steps: list[StepStats]

    @property
    def completed(self) -> list[Trace]:
        return [trace for trace in self.traces if trace.state == "completed"]


class LoadGenerator:
    """Sends one kind of traffic to a started `AsyncEngine` in this process, a phase at a time."""

    def __init__(self, engine: AsyncEngine, traffic: Traffic, seed: int = 0) -> None:
        if traffic.max_tokens > engine.max_model_len:
            raise InvalidInputError(
                f"the load's requests reach {traffic.max_tokens} tokens and the engine's context "
                f"has {engine.max_model_len}: raise max_model_len"
            )
        self.traffic = traffic
        self._engine = engine
        self._seed = seed
        self._steps: list[StepStats] = []
        engine.add_observer(lambda stats: self._steps.append(stats))

    async def capacity(self, count: int) -> float:
        """Requests/s at which `count` requests that arrive at once are worked off, however long
        that takes.

        Raises:
            MiniVLLMError: the engine refused them or did not complete them.
        """
        sent = await self._send([0.0] * count, time_limit=None)
        if len(sent.completed) < count:
            raise MiniVLLMError(f"the engine completed {len(sent.completed)} of {count} requests")
        return count / sent.seconds

    async def phase(
        self,
        rate: float,
        share_of_capacity: float,
        window: float,
        time_limit: float,
        slo: Slo | None = None,
    ) -> Phase:
        """Arrivals at `rate` per second for `window` seconds, one at least; whatever is unfinished
        `time_limit` seconds after the start is cancelled."""
        arrivals = poisson_arrivals(rate, window, self._seed) or [0.0]
        sent = await self._send(arrivals, time_limit)
        done, seconds = sent.completed, sent.seconds
        met = sum(trace.meets(slo) for trace in done) if slo else 0
        delays = [t.dispatched - t.due for t in sent.traces if t.dispatched is not None]
        return Phase(
            rate=Figure(rate, "requests/s"),
            share_of_capacity=share_of_capacity,
            window=Figure(window, "s"),
            seconds=Figure(seconds, "s"),
            arrived=len(sent.traces),
            completed=len(done),
            cancelled=sum(trace.state == "cancelled" for trace in sent.traces),
            failed=sum(trace.state == "failed" for trace in sent.traces),
            request_rate=Figure(len(done) / seconds, "requests/s"),
            output_rate=Figure(sum(trace.token_count for trace in sent.traces) / seconds, "tok/s"),
            ttft=percentiles([trace.ttft for trace in done], "s"),
            tpot=percentiles([t for trace in done if (t := trace.tpot) is not None], "s"),
            itl=percentiles([gap for trace in done for gap in trace.itl], "s"),
            e2e=percentiles([trace.e2e for trace in done], "s"),
            goodput=Figure(met / seconds, "requests/s") if slo else None,
            dispatch_delay=Figure(max(delays, default=0.0), "s"),
            preemptions=sum(step.num_preempted for step in sent.steps),
            timeline=timeline(sent.steps, sent.start, seconds),
        )

    async def _send(self, arrivals: Sequence[float], time_limit: float | None) -> _Sent:
        """Sends a request at each of `arrivals` (seconds from now), from a cold prefix cache."""
        if not await self._engine.reset_prefix_cache():
            raise MiniVLLMError("the prefix cache cannot be reset while requests are running")
        self._steps = []
        vocab_size = self._engine.model_config.vocab_size
        requests = self.traffic.requests(len(arrivals), vocab_size, self._seed)
        traces = [Trace(due) for due in arrivals]
        start = time.monotonic()
        clients = [
            asyncio.create_task(self._client(request, trace, start))
            for request, trace in zip(requests, traces, strict=True)
        ]
        try:
            await asyncio.wait(clients, timeout=time_limit)
        finally:
            for client in clients:
                client.cancel()
            outcomes = await asyncio.gather(*clients, return_exceptions=True)
        seconds = time.monotonic() - start
        for outcome in outcomes:
            if isinstance(outcome, Exception):
                raise outcome
        await self._settle()
        return _Sent(start, seconds, traces, self._steps)

    async def _client(self, request: TrafficRequest, trace: Trace, start: float) -> None:
        """One client: waits until it is due, sends, and notes when tokens come."""
        params = SamplingParams(
            temperature=0,
            max_tokens=request.output_tokens,
            ignore_eos=True,
            detokenize=False,
            output_kind=RequestOutputKind.DELTA,
        )
        await asyncio.sleep(max(0.0, start + trace.due - time.monotonic()))
        trace.dispatched = time.monotonic() - start
        prompt: Prompt = {"prompt_token_ids": request.prompt_token_ids}
        try:
            stream = await self._engine.add_request(prompt, params)
            try:
                async for output in stream:
                    new = sum(len(completion.token_ids) for completion in output.outputs)
                    if new:
                        trace.token_count += new
                        trace.token_times.append(time.monotonic() - start)
            finally:
                await stream.aclose()
        except EngineDeadError:
            raise
        except MiniVLLMError:
            trace.state = "failed"
        else:
            complete = trace.token_count == request.output_tokens
            trace.state = "completed" if complete else "failed"

    async def _settle(self) -> None:
        """Returns when the engine holds no request; cancelled ones leave at its next step."""
        give_up = time.monotonic() + SETTLE_SECONDS
        while self._engine.num_unfinished_requests():
            if time.monotonic() > give_up:
                raise MiniVLLMError("the engine did not let go of cancelled requests")
            await asyncio.sleep(0.01)


async def run_load(
    generator: LoadGenerator,
    seconds: float,
    shares: Sequence[float],
    slo: Slo | None = None,
    burst: int = MOST_BURST,
    progress: Callable[[str], None] = lambda line: None,
) -> LoadResult:
    """Measures capacity with `burst` requests, then latency at `shares` of it, in about `seconds`.

    What the burst leaves is divided among the rates; a rate that ends early leaves its time to the
    next.
    """
    end = time.monotonic() + seconds
    await generator.capacity(1)  # warms up
    capacity = await generator.capacity(burst)
    progress(f"load: {generator.traffic.name} traffic, capacity {capacity:.2f} requests/s")
    phases: list[Phase] = []
    for i, share in enumerate(shares):
        limit = max(1.0, (end - time.monotonic()) / (len(shares) - i))
        phase = await generator.phase(share * capacity, share, WINDOW_SHARE * limit, limit, slo)
        phases.append(phase)
        progress(
            f"load: {phase.rate.value:.2f} requests/s for {phase.window.value:.1f} s, "
            f"{phase.completed} of {phase.arrived} completed"
        )
    return LoadResult(generator.traffic, Figure(capacity, "requests/s"), burst, slo, phases)


def timeline(
    steps: Sequence[StepStats], start: float, seconds: float, points: int = TIMELINE_POINTS
) -> Timeline:
    """`steps` since `start` (monotonic clock), spread over `points` equal slices of `seconds`.

    A step counts in every slice it touches; a slice without a step is an idle engine.
    """
    width = seconds / points
    touching: list[list[StepStats]] = [[] for _ in range(points)]
    ending: list[list[StepStats]] = [[] for _ in range(points)]
    for step in steps:
        first, last = (
            min(points - 1, max(0, int((moment - start) / width)))
            for moment in (step.time - step.step_seconds, step.time)
        )
        ending[last].append(step)
        for i in range(first, last + 1):
            touching[i].append(step)

    line = Timeline([], [], [], [], [])
    queries = hits = 0
    for i in range(points):
        queries += sum(step.prefix_cache_queries for step in ending[i])
        hits += sum(step.prefix_cache_hits for step in ending[i])
        line.seconds.append((i + 1) * width)
        line.running.append(max((step.num_running for step in touching[i]), default=0))
        line.waiting.append(max((step.num_waiting for step in touching[i]), default=0))
        line.kv_cache_usage.append(max((step.kv_cache_usage for step in touching[i]), default=0.0))
        line.prefix_hit_rate.append(hits / queries if queries else None)
    return line
