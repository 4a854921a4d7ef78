"""One step: decide, compute, take the result in.

Torch-free: the executor may run a model, or only a clock (the simulator). The scheduler and the
KV cache manager are the same ones either way.

Source: vLLM v0.22.1 `vllm/v1/engine/core.py`, `EngineCore.step`.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Protocol

from mini_vllm.core.request import Request, RequestStatus
from mini_vllm.core.scheduler import (
    EngineCoreOutput,
    ModelRunnerOutput,
    Scheduler,
    SchedulerConfig,
    SchedulerOutput,
)


class Executor(Protocol):
    """Computes what the scheduler decided."""

    def execute(self, scheduler_output: SchedulerOutput) -> ModelRunnerOutput:
        """Computes one step and samples; called once for every `SchedulerOutput`, in order.

        A step in which nothing is scheduled still says which requests finished or were preempted.
        """


@dataclass(slots=True)
class StepResult:
    """What was decided in a step, and what came of it.

    `drafts` has, for each request with drafts in the step, how many there were and how many of them
    were accepted.
    """

    scheduled: SchedulerOutput
    outputs: list[EngineCoreOutput]
    drafts: list[tuple[int, int]]


class EngineCore:
    """A scheduler and an executor taking turns."""

    def __init__(self, config: SchedulerConfig, executor: Executor) -> None:
        self.scheduler = Scheduler(config)
        self.executor = executor

    @property
    def has_work(self) -> bool:
        """Whether a step would do something, be it only to tell the executor of an end."""
        return self.scheduler.has_requests or self.scheduler.has_finished_request_ids

    def add_request(self, request: Request) -> None:
        """Queues a request; raises what `Scheduler.add_request` raises."""
        self.scheduler.add_request(request)

    def finish_requests(self, request_ids: Iterable[str], status: RequestStatus) -> list[Request]:
        """Ends requests between steps; their blocks are free at once."""
        return self.scheduler.finish_requests(request_ids, status)

    def step(self) -> StepResult:
        scheduled = self.scheduler.schedule()
        computed = self.executor.execute(scheduled)
        drafts = _accepted(scheduled, computed)
        outputs = self.scheduler.update_from_output(scheduled, computed)
        if computed.draft_token_ids is not None:
            self.scheduler.update_draft_token_ids(scheduled, computed.draft_token_ids)
        return StepResult(scheduled, outputs, drafts)


def _accepted(scheduled: SchedulerOutput, computed: ModelRunnerOutput) -> list[tuple[int, int]]:
    drafts = scheduled.scheduled_spec_decode_tokens
    if not drafts:
        return []
    sampled = zip(scheduled.num_scheduled_tokens, computed.sampled_token_ids, strict=True)
    return [(len(drafts[r]), len(tokens) - 1) for r, tokens in sampled if r in drafts]
