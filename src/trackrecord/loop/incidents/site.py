"""A served engine on a virtual clock, and its records: what an incident is seen through.

The engine is the real `EngineCore` with the real scheduler and KV cache manager, or with a subclass
in their place where an incident is about them. Only the time that a step takes is modelled.

Invariants: the clock never goes back, and nothing here depends on the machine's speed, so that a
seed fixes every record.
"""

from __future__ import annotations

import heapq
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from itertools import pairwise
from math import inf
from typing import Protocol

from mini_vllm.core.kv_cache_manager import KVCacheManager
from mini_vllm.core.request import FINISH_REASONS, Request, RequestStatus
from mini_vllm.core.sampling_params import SamplingParams
from mini_vllm.core.scheduler import Scheduler, SchedulerConfig
from mini_vllm.engine.engine_core import EngineCore, Executor, StepResult
from mini_vllm.sim.cost.roofline import RooflineCost
from mini_vllm.sim.cost.step_cost import Terms
from mini_vllm.sim.deployment import Deployment
from mini_vllm.sim.executor import SimulatedExecutor
from mini_vllm.sim.hardware import find_hardware
from mini_vllm.sim.models import find_model


class Clocked(Executor, Protocol):
    """An executor that says how long its last step took."""

    terms: Terms


@dataclass(frozen=True)
class Ask:
    """A request to come; times in seconds. A client whose patience ends at `leaves` aborts."""

    at: float
    name: str
    prompt: list[int]
    max_tokens: int
    priority: int = 0
    salt: str | None = None
    leaves: float = inf


@dataclass
class Life:
    """What became of a request; times in seconds of the virtual clock, None for not yet."""

    ask: Ask
    request: Request
    first_scheduled: float | None = None
    first_token: float | None = None
    end: float | None = None
    finish_reason: str = ""
    preemptions: int = 0
    token_times: list[float] = field(default_factory=list)
    events: list[tuple[float, str]] = field(default_factory=list)

    @property
    def ttft(self) -> float | None:
        return None if self.first_token is None else self.first_token - self.ask.at

    @property
    def intervals(self) -> list[float]:
        """Seconds between the tokens."""
        times = self.token_times
        return [after - before for before, after in pairwise(times)]


@dataclass(frozen=True)
class Step:
    """One step: when, what was scheduled, and how the engine stood right after."""

    number: int
    start: float
    end: float
    scheduled: tuple[tuple[str, int], ...]
    new: tuple[str, ...]
    preempted: tuple[str, ...]
    prompt_tokens: int
    generated: int
    running: int
    waiting: int
    usage: float
    terms: Terms
    host_seconds: float


def roofline(hardware: str = "h100", model: str = "llama-3-8b") -> RooflineCost:
    """The cost model that sites run on unless they say otherwise."""
    return RooflineCost(Deployment(find_model(model), find_hardware(hardware)))


