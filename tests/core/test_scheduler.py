"""The policy of a step, with pools of ten blocks: block 0 is the null block, nine are there to use.

Every engine here reads its slots back, so a wrong block is an error in whatever test meets it.
"""

from __future__ import annotations

from typing import Any

import pytest
from stand_ins import Engine, make_request, make_scheduler, tokens_by_id

from mini_vllm.core.request import Request, RequestStatus
from mini_vllm.core.scheduler import ModelRunnerOutput, Scheduler, SchedulerConfig
from mini_vllm.errors import InvalidInputError


def make_engine(num_blocks: int = 10, block_size: int = 4, **config: Any) -> Engine:
    return Engine(make_scheduler(num_blocks, block_size, **config))


# --- the token budget


def test_a_prompt_longer_than_the_budget_is_computed_in_chunks() -> None:
    engine = make_engine(max_num_batched_tokens=8)
    engine.add(make_request("r", 20, max_tokens=2))
    assert [tokens_by_id(output) for output in engine.run()] == [
        {"r": 8},
        {"r": 8},
        {"r": 4},
        {"r": 1},
    ]


def test_running_requests_come_before_waiting_ones_and_take_what_they_lack() -> None:
    engine = make_engine(max_num_batched_tokens=8)
    engine.add(make_request("old", 4))
    engine.step()
    engine.add(make_request("new", 12))
    assert list(tokens_by_id(engine.step()).items()) == [("old", 1), ("new", 7)]
    assert list(tokens_by_id(engine.step()).items()) == [("old", 1), ("new", 5)]


def test_nobody_is_admitted_when_the_budget_is_used_up() -> None:
    engine = make_engine(max_num_batched_tokens=8)
    engine.add(make_request("first", 8), make_request("second", 4))
    assert tokens_by_id(engine.step()) == {"first": 8}
    assert tokens_by_id(engine.step()) == {"first": 1, "second": 4}


def test_running_requests_beyond_the_budget_wait_for_the_next_step() -> None:
    engine = make_engine(max_num_batched_tokens=2)
    engine.add(*(make_request(f"r{i}", 1, max_tokens=3) for i in range(3)))
    assert tokens_by_id(engine.step()) == {"r0": 1, "r1": 1}
    assert tokens_by_id(engine.step()) == {"r0": 1, "r1": 1}
    assert engine.scheduler.requests["r2"].status is RequestStatus.WAITING


def test_a_threshold_leaves_room_beside_a_long_prompt() -> None:
    engine = make_engine(max_num_batched_tokens=12, long_prefill_token_threshold=5)
    engine.add(make_request("long", 16, max_tokens=1), make_request("short", 4, max_tokens=5))
    assert tokens_by_id(engine.step()) == {"long": 5, "short": 4}
    assert tokens_by_id(engine.step()) == {"long": 5, "short": 1}
    assert tokens_by_id(engine.step()) == {"long": 5, "short": 1}
    assert tokens_by_id(engine.step()) == {"long": 1, "short": 1}


def test_the_number_of_requests_in_a_step_is_limited() -> None:
    engine = make_engine(max_num_seqs=2)
    engine.add(*(make_request(f"r{i}", 2, max_tokens=2) for i in range(3)))
    steps = [tokens_by_id(output) for output in engine.run()]
    assert steps == [{"r0": 2, "r1": 2}, {"r0": 1, "r1": 1}, {"r2": 2}, {"r2": 1}]


# --- admission


def test_requests_are_admitted_in_the_order_in_which_they_were_added() -> None:
    engine = make_engine(max_num_seqs=1)
    engine.add(*(make_request(name, 2, max_tokens=1) for name in "cab"))
    assert [request.request_id for output in engine.run() for request in output.new] == [*"cab"]


def test_under_the_priority_policy_the_smallest_number_is_admitted_first() -> None:
    engine = make_engine(max_num_seqs=1, policy="priority")
    engine.add(
        make_request("late", 2, 1, priority=1, arrival_time=3),
        make_request("early", 2, 1, priority=1, arrival_time=2),
        make_request("urgent", 2, 1, priority=-1, arrival_time=4),
        make_request("b", 2, 1, priority=7, arrival_time=5),
        make_request("a", 2, 1, priority=7, arrival_time=5),
    )
    admitted = [request.request_id for output in engine.run() for request in output.new]
    assert admitted == ["urgent", "early", "late", "a", "b"]


