"""What the core's tests share: requests in one line, and an executor that has no model.

The executor keeps, for every slot of the cache, the prefix whose keys and values it would hold,
and refuses to read a slot that holds anything else. Whatever the scheduler gets wrong about
blocks, sharing or preemption is then an assertion, as it would be a wrong token in an engine.
"""

from __future__ import annotations

import os
import zlib
from collections.abc import Iterable
from typing import Any

from hypothesis import settings

from mini_vllm.core.request import Request
from mini_vllm.core.sampling_params import SamplingParams
from mini_vllm.core.scheduler import (
    EngineCoreOutput,
    ModelRunnerOutput,
    Scheduler,
    SchedulerConfig,
    SchedulerOutput,
)
from mini_vllm.replay import Speculation, verified_tokens

PROPERTY = settings(deadline=None, derandomize="CI" in os.environ, max_examples=200)
"""For property tests; in continuous integration every run tries the same examples."""

MACHINE = settings(PROPERTY, max_examples=100, stateful_step_count=40)
"""For state machines, whose examples are whole histories."""


def make_request(
    request_id: str,
    prompt: int | Iterable[int],
    max_tokens: int | None = 16,
    *,
    arrival_time: float = 0.0,
    priority: int = 0,
    cache_salt: str | None = None,
    eos_token_ids: tuple[int, ...] = (),
    **params: Any,
) -> Request:
    """A greedy request; a number as prompt means so many tokens that no other request has."""
    if isinstance(prompt, int):
        prompt = [zlib.crc32(f"{request_id}, {i}".encode()) for i in range(prompt)]
    return Request(
        request_id,
        list(prompt),
        SamplingParams(temperature=0.0, max_tokens=max_tokens, **params),
        arrival_time=arrival_time,
        priority=priority,
        cache_salt=cache_salt,
        eos_token_ids=eos_token_ids,
    )


def make_scheduler(num_blocks: int = 10, block_size: int = 4, **config: Any) -> Scheduler:
    return Scheduler(SchedulerConfig(num_blocks, block_size, **config))


class SlotMemory:
    """An executor that computes nothing and remembers what each slot would hold."""

    def __init__(self, scheduler: Scheduler) -> None:
        self.scheduler = scheduler
        self.block_size = scheduler.config.block_size
        self.slots: dict[tuple[int, int], int] = {}
        self.block_tables: dict[str, list[int]] = {}
        self._meanings: dict[Request, list[int]] = {}
        most = scheduler.config.num_speculative_tokens
        self.speculation = Speculation("ngram", most, 60) if most else None

    def execute(self, output: SchedulerOutput) -> ModelRunnerOutput:
        """Writes all slots of the step, then reads all that its tokens attend to."""
        self._update_block_tables(output)
        scheduled, drafts = output.num_scheduled_tokens, output.scheduled_spec_decode_tokens
        meanings = {
            request: self._meanings_of(request, drafts.get(request, [])) for request in scheduled
        }
        for request, num_tokens in scheduled.items():
            start = request.num_computed_tokens - num_tokens
            for position in range(start, request.num_computed_tokens):
                self.slots[self._slot(request, position)] = meanings[request][position + 1]
        for request in scheduled:
            for position in range(request.num_computed_tokens):
                held = self.slots.get(self._slot(request, position))
                assert held == meanings[request][position + 1], (
                    f"{request} reads a wrong {position}"
                )
        sampled = [
            verified_tokens(request, drafts.get(request, ()))
            if request.num_computed_tokens >= request.num_tokens
            else []
            for request in scheduled
        ]
        return ModelRunnerOutput(sampled, draft_token_ids=self._propose(scheduled, sampled))

    def _propose(
        self, scheduled: Iterable[Request], sampled: list[list[int]]
    ) -> list[list[int]] | None:
        if self.speculation is None:
            return None
        return [
            self.speculation.draft_tokens(request.request_id, request.num_tokens + len(tokens))
            if tokens
            else []
            for request, tokens in zip(scheduled, sampled, strict=True)
        ]

    def _update_block_tables(self, output: SchedulerOutput) -> None:
        """Follows the block tables by what the output says of them, as a real executor must."""
        for request_id in output.finished_request_ids:
            self.block_tables.pop(request_id, None)
        for request in output.preempted:
            del self.block_tables[request.request_id]
        for request in (*output.new, *output.resumed):
            self.block_tables[request.request_id] = []
        for request_id, block_ids in output.new_block_ids.items():
            self.block_tables[request_id].extend(block_ids)
        for request in output.num_scheduled_tokens:
            held = self.scheduler.kv_cache_manager.get_block_ids(request.request_id)
            assert self.block_tables[request.request_id] == held

    def _slot(self, request: Request, position: int) -> tuple[int, int]:
        table = self.block_tables[request.request_id]
        return table[position // self.block_size], position % self.block_size

    def _meanings_of(self, request: Request, drafts: list[int]) -> list[int]:
        """What keys and values at each position depend on: all tokens up to there, and the salt.

        The first entry is the salt's; drafts come behind the tokens.
        """
        settled = self._meanings.setdefault(request, [hash(request.cache_salt)])
        for token_id in request.token_ids[len(settled) - 1 :]:
            settled.append(hash((settled[-1], token_id)))
        meanings = list(settled)
        for token_id in drafts:
            meanings.append(hash((meanings[-1], token_id)))
        return meanings


class Engine:
    """A scheduler and a `SlotMemory` taking turns, with every invariant checked on the way."""

    def __init__(self, scheduler: Scheduler) -> None:
        self.scheduler = scheduler
        self.executor = SlotMemory(scheduler)
        self.last_outputs: list[EngineCoreOutput] = []

    def add(self, *requests: Request) -> None:
        for request in requests:
            self.scheduler.add_request(request)
            self.scheduler.check_invariants()

    def step(self) -> SchedulerOutput:
        output = self.scheduler.schedule()
        self.scheduler.check_invariants()
        sampled = self.executor.execute(output)
        self.last_outputs = self.scheduler.update_from_output(output, sampled)
        if sampled.draft_token_ids is not None:
            self.scheduler.update_draft_token_ids(output, sampled.draft_token_ids)
        self.scheduler.check_invariants()
        return output

    def run(self, max_steps: int = 10_000) -> list[SchedulerOutput]:
        """Steps until nothing is left."""
        outputs = []
        while self.scheduler.has_requests:
            outputs.append(self.step())
            assert len(outputs) < max_steps, f"no end in sight: {self.scheduler.running}"
        return outputs

    def finish(self, *request_ids: str) -> list[Request]:
        ended = self.scheduler.finish_requests(request_ids)
        self.scheduler.check_invariants()
        return ended

    def block_ids(self, request: Request) -> list[int]:
        return self.scheduler.kv_cache_manager.get_block_ids(request.request_id)

    @property
    def num_free_blocks(self) -> int:
        return self.scheduler.kv_cache_manager.block_pool.num_free_blocks


def tokens_by_id(output: SchedulerOutput) -> dict[str, int]:
    """`num_scheduled_tokens` by request id."""
    return {r.request_id: n for r, n in output.num_scheduled_tokens.items()}
