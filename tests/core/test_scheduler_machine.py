"""Any history of arrivals, aborts and steps: what the scheduler promises holds throughout.

Block tables are followed from the outputs alone, and every slot that is read must hold what was
computed for exactly that prefix (`SlotMemory`).
"""

from __future__ import annotations

from typing import Any

from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
)
from stand_ins import MACHINE, Engine, make_request

from mini_vllm.core.request import Request, RequestStatus
from mini_vllm.core.scheduler import Scheduler, SchedulerConfig, SchedulerOutput


def a_config(drafts: int, ahead: bool, **config: Any) -> SchedulerConfig:
    """With `drafts` a step, and slots for as many ahead if so.

    A draft model has its own part of the budget. Blocks are added for drafts and slots ahead: a
    request that fits without them but not with them would preempt itself for ever (an engine's
    context limit sees to it that every request fits).
    """
    lookahead = drafts if ahead else 0
    config["num_blocks"] += -(-(drafts + lookahead) // config["block_size"])
    config["max_num_batched_tokens"] += config["max_num_seqs"] if lookahead else 0
    return SchedulerConfig(num_speculative_tokens=drafts, num_lookahead_tokens=lookahead, **config)


CONFIGS = st.builds(
    a_config,
    drafts=st.sampled_from([0, 0, 1, 3]),
    ahead=st.booleans(),
    num_blocks=st.integers(4, 12),
    block_size=st.integers(1, 4),
    max_num_seqs=st.integers(1, 5),
    max_num_batched_tokens=st.integers(1, 20),
    max_model_len=st.sampled_from([6, 20, 1000]),
    enable_prefix_caching=st.sampled_from([True, True, False]),
    long_prefill_token_threshold=st.integers(0, 4),
    policy=st.sampled_from(["fcfs", "priority"]),
)


class SchedulerMachine(RuleBasedStateMachine):
    @initialize(config=CONFIGS)
    def build(self, config: SchedulerConfig) -> None:
        self.config = config
        self.engine = Engine(Scheduler(config))
        self.scheduler = self.engine.scheduler
        self.everyone: dict[str, Request] = {}
        self.expected_outputs: dict[str, int] = {}
        self.ended_from_outside: set[str] = set()
        self.never_admitted: list[Request] = []

    def _longest(self) -> int:
        """Most tokens a request may ever compute here."""
        return min(self._room(), self.config.max_model_len - 1)

    def _room(self) -> int:
        """Slots of the pool, less those that drafts and a draft model may take of them."""
        ahead = self.config.num_speculative_tokens + self.config.num_lookahead_tokens
        return (self.config.num_blocks - 1) * self.config.block_size - ahead

    @rule(
        data=st.data(),
        max_tokens=st.integers(1, 12),
        priority=st.integers(0, 3),
        salt=st.sampled_from([None, None, "salt"]),
        prompt_logprobs=st.sampled_from([None, None, 0]),
    )
    def a_request_arrives(
        self,
        data: st.DataObject,
        max_tokens: int,
        priority: int,
        salt: str | None,
        prompt_logprobs: int | None,
    ) -> None:
        prompt = self._draw_prompt(data)
        # All tokens but the last one sampled need a slot; the context ends a request by itself.
        room_in_pool = self._room() + 1 - len(prompt)
        room_in_context = self.config.max_model_len - len(prompt)
        if room_in_context > room_in_pool:
            max_tokens = min(max_tokens, room_in_pool)
        request = make_request(
            f"r{len(self.everyone)}",
            prompt,
            max_tokens,
            arrival_time=len(self.everyone),
            priority=priority,
            cache_salt=salt,
            prompt_logprobs=prompt_logprobs,
        )
        self.engine.add(request)
        self.everyone[request.request_id] = request
        self.expected_outputs[request.request_id] = min(max_tokens, room_in_context)
        self.never_admitted.append(request)

    def _draw_prompt(self, data: st.DataObject) -> list[int]:
        """New tokens of an alphabet of two, or what someone else holds so far and a bit more."""
        tokens = data.draw(st.lists(st.integers(0, 1), min_size=1, max_size=16))
        if data.draw(st.booleans()) and self.everyone:
            other = self.everyone[data.draw(st.sampled_from(sorted(self.everyone)))]
            tokens = other.token_ids + tokens[: data.draw(st.integers(0, 3))]
        return tokens[: self._longest()]

    @rule(steps=st.integers(1, 4))
    def steps_are_taken(self, steps: int) -> None:
        for _ in range(steps):
            self._step()

    @precondition(lambda self: self.everyone)
    @rule(data=st.data(), stopped=st.booleans())
    def someone_is_ended_from_outside(self, data: st.DataObject, stopped: bool) -> None:
        ids = data.draw(st.lists(st.sampled_from([*sorted(self.everyone), "stranger"]), max_size=2))
        status = RequestStatus.FINISHED_STOPPED if stopped else RequestStatus.FINISHED_ABORTED
        unfinished = [i for i in dict.fromkeys(ids) if i in self.scheduler.requests]
        ended = self.scheduler.finish_requests(ids, status)
        assert [request.request_id for request in ended] == unfinished
        assert all(request.status is status for request in ended)
        self.ended_from_outside.update(unfinished)
        self.never_admitted = [r for r in self.never_admitted if not r.is_finished()]

    @invariant()
    def what_the_module_promises_holds(self) -> None:
        if hasattr(self, "scheduler"):
            self.scheduler.check_invariants()

    def _step(self) -> None:
        waiting_before = [r for r in self.everyone.values() if self._waits(r)]
        running_before = list(self.scheduler.running)
        output = self.engine.step()
        self._check_limits(output)
        self._check_admission(output, waiting_before)
        self._check_preemption(output, running_before)

    def _waits(self, request: Request) -> bool:
        return request.status in (RequestStatus.WAITING, RequestStatus.PREEMPTED)

    def _check_limits(self, output: SchedulerOutput) -> None:
        config, tokens = self.config, output.num_scheduled_tokens
        assert all(n >= 1 for n in tokens.values())
        assert output.total_num_scheduled_tokens == sum(tokens.values())
        assert sum(tokens.values()) <= config.max_num_scheduled_tokens
        for request, drafts in output.scheduled_spec_decode_tokens.items():
            assert 1 <= len(drafts) <= min(tokens[request] - 1, config.num_speculative_tokens)
        assert len(tokens) <= config.max_num_seqs
        if config.long_prefill_token_threshold:
            assert all(n <= config.long_prefill_token_threshold for n in tokens.values())

    def _check_admission(self, output: SchedulerOutput, waiting_before: list[Request]) -> None:
        admitted = [*output.new, *output.resumed]
        scheduled = list(output.num_scheduled_tokens)
        assert not (output.preempted and admitted), "admitted in a step that preempts"
        assert sorted(r.request_id for r in scheduled[len(scheduled) - len(admitted) :]) == sorted(
            r.request_id for r in admitted
        ), "admitted requests come after the running ones"
        if self.config.policy == "priority":
            # The most important ones are admitted: nobody of them waits behind another.
            order = sorted(waiting_before, key=lambda r: (r.priority, r.arrival_time))
            assert scheduled[len(scheduled) - len(admitted) :] == order[: len(admitted)]
        else:
            assert output.new == self.never_admitted[: len(output.new)]
        self.never_admitted = [r for r in self.never_admitted if r not in output.new]

    def _check_preemption(self, output: SchedulerOutput, running_before: list[Request]) -> None:
        victims = output.preempted
        assert not set(victims) & set(output.num_scheduled_tokens)
        if self.config.policy == "priority":
            by_importance = sorted(running_before, key=lambda r: (-r.priority, -r.arrival_time))
            assert victims == by_importance[: len(victims)]
        else:
            assert victims == running_before[::-1][: len(victims)]

    def teardown(self) -> None:
        if not hasattr(self, "scheduler"):
            return
        for _ in range(10_000):
            if not self.scheduler.has_requests:
                break
            self._step()
        assert not self.scheduler.has_requests, "someone never finishes"
        for request_id, request in self.everyone.items():
            if request_id not in self.ended_from_outside:
                assert request.num_output_tokens == self.expected_outputs[request_id]
                assert request.status is RequestStatus.FINISHED_LENGTH_CAPPED
        assert self.engine.num_free_blocks == self.config.num_blocks - 1, "a block was leaked"
        assert self.scheduler.kv_cache_manager.reset_prefix_cache()


TestScheduler = SchedulerMachine.TestCase
TestScheduler.settings = MACHINE