def test_nobody_overtakes_a_request_that_does_not_fit() -> None:
    engine = make_engine()
    engine.add(make_request("holder", 20, max_tokens=4))
    engine.step()
    engine.add(make_request("large", 24), make_request("small", 1))
    assert tokens_by_id(engine.step()) == {"holder": 1}


def test_a_request_is_admitted_only_if_its_whole_prompt_fits_now() -> None:
    """Its first chunk alone would fit, and would only be thrown away later."""
    engine = make_engine(max_num_batched_tokens=8)
    engine.add(make_request("holder", 8, max_tokens=3))
    engine.step()
    engine.add(make_request("large", 32))
    assert tokens_by_id(engine.step()) == {"holder": 1}
    assert tokens_by_id(engine.step()) == {"holder": 1}
    assert tokens_by_id(engine.step()) == {"large": 8}


def test_the_whole_prompt_counts_less_the_prefix_that_others_hold() -> None:
    engine = make_engine()
    engine.add(make_request("holder", range(20), max_tokens=4))
    engine.step()
    engine.add(make_request("same start", range(28)))
    assert tokens_by_id(engine.step()) == {"holder": 1, "same start": 8}


def test_the_output_gives_new_requests_their_whole_table_and_others_what_grew() -> None:
    engine = make_engine()
    engine.add(make_request("first", range(8), max_tokens=8))
    assert engine.step().new_block_ids == {"first": [1, 2]}
    engine.add(make_request("second", range(9)))
    output = engine.step()
    assert output.new_block_ids == {"first": [3], "second": [1, 2, 4]}
    assert [request.request_id for request in output.new] == ["second"]
    assert engine.step().new_block_ids == {}


def test_a_prefix_from_the_cache_is_not_scheduled_again() -> None:
    engine = make_engine()
    engine.add(make_request("first", range(10), max_tokens=1))
    engine.run()
    second = make_request("second", range(10))
    engine.add(second)
    assert tokens_by_id(engine.step()) == {"second": 2}
    assert second.num_cached_tokens == 8


def test_requests_of_the_same_step_share_what_the_first_of_them_fills() -> None:
    engine = make_engine()
    engine.add(make_request("first", range(10)), make_request("second", range(10)))
    assert tokens_by_id(engine.step()) == {"first": 10, "second": 2}


# --- preemption


def thrashing(policy: str, priorities: tuple[int, int, int]) -> tuple[Engine, list[Request]]:
    """Three requests that fill the nine blocks to the last slot; the next step lacks three."""
    engine = make_engine(policy=policy)
    requests = [
        make_request(f"r{i}", 12, max_tokens=6, arrival_time=i, priority=priority)
        for i, priority in enumerate(priorities)
    ]
    engine.add(*requests)
    assert len(engine.step().new) == 3
    assert engine.num_free_blocks == 0
    return engine, requests


def test_first_come_first_served_preempts_the_last_one_admitted() -> None:
    engine, (first, second, third) = thrashing("fcfs", (0, 0, 0))
    output = engine.step()
    assert output.preempted == [third]
    assert tokens_by_id(output) == {"r0": 1, "r1": 1}
    assert third.status is RequestStatus.PREEMPTED
    assert (third.num_computed_tokens, third.num_preemptions) == (0, 1)
    assert third.num_tokens == 13, "what was generated is kept"
    assert (first.num_preemptions, second.num_preemptions) == (0, 0)
    assert engine.scheduler.num_preemptions == 1


def test_the_priority_policy_preempts_the_least_important() -> None:
    engine, (_, second, _) = thrashing("priority", (0, 2, 1))
    output = engine.step()
    assert output.preempted == [second]
    assert tokens_by_id(output) == {"r0": 1, "r2": 1}


def test_of_equally_important_requests_the_latest_is_preempted() -> None:
    engine, (_, _, third) = thrashing("priority", (1, 1, 1))
    assert engine.step().preempted == [third]


