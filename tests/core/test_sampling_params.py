"""Sampling parameters: what exists is valid; what is not says which parameter is wrong."""

from __future__ import annotations

import math
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from stand_ins import PROPERTY

from mini_vllm.core.sampling_params import MAX_LOGPROBS, RequestOutputKind, SamplingParams
from mini_vllm.errors import InvalidInputError

HUGE = 10**400
"""An integer that JSON can carry and no float can hold."""

REFUSED: list[tuple[str, Any]] = [
    ("n", 0),
    ("n", -1),
    ("n", 1.0),
    ("n", "1"),
    ("n", None),
    ("n", True),
    ("presence_penalty", -2.01),
    ("presence_penalty", 2.01),
    ("presence_penalty", "0"),
    ("presence_penalty", None),
    ("presence_penalty", False),
    ("presence_penalty", math.nan),
    ("presence_penalty", HUGE),
    ("frequency_penalty", -2.01),
    ("frequency_penalty", 2.01),
    ("frequency_penalty", math.inf),
    ("frequency_penalty", [1]),
    ("frequency_penalty", -HUGE),
    ("repetition_penalty", 0.0),
    ("repetition_penalty", -1.0),
    ("repetition_penalty", math.inf),
    ("repetition_penalty", HUGE),
    ("temperature", -0.01),
    ("temperature", math.nan),
    ("temperature", -math.inf),
    ("temperature", "hot"),
    ("temperature", True),
    ("temperature", HUGE),
    ("top_p", 0.0),
    ("top_p", 1.01),
    ("top_p", -0.5),
    ("top_p", HUGE),
    ("top_k", -2),
    ("top_k", 1.5),
    ("top_k", True),
    ("top_k", None),
    ("min_p", -0.01),
    ("min_p", 1.01),
    ("min_p", "0.1"),
    ("seed", 2**63),
    ("seed", -(2**63) - 1),
    ("seed", 1.0),
    ("seed", True),
    ("stop", 5),
    ("stop", ["ok", 5]),
    ("stop", ("a",)),
    ("stop", ""),
    ("stop", ["ok", ""]),
    ("stop_token_ids", 5),
    ("stop_token_ids", [-1]),
    ("stop_token_ids", ["5"]),
    ("stop_token_ids", [1.5]),
    ("max_tokens", 0),
    ("max_tokens", -5),
    ("max_tokens", 1.5),
    ("max_tokens", "16"),
    ("max_tokens", True),
    ("min_tokens", -1),
    ("min_tokens", 17),
    ("min_tokens", None),
    ("min_tokens", 1.0),
    ("logprobs", -1),
    ("logprobs", MAX_LOGPROBS + 1),
    ("logprobs", True),
    ("logprobs", 1.0),
    ("prompt_logprobs", -1),
    ("prompt_logprobs", MAX_LOGPROBS + 1),
    ("prompt_logprobs", "1"),
    ("logit_bias", [1, 2]),
    ("logit_bias", {"x": 1}),
    ("logit_bias", {-1: 1}),
    ("logit_bias", {5: 100.1}),
    ("logit_bias", {5: -101}),
    ("logit_bias", {5: math.nan}),
    ("logit_bias", {5: "much"}),
    ("logit_bias", {5: None}),
    ("logit_bias", {5: HUGE}),
    ("logit_bias", {math.inf: 1}),
    ("logit_bias", {None: 1}),
]


@pytest.mark.parametrize(("name", "value"), REFUSED, ids=lambda v: f"{v!r:.20}")
def test_what_cannot_be_used_is_refused_by_name(name: str, value: Any) -> None:
    with pytest.raises(InvalidInputError, match=name) as caught:
        SamplingParams(**{name: value})
    assert caught.value.param == name
    assert "\n" not in str(caught.value)


