"""The real `EngineCore` on a virtual clock.

Decisions are the scheduler's own; only the time that a step takes is modelled. A step begins when
the engine is free and has work, and its tokens arrive when it ends.

Invariant: `now` never goes back, and memory does not grow with the requests that have finished.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from mini_vllm.core.request import Request
from mini_vllm.core.scheduler import SchedulerConfig
from mini_vllm.engine.engine_core import EngineCore, StepResult
from mini_vllm.sim.cost.step_cost import Terms
from mini_vllm.sim.executor import SimulatedExecutor


@dataclass(slots=True)
class Life:
    """One request on its way; times in seconds of the virtual clock.

    `first_token` is None until there is one. `request` is the one that an engine holds now.
    """

    request: Request
    arrival: float
    output_tokens: int
    prompt_tokens: int
    number: int = 0
    first_token: float | None = None
    last_token: float = 0.0


@dataclass(slots=True)
class Load:
    """What an engine did, summed: seconds by term, steps, tokens, and the cache over time."""

    terms: list[float] = field(default_factory=lambda: [0.0] * len(Terms._fields))
    steps: int = 0
    busy: float = 0.0
    prompt_tokens: int = 0
    output_tokens: int = 0
    preemptions: int = 0
    kv_seconds: float = 0.0
    """Integral of the share of blocks in use over busy time."""
    kv_most: float = 0.0
    running_seconds: float = 0.0
    """Integral of the number of running sequences over busy time."""


Finished = Callable[[Life, float], None]
Interval = Callable[[float, int], None]
"""Called with the time between two tokens, and for how many sequences it was that long."""


class SimulatedEngine:
    """One engine.

    Args:
        on_finish: called with a request's life and the time of its end.
        on_interval: called once a step with the interval since the last token of those that decode.
    """

    def __init__(
        self,
        config: SchedulerConfig,
        executor: SimulatedExecutor,
        on_finish: Finished,
        on_interval: Interval,
    ) -> None:
        self.core = EngineCore(config, executor)
        self.executor = executor
        self.load = Load()
        self.now = 0.0
        self.lives: dict[str, Life] = {}
        self._on_finish = on_finish
        self._on_interval = on_interval
        self._late: set[str] = set()
        """Requests that missed a step: their next interval is their own."""
        self._last_end = 0.0

    @property
    def has_work(self) -> bool:
        return self.core.scheduler.has_requests

    @property
    def outstanding(self) -> int:
        """Requests that wait or run."""
        return len(self.lives)

    def add(self, life: Life, now: float) -> None:
        """Queues a request that arrives at `now`.

        Raises:
            InvalidInputError: it could never run.
        """
        self.core.add_request(life.request)
        self.lives[life.request.request_id] = life
        if now > self.now:
            self.now = now  # it was idle

    def step(self) -> StepResult:
        """One step; afterwards `now` is its end."""
        result = self.core.step()
        terms = self.executor.terms
        taken = terms.seconds
        self.now = end = self.now + taken
        self._account(result, terms, taken)
        self._collect(result, end)
        return result

    def _account(self, result: StepResult, terms: Terms, taken: float) -> None:
        load, shape = self.load, self.executor.shape
        for index, value in enumerate(terms):
            load.terms[index] += value
        load.steps += 1
        load.busy += taken
        load.prompt_tokens += shape.chunk_tokens
        load.preemptions += len(result.scheduled.preempted)
        usage = self.core.scheduler.kv_cache_manager.usage
        load.kv_seconds += usage * taken
        load.kv_most = max(load.kv_most, usage)
        load.running_seconds += len(result.scheduled.num_scheduled_tokens) * taken

    def _collect(self, result: StepResult, end: float) -> None:
        """Tokens arrive: first ones, last ones, and the interval of all that went on decoding."""
        lives, late = self.lives, self._late
        ordinary = tokens = ended = 0
        for output in result.outputs:
            request, new = output.request, len(output.new_token_ids)
            tokens += new
            goes_on = len(request.token_ids) - request.num_prompt_tokens > new
            is_late = bool(late) and request.request_id in late
            if goes_on and not is_late and output.finish_reason is None:
                ordinary += 1
                continue
            life = lives[request.request_id]
            if life.first_token is None:
                life.first_token = end
            elif goes_on and not is_late:
                ordinary += 1
            else:
                self._on_interval(end - life.last_token, 1)
            late.discard(request.request_id)
            life.last_token = end
            if output.finish_reason is not None:
                ended += 1
                del lives[request.request_id]
                self._on_finish(life, end)
        if ordinary:
            self._on_interval(end - self._last_end, ordinary)
        for request in result.scheduled.preempted:
            self._fall_behind(request)
        running = self.core.scheduler.running
        if len(result.outputs) - ended < len(running):
            served = {output.request for output in result.outputs}
            for request in running:
                if request not in served:  # the budget was spent before its turn, or on a part
                    self._fall_behind(request)
        self.load.output_tokens += tokens
        self._last_end = end

    def _fall_behind(self, request: Request) -> None:
        """A request that gets no token in this step had its last one when the last step ended."""
        name = request.request_id
        if name not in self._late and request.num_output_tokens:
            self._late.add(name)
            self.lives[name].last_token = self._last_end