def victim_after_its_turn() -> Engine:
    """Seven blocks; in the next step "long" fills its fifth and sixth, and then "urgent", which
    is more important and comes after it, lacks one."""
    engine = make_engine(num_blocks=8, policy="priority", long_prefill_token_threshold=8)
    engine.add(make_request("long", 24, max_tokens=2, priority=1))
    assert tokens_by_id(engine.step()) == {"long": 8}
    engine.add(make_request("urgent", 4, max_tokens=2))
    assert tokens_by_id(engine.step()) == {"long": 8, "urgent": 4}
    return engine


def test_a_victim_that_had_its_turn_in_this_step_gives_it_back() -> None:
    engine = victim_after_its_turn()
    output = engine.step()
    assert [request.request_id for request in output.preempted] == ["long"]
    assert tokens_by_id(output) == {"urgent": 1}
    assert output.total_num_scheduled_tokens == 1
    assert list(output.new_block_ids) == ["urgent"]


def test_what_a_victim_would_have_computed_in_this_step_is_not_found_later() -> None:
    """Its turn filled two blocks, which were remembered at once and then never computed.

    A deliberate difference: in vLLM v0.22.1 the victim finds the first of them when it comes
    back, and is given 4 tokens to compute instead of 8.
    """
    engine = victim_after_its_turn()
    engine.step()
    assert [tokens_by_id(output) for output in engine.run()] == [{"long": 8}, {"long": 1}]


def test_a_request_that_is_itself_the_victim_leaves_the_step_to_the_next() -> None:
    """Such a step may be empty, and yet it is not the end of all things."""
    engine = make_engine(policy="priority")
    engine.add(first := make_request("first", 11, max_tokens=6, priority=5))
    engine.step()
    engine.add(make_request("a", 12, max_tokens=3), make_request("b", 12, max_tokens=3))
    assert tokens_by_id(engine.step()) == {"first": 1, "a": 12, "b": 12}
    output = engine.step()
    assert output.preempted == [first]
    assert tokens_by_id(output) == {}
    assert tokens_by_id(engine.step()) == {"a": 1, "b": 1}
    engine.run()
    assert first.num_output_tokens == 6


def test_nobody_is_admitted_in_a_step_that_preempts() -> None:
    engine, _ = thrashing("fcfs", (0, 0, 0))
    engine.add(make_request("tiny", 1))
    output = engine.step()
    assert output.preempted
    assert output.new == []
    assert engine.num_free_blocks > 0


def test_a_preempted_request_comes_back_before_those_that_never_ran() -> None:
    engine, (_, _, third) = thrashing("fcfs", (0, 0, 0))
    engine.add(make_request("new", 1))
    engine.step()
    engine.finish("r0")
    output = engine.step()
    assert output.resumed == [third]
    assert list(tokens_by_id(output)) == ["r1", "r2", "new"]


def test_several_preempted_requests_come_back_in_the_order_of_their_admission() -> None:
    engine = make_engine(num_blocks=6, block_size=2)
    requests = [make_request(f"r{i}", 2, max_tokens=8) for i in range(4)]
    engine.add(*requests)
    back = [request for output in engine.run() for request in output.resumed]
    assert len({request.request_id for request in back}) >= 2
    assert back == sorted(back, key=lambda request: request.request_id)


def test_a_resumed_request_finds_its_own_blocks_if_nobody_took_them() -> None:
    engine, (_, _, third) = thrashing("fcfs", (0, 0, 0))
    engine.step()
    engine.finish("r0", "r1")
    output = engine.step()
    assert output.resumed == [third]
    assert output.new == []
    # Of its three blocks the last one went to the others, so the first two are found.
    assert tokens_by_id(output) == {"r2": 13 - 4}
    assert output.new_block_ids["r2"] == engine.block_ids(third)


def test_without_caching_a_resumed_request_computes_everything_anew() -> None:
    engine = make_engine(enable_prefix_caching=False)
    engine.add(*(make_request(f"r{i}", 12, max_tokens=6) for i in range(3)))
    engine.step()
    engine.step()
    engine.finish("r0", "r1")
    assert tokens_by_id(engine.step()) == {"r2": 13}


def test_cached_tokens_are_those_of_the_first_admission() -> None:
    engine, (_, _, third) = thrashing("fcfs", (0, 0, 0))
    engine.run()
    assert third.num_preemptions > 0
    assert third.num_cached_tokens == 0