class Site:
    """One engine with its clients.

    Args:
        scheduler, manager: the classes to run, where an incident puts its own in their place.
        host_seconds: what the scheduler's own work took since it was last asked; 0 if not modelled.
    """

    def __init__(
        self,
        config: SchedulerConfig,
        *,
        scheduler: type[Scheduler] = Scheduler,
        manager: type[KVCacheManager] = KVCacheManager,
        executor: Clocked | None = None,
        host_seconds: Callable[[], float] = lambda: 0.0,
    ) -> None:
        self.config = config
        self.executor = executor or SimulatedExecutor(roofline())
        self.core = EngineCore(config, self.executor)
        self.core.scheduler = scheduler(config)
        self.core.scheduler.kv_cache_manager = manager(
            config.num_blocks, config.block_size, config.enable_prefix_caching
        )
        self.now = 0.0
        self.lives: dict[str, Life] = {}
        self.steps: list[Step] = []
        self._host_seconds = host_seconds
        self._computed: dict[str, int] = {}
        self.recomputed_tokens = 0
        """Tokens that were computed although they had been before."""
        self.computed_tokens = 0

    @property
    def scheduler(self) -> Scheduler:
        return self.core.scheduler

    @property
    def manager(self) -> KVCacheManager:
        return self.core.scheduler.kv_cache_manager

    def serve(self, asks: Iterable[Ask], until: float = inf) -> None:
        """Takes the requests as they come, and steps until all have ended or the time is up."""
        events: list[tuple[float, int, str, Ask]] = []
        for number, ask in enumerate(asks):
            heapq.heappush(events, (ask.at, 2 * number, "arrives", ask))
            if ask.leaves < inf:
                heapq.heappush(events, (ask.leaves, 2 * number + 1, "leaves", ask))
        while self.now < until:
            if not self.scheduler.has_requests:
                if not events:
                    return
                self.now = max(self.now, events[0][0])
            while events and events[0][0] <= self.now:
                at, _, what, ask = heapq.heappop(events)
                self._arrive(ask) if what == "arrives" else self._leave(ask, at)
            if self.core.has_work and not self._step():
                # Nothing could be scheduled: time passes until somebody comes or goes.
                self.now = max(self.now, min(until, events[0][0] if events else inf))
                if not events:
                    return

    def _arrive(self, ask: Ask) -> None:
        params = SamplingParams(max_tokens=ask.max_tokens, temperature=0.0, ignore_eos=True)
        request = Request(
            ask.name,
            ask.prompt,
            params,
            arrival_time=ask.at,
            priority=ask.priority,
            cache_salt=ask.salt,
        )
        life = self.lives[ask.name] = Life(ask, request)
        life.events.append((ask.at, f"arrived: {len(ask.prompt)} prompt tokens"))
        self.core.add_request(request)

    def _leave(self, ask: Ask, at: float) -> None:
        life = self.lives[ask.name]
        if life.end is None:
            request = life.request
            state = f"{request.num_computed_tokens} of {request.num_tokens} tokens computed"
            life.events.append((at, f"client disconnected, aborted: {state}"))
            life.end, life.finish_reason = at, "abort"
            self.core.finish_requests([ask.name], RequestStatus.FINISHED_ABORTED)

    def _step(self) -> bool:
        """One step; whether it scheduled anything."""
        start = self.now
        result = self.core.step()
        host = self._host_seconds()
        if not result.scheduled.num_scheduled_tokens:
            return bool(result.scheduled.preempted)
        self.now = start + self.executor.terms.seconds + host
        self._note(result, start)
        self._record(result, start, host)
        return True

    def _note(self, result: StepResult, start: float) -> None:
        """Writes the step into the lives of those that took part."""
        scheduled = result.scheduled
        for request in (*scheduled.new, *scheduled.resumed):
            life = self.lives[request.request_id]
            life.first_scheduled = start if life.first_scheduled is None else life.first_scheduled
            found = request.num_computed_tokens - scheduled.num_scheduled_tokens[request]
            word = "resumed" if life.preemptions else "admitted"
            life.events.append((start, f"{word}: {found} tokens found in the prefix cache"))
        for request in scheduled.preempted:
            life = self.lives[request.request_id]
            life.preemptions += 1
            life.events.append((start, f"preempted with {request.num_tokens} tokens"))
        for request, count in scheduled.num_scheduled_tokens.items():
            known = self._computed.get(request.request_id, 0)
            first = request.num_computed_tokens - count
            self.computed_tokens += count
            self.recomputed_tokens += max(0, min(known, first + count) - first)
            self._computed[request.request_id] = max(known, request.num_computed_tokens)
            if count > 1:
                words = f"computed tokens {first} to {first + count - 1}"
                self.lives[request.request_id].events.append((start, words))
        for output in result.outputs:
            life = self.lives[output.request.request_id]
            life.token_times += [self.now] * len(output.new_token_ids)
            if life.first_token is None:
                life.first_token = self.now
                life.events.append((self.now, "first token"))
            if output.finish_reason:
                life.end, life.finish_reason = self.now, output.finish_reason
                words = f"finished ({output.finish_reason}), {len(life.token_times)} tokens"
                life.events.append((self.now, words))

    def _record(self, result: StepResult, start: float, host: float) -> None:
        scheduled, scheduler = result.scheduled, self.scheduler
        generated = sum(len(output.new_token_ids) for output in result.outputs)
        shares = tuple((r.request_id, n) for r, n in scheduled.num_scheduled_tokens.items())
        self.steps.append(
            Step(
                number=len(self.steps),
                start=start,
                end=self.now,
                scheduled=shares,
                new=tuple(request.request_id for request in scheduled.new),
                preempted=tuple(request.request_id for request in scheduled.preempted),
                prompt_tokens=sum(n for _, n in shares) - generated,
                generated=generated,
                running=len(scheduler.running),
                waiting=len(scheduler.waiting),
                usage=self.manager.usage,
                terms=self.executor.terms,
                host_seconds=host,
            )
        )


def status_of(request: Request) -> str:
    """The state of a request in a word."""
    return FINISH_REASONS.get(request.status, request.status.name.lower())
