"""A request's two counters, and when it ends."""

from __future__ import annotations

import pytest
from stand_ins import make_request

from mini_vllm.core.request import FINISH_REASONS, RequestStatus, append_output_token
from mini_vllm.errors import InvalidInputError

EOS, STOP, PLAIN = 2, 7, 5
CONTEXT = 100


def test_prompt_and_output_are_one_sequence() -> None:
    request = make_request("r", [1, 2, 3])
    assert (request.num_tokens, request.num_prompt_tokens, request.num_output_tokens) == (3, 3, 0)
    append_output_token(request, PLAIN, CONTEXT)
    assert (request.num_tokens, request.num_prompt_tokens, request.num_output_tokens) == (4, 3, 1)
    assert request.output_token_ids == [PLAIN]
    assert request.token_ids == [1, 2, 3, PLAIN]


def test_the_prompt_is_copied() -> None:
    prompt = [1, 2, 3]
    request = make_request("r", prompt)
    append_output_token(request, PLAIN, CONTEXT)
    assert prompt == [1, 2, 3]


def test_an_empty_prompt_is_refused() -> None:
    with pytest.raises(InvalidInputError, match="empty") as caught:
        make_request("r", [])
    assert caught.value.param == "prompt"


def test_it_ends_at_max_tokens() -> None:
    request = make_request("r", 3, max_tokens=2)
    assert not append_output_token(request, PLAIN, CONTEXT)
    assert not request.is_finished()
    assert append_output_token(request, PLAIN, CONTEXT)
    assert request.status is RequestStatus.FINISHED_LENGTH_CAPPED
    assert FINISH_REASONS[request.status] == "length"


def test_it_ends_at_the_context() -> None:
    request = make_request("r", 3, max_tokens=None)
    assert not append_output_token(request, PLAIN, max_model_len=5)
    assert append_output_token(request, PLAIN, max_model_len=5)
    assert request.status is RequestStatus.FINISHED_LENGTH_CAPPED
    assert request.num_tokens == 5


def test_it_ends_at_end_of_sequence_without_a_stop_reason() -> None:
    request = make_request("r", 3, eos_token_ids=(EOS,))
    assert append_output_token(request, EOS, CONTEXT)
    assert request.status is RequestStatus.FINISHED_STOPPED
    assert FINISH_REASONS[request.status] == "stop"
    assert request.stop_reason is None
    assert request.output_token_ids == [EOS]


def test_any_of_several_end_of_sequence_tokens_ends_it() -> None:
    request = make_request("r", 3, eos_token_ids=(EOS, 9))
    assert append_output_token(request, 9, CONTEXT)
    assert request.stop_reason is None


def test_it_ends_at_a_stop_token_which_is_the_stop_reason() -> None:
    request = make_request("r", 3, eos_token_ids=(EOS,), stop_token_ids=[STOP])
    assert append_output_token(request, STOP, CONTEXT)
    assert request.status is RequestStatus.FINISHED_STOPPED
    assert request.stop_reason == STOP


def test_end_of_sequence_can_be_ignored_and_stop_tokens_not() -> None:
    request = make_request("r", 3, eos_token_ids=(EOS,), stop_token_ids=[STOP], ignore_eos=True)
    assert not append_output_token(request, EOS, CONTEXT)
    assert append_output_token(request, STOP, CONTEXT)
    assert request.stop_reason == STOP


def test_an_ignored_end_of_sequence_token_may_be_a_stop_token_again() -> None:
    request = make_request("r", 3, eos_token_ids=(EOS,), stop_token_ids=[EOS], ignore_eos=True)
    assert append_output_token(request, EOS, CONTEXT)
    assert request.stop_reason == EOS


@pytest.mark.parametrize("token_id", [EOS, STOP])
def test_nothing_sampled_ends_it_before_min_tokens(token_id: int) -> None:
    request = make_request("r", 3, min_tokens=2, eos_token_ids=(EOS,), stop_token_ids=[STOP])
    assert not append_output_token(request, token_id, CONTEXT)
    assert append_output_token(request, token_id, CONTEXT)
    assert request.status is RequestStatus.FINISHED_STOPPED


def test_the_context_ends_it_even_before_min_tokens() -> None:
    request = make_request("r", 3, max_tokens=10, min_tokens=10)
    assert not append_output_token(request, PLAIN, max_model_len=5)
    assert append_output_token(request, PLAIN, max_model_len=5)
    assert request.status is RequestStatus.FINISHED_LENGTH_CAPPED


def test_a_stop_token_in_the_last_place_is_a_stop() -> None:
    request = make_request("r", 3, max_tokens=1, stop_token_ids=[STOP])
    assert append_output_token(request, STOP, CONTEXT)
    assert request.status is RequestStatus.FINISHED_STOPPED


def test_every_end_has_a_reason_and_only_ends_have() -> None:
    for status in RequestStatus:
        request = make_request("r", 1)
        request.status = status
        assert request.is_finished() == (status in FINISH_REASONS)


def test_its_representation_shows_the_two_counters() -> None:
    request = make_request("r", 3)
    request.num_computed_tokens = 2
    assert repr(request) == "Request('r', WAITING, 2/3 computed)"