@pytest.mark.parametrize("policy", ["fcfs", "priority"])
def test_everyone_gets_all_tokens_however_often_preempted(policy: str) -> None:
    engine = make_engine(num_blocks=7, policy=policy)
    requests = [
        make_request(f"r{i}", 3 + i, max_tokens=10, arrival_time=i, priority=-i % 3)
        for i in range(6)
    ]
    engine.add(*requests)
    engine.run()
    assert engine.scheduler.num_preemptions > 0
    assert [request.num_output_tokens for request in requests] == [10] * 6
    assert engine.num_free_blocks == 6


# --- abort


def test_a_waiting_request_can_be_aborted() -> None:
    engine = make_engine(max_num_seqs=1)
    engine.add(make_request("running", 4), waiting := make_request("waiting", 4))
    engine.step()
    assert engine.finish("waiting") == [waiting]
    assert waiting.status is RequestStatus.FINISHED_ABORTED
    assert list(engine.scheduler.requests) == ["running"]


def test_a_running_request_can_be_aborted_and_its_blocks_are_free_at_once() -> None:
    engine = make_engine()
    engine.add(make_request("r", 20))
    engine.step()
    assert engine.num_free_blocks == 4
    engine.finish("r")
    assert engine.num_free_blocks == 9
    assert not engine.scheduler.has_requests


def test_a_preempted_request_can_be_aborted() -> None:
    engine, (_, _, third) = thrashing("fcfs", (0, 0, 0))
    engine.step()
    assert third.status is RequestStatus.PREEMPTED
    assert engine.finish("r2") == [third]
    engine.run()
    assert third.num_output_tokens == 1


def test_aborting_a_stranger_or_a_finished_request_does_nothing() -> None:
    engine = make_engine()
    engine.add(request := make_request("r", 4, max_tokens=1))
    engine.run()
    assert engine.finish("stranger", "r") == []
    assert request.status is RequestStatus.FINISHED_LENGTH_CAPPED


def test_several_requests_can_be_aborted_at_once_in_whatever_state() -> None:
    engine = make_engine(max_num_seqs=2)
    engine.add(*(make_request(f"r{i}", 4) for i in range(4)))
    engine.step()
    ended = engine.finish("r3", "r0", "stranger", "r0")
    assert [request.request_id for request in ended] == ["r3", "r0"]
    assert tokens_by_id(engine.step()) == {"r1": 1, "r2": 4}


def test_a_request_aborted_while_its_step_is_computed_takes_nothing_from_it() -> None:
    scheduler = make_scheduler()
    aborted, other = make_request("aborted", 4), make_request("other", 4)
    scheduler.add_request(aborted)
    scheduler.add_request(other)
    output = scheduler.schedule()
    scheduler.finish_requests(["aborted"])
    results = scheduler.update_from_output(output, ModelRunnerOutput([[5], [6]]))
    assert [(r.request, r.new_token_ids) for r in results] == [(other, [6])]
    assert aborted.num_output_tokens == 0
    scheduler.check_invariants()


def test_a_request_can_be_ended_as_stopped_from_outside() -> None:
    scheduler = make_scheduler()
    scheduler.add_request(request := make_request("r", 4))
    scheduler.finish_requests(["r"], RequestStatus.FINISHED_STOPPED)
    assert request.status is RequestStatus.FINISHED_STOPPED


def test_the_executor_is_told_once_who_ended() -> None:
    engine = make_engine()
    engine.add(make_request("stops", 4, max_tokens=1), make_request("aborted", 4))
    assert engine.step().finished_request_ids == []
    engine.finish("aborted")
    assert engine.scheduler.has_finished_request_ids
    assert engine.step().finished_request_ids == ["stops", "aborted"]
    assert engine.step().finished_request_ids == []
    assert not engine.scheduler.has_finished_request_ids


def test_an_id_can_be_used_again_when_its_request_has_ended() -> None:
    engine = make_engine(policy="priority")
    engine.add(make_request("r", 4, priority=1))
    engine.finish("r")
    engine.add(again := make_request("r", 4, max_tokens=2))
    engine.run()
    assert again.num_output_tokens == 2


# --- what comes of a step