ACCEPTED: list[dict[str, Any]] = [
    {"n": 3},
    {"presence_penalty": -2},
    {"presence_penalty": 2.0},
    {"frequency_penalty": 2},
    {"repetition_penalty": 1e-3},
    {"temperature": 0},
    {"temperature": 5.5},
    {"top_p": 1},
    {"top_p": 1e-9},
    {"top_k": 0},
    {"top_k": 1},
    {"min_p": 0},
    {"min_p": 1.0},
    {"seed": -(2**63)},
    {"seed": 2**63 - 1},
    {"stop": []},
    {"stop_token_ids": [0, 5]},
    {"max_tokens": None, "min_tokens": 50},
    {"max_tokens": 5, "min_tokens": 5},
    {"logprobs": 0},
    {"logprobs": MAX_LOGPROBS},
    {"prompt_logprobs": 0},
    {"logit_bias": {}},
    {"logit_bias": {5: -100, 6: 100}},
]


@pytest.mark.parametrize("params", ACCEPTED, ids=repr)
def test_what_lies_on_the_border_is_taken(params: dict[str, Any]) -> None:
    taken = SamplingParams(**params)
    for name, value in params.items():
        assert getattr(taken, name) == value


ANYTHING = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.sampled_from([HUGE, -HUGE])
    | st.floats()
    | st.text(max_size=3)
    | st.lists(st.integers() | st.text(max_size=2), max_size=2)
    | st.dictionaries(st.integers() | st.floats() | st.text(max_size=2), st.floats(), max_size=2)
)


@PROPERTY
@given(st.sampled_from(sorted({name for name, _ in REFUSED})), ANYTHING)
def test_any_value_is_taken_or_refused_by_name(name: str, value: Any) -> None:
    try:
        taken = SamplingParams(**{name: value})
    except InvalidInputError as error:
        refused = error.param
    else:
        refused = None
        assert taken.clone() == taken
    assert refused in (None, name)


def test_several_sequences_need_chance() -> None:
    with pytest.raises(InvalidInputError, match="temperature is 0") as caught:
        SamplingParams(n=2, temperature=0)
    assert caught.value.param == "n"


def test_min_tokens_may_not_exceed_max_tokens() -> None:
    with pytest.raises(InvalidInputError, match="max_tokens=4, got 5") as caught:
        SamplingParams(max_tokens=4, min_tokens=5)
    assert caught.value.param == "min_tokens"


def test_stop_strings_need_text() -> None:
    with pytest.raises(InvalidInputError, match="detokenize") as caught:
        SamplingParams(stop="x", detokenize=False)
    assert caught.value.param == "stop"


def test_one_stop_string_is_a_list_of_one() -> None:
    assert SamplingParams(stop="x").stop_strings == ["x"]
    assert SamplingParams(stop=["x", "y"]).stop_strings == ["x", "y"]
    assert SamplingParams().stop_strings == []


@pytest.mark.parametrize("top_k", [-1, 0])
def test_two_ways_to_keep_all_tokens_are_one(top_k: int) -> None:
    assert SamplingParams(top_k=top_k).top_k == 0


def test_a_bias_with_token_ids_as_strings_is_openais_form_of_it() -> None:
    bias: dict[Any, Any] = {"5": 1, "6": -2.5}
    assert SamplingParams(logit_bias=bias).logit_bias == {5: 1.0, 6: -2.5}


@pytest.mark.parametrize(("temperature", "greedy"), [(0, True), (1e-6, True), (0.01, False)])
def test_a_temperature_of_practically_zero_is_greedy(temperature: float, greedy: bool) -> None:
    assert SamplingParams(temperature=temperature).greedy is greedy


def test_a_clone_is_checked_like_the_original() -> None:
    params = SamplingParams(stop="x", max_tokens=4)
    clone = params.clone(output_kind=RequestOutputKind.DELTA)
    assert clone.output_kind is RequestOutputKind.DELTA
    assert clone.stop_strings == ["x"]
    assert params.output_kind is RequestOutputKind.CUMULATIVE
    with pytest.raises(InvalidInputError, match="top_p"):
        params.clone(top_p=2)
