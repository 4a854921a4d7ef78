"""Which requests take part in the next step, and with how many tokens.

One token budget a step. Running requests come first, in the order in which they were admitted, and
take what they lack, up to the budget; what is left admits waiting requests. There is no prefill
phase and no decode phase: a long prompt is simply a request that lacks more than the budget, and
goes on lacking in the next step (chunked prefill).

When blocks run out, a running request is preempted: all its blocks are freed, it waits again, and
its tokens are computed anew, or found in the prefix cache, when it comes back. The victim is the
last one admitted, or under the priority policy the least important.

Draft tokens are tokens that a running request lacks, like any others: they take budget and slots,
and fewer of them are verified where these run short. `update_from_output` takes the rejected ones
out of `num_computed_tokens` again.

Invariants: at most `max_num_batched_tokens` tokens and `max_num_seqs` requests a step; nobody is
admitted in a step that preempts; a request is in exactly one of `running`, `waiting` and finished;
only running requests hold blocks.

Source: vLLM v0.22.1 `vllm/v1/core/sched/scheduler.py`, `Scheduler.schedule` and
`Scheduler.update_from_output`. The decisions are the same, block ids included.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from mini_vllm.core.kv_cache_manager import KVCacheManager
from mini_vllm.core.request import FINISH_REASONS, Request, RequestStatus, append_output_token
from mini_vllm.core.request_queue import FCFSQueue, PriorityQueue, RequestQueue
from mini_vllm.errors import InvalidInputError

_RUNNING = RequestStatus.RUNNING  # looking a member up on its class is slow in a hot loop


@dataclass(frozen=True)
class SchedulerConfig:
    """Limits and policy of a scheduler; names and meanings are vLLM's.

    Args:
        num_blocks: blocks of KV cache, the null block included.
        block_size: tokens in a block.
        max_num_seqs: most requests in a step.
        max_num_batched_tokens: most tokens in a step, of a draft model's as well.
        max_model_len: most tokens in a request.
        enable_prefix_caching: whether equal prefixes share blocks.
        long_prefill_token_threshold: most tokens of one request in a step; 0 is no limit.
        policy: "fcfs" or "priority".
        num_speculative_tokens: most draft tokens of a request in a step; 0 is no speculation.
        num_lookahead_tokens: slots beyond a step's tokens, for what a draft model computes ahead.
    """

    num_blocks: int
    block_size: int = 16
    max_num_seqs: int = 256
    max_num_batched_tokens: int = 2048
    max_model_len: int = 8192
    enable_prefix_caching: bool = True
    long_prefill_token_threshold: int = 0
    policy: str = "fcfs"
    num_speculative_tokens: int = 0
    num_lookahead_tokens: int = 0

    def __post_init__(self) -> None:
        for name, least in (
            ("num_blocks", 2),
            ("block_size", 1),
            ("max_num_seqs", 1),
            ("max_num_batched_tokens", 1),
            ("max_model_len", 2),
            ("long_prefill_token_threshold", 0),
            ("num_speculative_tokens", 0),
            ("num_lookahead_tokens", 0),
        ):
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, int) or value < least:
                raise InvalidInputError(
                    f"{name} must be an integer of at least {least}, got {value!r}", name
                )
        if not isinstance(self.enable_prefix_caching, bool):
            raise InvalidInputError(
                f"enable_prefix_caching must be true or false, got {self.enable_prefix_caching!r}",
                "enable_prefix_caching",
            )
        if self.policy not in ("fcfs", "priority"):
            raise InvalidInputError(
                f"policy must be 'fcfs' or 'priority', got {self.policy!r}", "policy"
            )
        if self.max_num_scheduled_tokens < 1:
            raise InvalidInputError(
                f"max_num_batched_tokens={self.max_num_batched_tokens} leaves nothing to schedule "
                f"beside a draft model's token for each of max_num_seqs={self.max_num_seqs}; "
                "raise the one or lower the other",
                "max_num_batched_tokens",
            )

    @property
    def max_num_scheduled_tokens(self) -> int:
        """The budget: a draft model computes one token more of each sequence than is scheduled."""
        drafting = self.max_num_seqs if self.num_lookahead_tokens else 0
        return self.max_num_batched_tokens - drafting


@dataclass(slots=True)
class SchedulerOutput:
    """What one step computes.

    `num_scheduled_tokens` is in scheduling order: running requests, then newly admitted ones. A
    request computes its tokens from `num_computed_tokens` before the step on; since `schedule`
    has already advanced that counter, the range is the last `num_scheduled_tokens[request]` of
    the first `num_computed_tokens`.
    `new_block_ids` has an entry for each request whose block table grew; for the requests in
    `new` and `resumed` it is the whole table, cached prefix included.
    `finished_request_ids` are those that ended since the last step.
    `scheduled_spec_decode_tokens` are the drafts among the tokens, the last ones of their request.
    """

    num_scheduled_tokens: dict[Request, int]
    total_num_scheduled_tokens: int
    new: list[Request]
    resumed: list[Request]
    preempted: list[Request]
    new_block_ids: dict[str, list[int]]
    finished_request_ids: list[str]
    scheduled_spec_decode_tokens: dict[Request, list[int]]


@dataclass(slots=True)
class ModelRunnerOutput:
    """What the executor computed for a `SchedulerOutput`.

    `sampled_token_ids` is aligned with `num_scheduled_tokens`: the tokens sampled for each
    request, empty for one whose tokens are not all computed yet; where drafts were scheduled, the
    accepted ones and one more. `draft_token_ids`, aligned likewise, are drafts for the next step.
    `logprobs` (a list with an entry a token) and `prompt_logprobs`, by request id, pass through.
    """

    sampled_token_ids: Sequence[list[int]]
    logprobs: dict[str, Any] | None = None
    prompt_logprobs: dict[str, Any] | None = None
    draft_token_ids: Sequence[list[int]] | None = None


@dataclass(slots=True)
class EngineCoreOutput:
    """What a request gained in a step: tokens, perhaps its end (vLLM: `EngineCoreOutput`)."""

    request: Request
    new_token_ids: list[int]
    finish_reason: str | None
    logprobs: Any = None
    prompt_logprobs: Any = None


class Scheduler:
    """Holds every unfinished request; `schedule` and `update_from_output` take turns."""

    def __init__(self, config: SchedulerConfig) -> None:
        self.config = config
        self.kv_cache_manager = KVCacheManager(
            config.num_blocks, config.block_size, config.enable_prefix_caching
        )
        self.requests: dict[str, Request] = {}
        self.running: list[Request] = []
        self.waiting: RequestQueue = PriorityQueue() if config.policy == "priority" else FCFSQueue()
        self.num_preemptions = 0
        self._max_num_scheduled_tokens = config.max_num_scheduled_tokens
        self._speculates = config.num_speculative_tokens > 0
        self._finished_request_ids: list[str] = []

    def add_request(self, request: Request) -> None:
        """Queues a request.

        Raises:
            InvalidInputError: its id is in use, or it could never run: the prompt leaves no room
                in the context, or does not fit into the whole cache.
        """
        if request.request_id in self.requests:
            raise InvalidInputError(f"request id {request.request_id!r} is in use", "request_id")
        if request.num_tokens >= self.config.max_model_len:
            raise InvalidInputError(
                f"the prompt has {request.num_tokens} tokens, and with the first answer token that "
                f"exceeds the context of {self.config.max_model_len}; shorten it",
                "prompt",
            )
        capacity = (self.config.num_blocks - 1) * self.config.block_size
        if request.num_tokens > capacity:
            raise InvalidInputError(
                f"the prompt has {request.num_tokens} tokens and the whole KV cache holds "
                f"{capacity}; shorten it or give the cache more memory",
                "prompt",
            )
        self.requests[request.request_id] = request
        self.waiting.add(request)

    def schedule(self) -> SchedulerOutput:
        """Decides one step, allocates its blocks, and advances `num_computed_tokens`."""
        scheduled: dict[Request, int] = {}
        new_block_ids: dict[str, list[int]] = {}
        preempted: list[Request] = []
        new: list[Request] = []
        resumed: list[Request] = []
        drafts: dict[Request, list[int]] = {}
        budget = self._max_num_scheduled_tokens
        budget = self._schedule_running(budget, scheduled, new_block_ids, preempted, drafts)
        if self.waiting and not preempted:
            budget = self._schedule_waiting(budget, scheduled, new_block_ids, new, resumed)

        for request, num_tokens in scheduled.items():
            request.num_computed_tokens += num_tokens
        finished, self._finished_request_ids = self._finished_request_ids, []
        return SchedulerOutput(
            scheduled,
            self._max_num_scheduled_tokens - budget,
            new,
            resumed,
            preempted,
            new_block_ids,
            finished,
            drafts,
        )

    def _schedule_running(
        self,
        budget: int,
        scheduled: dict[Request, int],
        new_block_ids: dict[str, list[int]],
        preempted: list[Request],
        drafts: dict[Request, list[int]],
    ) -> int:
        """Gives running requests what they lack, preempting where blocks run out."""
        running = self.running
        allocate_slots = self.kv_cache_manager.allocate_slots
        block_size = self.kv_cache_manager.block_size
        threshold = self.config.long_prefill_token_threshold
        speculates, lookahead = self._speculates, 0
        index = 0
        while index < len(running) and budget > 0:
            request = running[index]
            num_new = len(request.token_ids) - request.num_computed_tokens
            if speculates:
                num_new += len(request.spec_token_ids)
                if 0 < threshold < num_new:
                    num_new = threshold
                # Of a full context the last token is sampled and never computed.
                room = self.config.max_model_len - request.num_computed_tokens
                num_new = min(num_new, budget, room - 1)
                lookahead = min(self.config.num_lookahead_tokens, room - num_new)
            elif num_new == 1:
                # A token that neither begins nor fills a block needs nothing of the cache.
                offset = request.num_computed_tokens % block_size
                if 0 < offset < block_size - 1:
                    scheduled[request] = 1
                    budget -= 1
                    index += 1
                    continue
            else:
                if 0 < threshold < num_new:
                    num_new = threshold
                num_new = min(num_new, budget)

            new_blocks = allocate_slots(request, num_new, (), False, lookahead)
            while new_blocks is None:
                victim = self._preempt_one(preempted)
                if victim in scheduled:
                    # Under the priority policy the victim may have had its turn in this step.
                    budget += scheduled.pop(victim)
                    new_block_ids.pop(victim.request_id, None)
                    drafts.pop(victim, None)
                    index -= 1
                if victim is request:
                    return budget
                new_blocks = allocate_slots(request, num_new, (), False, lookahead)

            scheduled[request] = num_new
            if new_blocks:
                new_block_ids[request.request_id] = [block.block_id for block in new_blocks]
            if speculates and request.spec_token_ids:
                num_drafts = request.num_computed_tokens + num_new - request.num_tokens
                if num_drafts > 0:
                    drafts[request] = request.spec_token_ids[:num_drafts]
                request.spec_token_ids = []
            budget -= num_new
            index += 1
        return budget

    def _schedule_waiting(
        self,
        budget: int,
        scheduled: dict[Request, int],
        new_block_ids: dict[str, list[int]],
        new: list[Request],
        resumed: list[Request],
    ) -> int:
        """Admits waiting requests in order, until one does not fit."""
        manager = self.kv_cache_manager
        threshold = self.config.long_prefill_token_threshold
        while self.waiting and budget > 0 and len(self.running) < self.config.max_num_seqs:
            request = self.waiting.peek()
            computed_blocks = manager.get_computed_blocks(request)
            num_computed = len(computed_blocks) * manager.block_size
            num_new = request.num_tokens - num_computed
            if 0 < threshold < num_new:
                num_new = threshold
            num_new = min(num_new, budget)
            admitted = manager.allocate_slots(
                request, num_new, computed_blocks, full_sequence_must_fit=True
            )
            if admitted is None:
                break  # and nobody overtakes it

            self.waiting.pop()
            self.running.append(request)
            if request.status is RequestStatus.WAITING:
                request.num_cached_tokens = num_computed
                new.append(request)
            else:
                resumed.append(request)
            request.status = RequestStatus.RUNNING
            request.num_computed_tokens = num_computed
            scheduled[request] = num_new
            new_block_ids[request.request_id] = manager.get_block_ids(request.request_id)
            budget -= num_new
        return budget

    def _preempt_one(self, preempted: list[Request]) -> Request:
        """Sends a running request back to wait; returns it."""
        victim = self._take_victim()
        self.kv_cache_manager.free(victim)
        victim.status = RequestStatus.PREEMPTED
        victim.num_computed_tokens = 0
        victim.spec_token_ids = []
        victim.num_preemptions += 1
        self.num_preemptions += 1
        self.waiting.prepend(victim)
        preempted.append(victim)
        return victim

    def _take_victim(self) -> Request:
        """Takes the request that has to give way out of those that run."""
        if self.config.policy != "priority":
            return self.running.pop()
        victim = max(self.running, key=lambda r: (r.priority, r.arrival_time))
        self.running.remove(victim)
        return victim

    def update_from_output(
        self, scheduler_output: SchedulerOutput, model_output: ModelRunnerOutput
    ) -> list[EngineCoreOutput]:
        """Appends the sampled tokens, ends what has ended, and frees its blocks."""
        max_model_len = self.config.max_model_len
        logprobs, prompt_logprobs = model_output.logprobs, model_output.prompt_logprobs
        drafts = scheduler_output.scheduled_spec_decode_tokens
        outputs: list[EngineCoreOutput] = []
        any_stopped = False
        for request, token_ids in zip(
            scheduler_output.num_scheduled_tokens, model_output.sampled_token_ids, strict=True
        ):
            # A request aborted while the step ran takes nothing from it.
            if not token_ids or request.status is not _RUNNING:
                continue
            output = EngineCoreOutput(request, token_ids, None)
            if drafts and request in drafts:
                num_accepted = len(token_ids) - 1
                request.num_computed_tokens -= len(drafts[request]) - num_accepted
            for position, token_id in enumerate(token_ids, 1):
                if append_output_token(request, token_id, max_model_len):
                    del token_ids[position:]
                    output.finish_reason = FINISH_REASONS[request.status]
                    self._release(request)
                    any_stopped = True
                    break
            if logprobs is not None and request.request_id in logprobs:
                output.logprobs = logprobs[request.request_id][: len(token_ids)]
            if prompt_logprobs is not None:
                output.prompt_logprobs = prompt_logprobs.get(request.request_id)
            outputs.append(output)
        if any_stopped:
            self.running = [r for r in self.running if r.status is _RUNNING]
        return outputs

    def update_draft_token_ids(
        self, scheduler_output: SchedulerOutput, draft_token_ids: Sequence[list[int]]
    ) -> None:
        """Gives the requests of a step that still run the drafts that followed it."""
        most = self.config.num_speculative_tokens
        for request, token_ids in zip(
            scheduler_output.num_scheduled_tokens, draft_token_ids, strict=True
        ):
            if request.status is _RUNNING:
                assert len(token_ids) <= most, f"{len(token_ids)} drafts where {most} may be"
                request.spec_token_ids = token_ids

    def finish_requests(
        self, request_ids: Iterable[str], status: RequestStatus = RequestStatus.FINISHED_ABORTED
    ) -> list[Request]:
        """Ends requests from outside (an abort, a stop string); unknown ids are passed over.

        Returns:
            The requests that were ended by this call.
        """
        ended = []
        any_running = False
        for request_id in request_ids:
            request = self.requests.get(request_id)
            if request is None:
                continue
            if request.status is _RUNNING:
                any_running = True
            else:
                self.waiting.remove(request)
            request.status = status
            self._release(request)
            ended.append(request)
        if any_running:
            self.running = [r for r in self.running if r.status is _RUNNING]
        return ended

    def _release(self, request: Request) -> None:
        self.kv_cache_manager.free(request)
        del self.requests[request.request_id]
        self._finished_request_ids.append(request.request_id)

    @property
    def has_requests(self) -> bool:
        return bool(self.requests)

    @property
    def has_finished_request_ids(self) -> bool:
        """Whether the executor has yet to be told that requests ended."""
        return bool(self._finished_request_ids)

    def check_invariants(self) -> None:
        """Verifies what the module promises, between steps. For tests."""
        most_drafts = self.config.num_speculative_tokens
        running_ids = {r.request_id for r in self.running}
        waiting_ids = {r.request_id for r in self.waiting}
        assert len(running_ids) == len(self.running) <= self.config.max_num_seqs
        assert not running_ids & waiting_ids
        assert running_ids | waiting_ids == set(self.requests)
        assert len(waiting_ids) == len(self.waiting)
        for request in self.requests.values():
            assert not request.is_finished()
            assert 0 <= request.num_computed_tokens <= request.num_tokens + most_drafts
            assert len(request.spec_token_ids) <= most_drafts
            holds = bool(self.kv_cache_manager.get_block_ids(request.request_id))
            assert holds == (request.status is _RUNNING)
        most_ahead = most_drafts + self.config.num_lookahead_tokens
        self.kv_cache_manager.check_invariants(self.requests, most_ahead)