def test_a_request_without_a_sampled_token_has_no_output() -> None:
    engine = make_engine(max_num_batched_tokens=6)
    engine.add(make_request("r", 10, max_tokens=2))
    engine.step()
    assert engine.last_outputs == []
    engine.step()
    assert [output.finish_reason for output in engine.last_outputs] == [None]
    engine.step()
    assert [output.finish_reason for output in engine.last_outputs] == ["length"]


def test_tokens_sampled_after_the_end_are_dropped() -> None:
    scheduler = make_scheduler()
    scheduler.add_request(request := make_request("r", 4, stop_token_ids=[7]))
    output = scheduler.schedule()
    (result,) = scheduler.update_from_output(output, ModelRunnerOutput([[5, 7, 6]]))
    assert result.new_token_ids == [5, 7]
    assert result.finish_reason == "stop"
    assert request.output_token_ids == [5, 7]
    assert not scheduler.has_requests


def test_logprobs_pass_through_to_their_request() -> None:
    scheduler = make_scheduler()
    for name in ("a", "b"):
        scheduler.add_request(make_request(name, 4))
    output = scheduler.schedule()
    results = scheduler.update_from_output(
        output, ModelRunnerOutput([[5], [6]], {"b": ["its logprobs"]}, {"a": "its prompt's"})
    )
    assert [(r.logprobs, r.prompt_logprobs) for r in results] == [
        (None, "its prompt's"),
        (["its logprobs"], None),
    ]


def test_a_request_stops_at_the_context() -> None:
    engine = make_engine(max_model_len=8)
    engine.add(request := make_request("r", 5, max_tokens=100))
    engine.run()
    assert request.num_tokens == 8
    assert request.status is RequestStatus.FINISHED_LENGTH_CAPPED


def test_min_tokens_do_not_lead_beyond_the_context() -> None:
    engine = make_engine(max_model_len=8)
    engine.add(request := make_request("r", 5, max_tokens=20, min_tokens=20))
    engine.run()
    assert request.num_tokens == 8


# --- what is refused


def test_an_id_in_use_is_refused() -> None:
    scheduler = make_scheduler()
    scheduler.add_request(make_request("r", 4))
    with pytest.raises(InvalidInputError, match="'r' is in use") as caught:
        scheduler.add_request(make_request("r", 4))
    assert caught.value.param == "request_id"


def test_a_prompt_that_leaves_no_room_in_the_context_is_refused() -> None:
    scheduler = make_scheduler(max_model_len=8)
    with pytest.raises(InvalidInputError, match=r"8 tokens.* context of 8") as caught:
        scheduler.add_request(make_request("r", 8))
    assert caught.value.param == "prompt"
    scheduler.add_request(make_request("r", 7))


def test_a_prompt_larger_than_the_whole_cache_is_refused() -> None:
    scheduler = make_scheduler(num_blocks=10, block_size=4)
    with pytest.raises(InvalidInputError, match=r"37 tokens.* holds 36") as caught:
        scheduler.add_request(make_request("r", 37))
    assert caught.value.param == "prompt"
    scheduler.add_request(make_request("r", 36))


def test_a_refused_request_leaves_no_trace() -> None:
    scheduler = make_scheduler(max_model_len=8)
    with pytest.raises(InvalidInputError):
        scheduler.add_request(make_request("r", 8))
    assert not scheduler.has_requests
    assert not scheduler.waiting
    scheduler.check_invariants()


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("num_blocks", 1),
        ("num_blocks", 2.0),
        ("block_size", 0),
        ("max_num_seqs", 0),
        ("max_num_batched_tokens", 0),
        ("max_num_batched_tokens", "many"),
        ("max_model_len", 1),
        ("max_model_len", True),
        ("long_prefill_token_threshold", -1),
        ("enable_prefix_caching", "no"),
        ("enable_prefix_caching", None),
        ("policy", "fair"),
        ("policy", None),
    ],
)
def test_a_setting_that_cannot_be_used_is_refused_by_name(name: str, value: Any) -> None:
    with pytest.raises(InvalidInputError, match=name) as caught:
        SchedulerConfig(**{"num_blocks": 10, name: value})
    assert caught.value.param == name


def test_the_smallest_settings_work() -> None:
    engine = Engine(
        Scheduler(
            SchedulerConfig(
                num_blocks=2,
                block_size=1,
                max_num_seqs=1,
                max_num_batched_tokens=1,
                max_model_len=2,
            )
        )
    )
    engine.add(request := make_request("r", 1))
    engine.run()
    assert request.num_output_tokens == 1


def test_drafts_are_tokens_that_a_request_lacks() -> None:
    engine = Engine(make_scheduler(num_speculative_tokens=3, max_num_batched_tokens=6))
    first, second = make_request("a", 2, 9), make_request("b", 1, 9)
    engine.add(first, second)
    engine.step()
    first.spec_token_ids, second.spec_token_ids = [1, 2, 3], [4, 5, 6]
    output = engine.scheduler.schedule()
    assert tokens_by_id(output) == {"a": 4, "b": 2}
    assert output.scheduled_spec_decode_tokens == {first: [1, 2, 3], second: [4]}
    assert first.spec_token_ids == second.spec_token_ids == []


def test_rejected_drafts_are_no_longer_computed() -> None:
    engine = Engine(make_scheduler(num_speculative_tokens=3))
    request = make_request("a", 2, 9)
    engine.add(request)
    engine.step()
    request.spec_token_ids = [7, 8, 9]
    output = engine.scheduler.schedule()
    assert request.num_computed_tokens == 6
    engine.scheduler.update_from_output(output, ModelRunnerOutput([[7, 5]]))
    assert request.output_token_ids[1:] == [7, 5]
    assert (request.num_computed_tokens, request.num_tokens) == (4, 5)


def test_a_block_that_drafts_fill_is_found_only_once_they_are_accepted() -> None:
    engine = Engine(make_scheduler(block_size=4, num_speculative_tokens=3))
    request = make_request("a", 3, 9)
    engine.add(request)
    engine.step()
    request.spec_token_ids = [7, 8]
    output = engine.scheduler.schedule()  # 3 prompt tokens, the sampled one and two drafts
    manager = engine.scheduler.kv_cache_manager
    [full, rest] = engine.block_ids(request)
    assert manager.block_pool.blocks[full].block_hash is not None
    engine.scheduler.update_from_output(output, ModelRunnerOutput([[7, 8, 9]]))
    request.spec_token_ids = [1, 1, 1]
    engine.scheduler.schedule()  # 7 tokens, and the drafts would fill the second block
    assert manager.block_pool.blocks[rest].block_hash is None


def test_drafts_end_before_the_context_does() -> None:
    engine = Engine(make_scheduler(max_model_len=8, num_speculative_tokens=3))
    request = make_request("a", 5, 9)
    engine.add(request)
    engine.step()
    request.spec_token_ids = [1, 2, 3]
    output = engine.scheduler.schedule()
    assert tokens_by_id(output) == {"a": 2}, "the eighth token is sampled, never computed"


def test_a_victim_loses_its_drafts() -> None:
    engine = Engine(make_scheduler(num_blocks=4, block_size=2, num_speculative_tokens=3))
    first, second = make_request("a", 2, 9), make_request("b", 2, 9)
    engine.add(first, second)
    engine.step()
    first.spec_token_ids, second.spec_token_ids = [1, 2, 3], [4, 5, 6]
    output = engine.scheduler.schedule()
    assert output.preempted == [second]
    assert second.spec_token_ids == []


def test_a_draft_models_slots_are_there_before_it_needs_them() -> None:
    engine = Engine(make_scheduler(block_size=2, num_speculative_tokens=3, num_lookahead_tokens=3))
    request = make_request("a", 2, 9)
    engine.add(request)
    engine.step()
    assert len(engine.block_ids(request)) == 1, "none for who is admitted"
    request.spec_token_ids = []
    engine.scheduler.schedule()
    assert len(engine.block_ids(request)) == 3, "3 tokens and 3 ahead"


def test_a_draft_model_takes_a_token_of_the_budget_for_each_sequence() -> None:
    settings = {"num_speculative_tokens": 2, "num_lookahead_tokens": 2, "max_num_seqs": 4}
    engine = Engine(make_scheduler(max_num_batched_tokens=10, **settings))
    engine.add(make_request("a", 9))
    assert tokens_by_id(engine.step()) == {"a": 6}
    with pytest.raises(InvalidInputError, match="max_num_batched_tokens=4 leaves nothing"):
        make_scheduler(max_num_batched_tokens=4, **settings)
