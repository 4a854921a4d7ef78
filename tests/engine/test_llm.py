"""`LLM` as its users know it: names and meanings are vLLM's."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from mini_vllm import LLM, SamplingParams
from mini_vllm.engine.stats import StepStats
from mini_vllm.errors import InvalidInputError, ModelLoadError

GREEDY = SamplingParams(temperature=0, max_tokens=24, ignore_eos=True)


@pytest.fixture
def llm(tiny_llm: LLM) -> Iterator[LLM]:
    """The shared engine, starting without cached prefixes; nothing may be left behind."""
    assert tiny_llm.reset_prefix_cache()
    yield tiny_llm
    assert not tiny_llm.engine.has_work
    assert tiny_llm.engine.num_unfinished_requests == 0
    tiny_llm.engine.core.scheduler.check_invariants()
    assert tiny_llm.engine.core.scheduler.kv_cache_manager.usage == 0


def text_of(llm: LLM, prompt: str, **options: object) -> str:
    params = GREEDY.clone(**options)
    return llm.generate(prompt, params)[0].outputs[0].text


def test_results_are_in_the_order_of_the_prompts(llm: LLM) -> None:
    prompts = [f"prompt {i} " * (i % 5 + 1) for i in range(20)]
    params = [GREEDY.clone(max_tokens=1 + i % 7) for i in range(20)]
    together = llm.generate(prompts, params)
    assert [o.prompt for o in together] == prompts
    assert [len(o.outputs[0].token_ids) for o in together] == [1 + i % 7 for i in range(20)]
    alone = [llm.generate(p, q)[0] for p, q in zip(prompts, params, strict=True)]
    assert [o.outputs[0].token_ids for o in alone] == [o.outputs[0].token_ids for o in together]


def test_a_prompt_is_text_or_token_ids(llm: LLM) -> None:
    assert llm.tokenizer is not None
    ids = llm.tokenizer.encode("hello")
    outputs = llm.generate(["hello", {"prompt": "hello"}, {"prompt_token_ids": ids}], GREEDY)
    assert len({o.outputs[0].text for o in outputs}) == 1
    assert [o.prompt for o in outputs] == ["hello", "hello", None]
    assert all(o.prompt_token_ids == ids for o in outputs)


def test_max_tokens_none_goes_on_to_the_end_of_the_context(llm: LLM) -> None:
    [output] = llm.generate("hello", GREEDY.clone(max_tokens=None))
    assert output.outputs[0].finish_reason == "length"
    assert len(output.prompt_token_ids) + len(output.outputs[0].token_ids) == 256


def test_the_end_of_sequence_ends_it_and_leaves_no_text(llm: LLM) -> None:
    [free] = llm.generate("hello", GREEDY)
    fourth = free.outputs[0].token_ids[3]
    first = free.outputs[0].token_ids.index(fourth)
    llm_eos = llm.engine._eos_token_ids
    try:
        llm.engine._eos_token_ids = (fourth,)
        [ended] = llm.generate("hello", GREEDY.clone(ignore_eos=False))
        [ignoring] = llm.generate("hello", GREEDY)
    finally:
        llm.engine._eos_token_ids = llm_eos
    assert ended.outputs[0].finish_reason == "stop"
    assert ended.outputs[0].stop_reason is None
    assert ended.outputs[0].token_ids == free.outputs[0].token_ids[: first + 1]
    assert ended.outputs[0].text == free.outputs[0].text[:first]
    assert ignoring.outputs[0].token_ids == free.outputs[0].token_ids


def test_a_stop_token_is_named_as_the_reason(llm: LLM) -> None:
    [free] = llm.generate("hello", GREEDY)
    stop = free.outputs[0].token_ids[5]
    [ended] = llm.generate("hello", GREEDY.clone(stop_token_ids=[stop]))
    first = free.outputs[0].token_ids.index(stop)
    assert ended.outputs[0].stop_reason == stop
    assert ended.outputs[0].text == free.outputs[0].text[:first]
    [kept] = llm.generate(
        "hello", GREEDY.clone(stop_token_ids=[stop], include_stop_str_in_output=True)
    )
    assert kept.outputs[0].text == free.outputs[0].text[: first + 1]


def test_a_stop_string_is_found_across_tokens_and_cut_off(llm: LLM) -> None:
    free = text_of(llm, "hello")
    stop = free[7:10]  # three tokens of this model, one character each
    [ended] = llm.generate("hello", GREEDY.clone(stop=["never there", stop]))
    first = free.index(stop)
    assert ended.outputs[0].text == free[:first]
    assert (ended.outputs[0].finish_reason, ended.outputs[0].stop_reason) == ("stop", stop)
    assert text_of(llm, "hello", stop=stop, include_stop_str_in_output=True) == free[: first + 3]
    assert text_of(llm, "hello", stop=stop, min_tokens=first + 3) != free[:first]


def test_n_sequences_differ_and_repeat_with_their_seed(llm: LLM) -> None:
    params = SamplingParams(n=4, temperature=1.0, seed=5, max_tokens=12, ignore_eos=True)
    [first] = llm.generate("hello", params)
    [again] = llm.generate("hello", params)
    texts = [o.text for o in first.outputs]
    assert [o.index for o in first.outputs] == [0, 1, 2, 3]
    assert len(set(texts)) == 4
    assert texts == [o.text for o in again.outputs]
    [third] = llm.generate("hello", params.clone(n=1, seed=7))
    assert third.outputs[0].text == texts[2], "sequence i draws with seed + i"


def test_requests_without_a_seed_differ(llm: LLM) -> None:
    outputs = llm.generate(["hello"] * 4, SamplingParams(max_tokens=12, ignore_eos=True))
    assert len({o.outputs[0].text for o in outputs}) == 4


def test_logprobs_name_the_chosen_token_first(llm: LLM) -> None:
    [output] = llm.generate("hello", GREEDY.clone(logprobs=3, max_tokens=5))
    completion = output.outputs[0]
    assert completion.logprobs is not None
    assert len(completion.logprobs) == 5
    for token_id, position in zip(completion.token_ids, completion.logprobs, strict=True):
        assert next(iter(position)) == token_id
        assert position[token_id].rank == 1
        assert len(position) == 3  # the chosen one is the likeliest, so it is not told twice
        assert sorted((p.logprob for p in position.values()), reverse=True) == [
            p.logprob for p in position.values()
        ]
    total = sum(
        p[t].logprob for t, p in zip(completion.token_ids, completion.logprobs, strict=True)
    )
    assert completion.cumulative_logprob == pytest.approx(total)


def test_prompt_logprobs_have_an_entry_for_every_prompt_token_though_it_is_cached(llm: LLM) -> None:
    prompt = "the same prompt, longer than two blocks of sixteen"
    llm.generate(prompt, GREEDY)
    [output] = llm.generate(prompt, GREEDY.clone(prompt_logprobs=2))
    logprobs = output.prompt_logprobs
    assert logprobs is not None
    assert output.num_cached_tokens == 0, "every prompt token has to be computed"
    assert len(logprobs) == len(output.prompt_token_ids)
    assert logprobs[0] is None
    for token_id, position in zip(output.prompt_token_ids[1:], logprobs[1:], strict=True):
        assert position is not None
        assert position[token_id].rank is not None


def test_a_second_prompt_with_the_same_prefix_finds_it_cached(llm: LLM) -> None:
    prefix = "x" * 50
    [first] = llm.generate(prefix + "one", GREEDY)
    [second] = llm.generate(prefix + "two", GREEDY)
    assert (first.num_cached_tokens, second.num_cached_tokens) == (0, 48)
    assert second.outputs[0].text == text_of(llm, prefix + "two")


def test_a_cached_answer_equals_the_one_computed_from_nothing(llm: LLM) -> None:
    conversation = "a prompt that is longer than a block of tokens"
    first = text_of(llm, conversation)
    follow_up = conversation + first + " and then"
    [warm] = llm.generate(follow_up, GREEDY)
    assert warm.num_cached_tokens > len(conversation)
    llm.reset_prefix_cache()
    [cold] = llm.generate(follow_up, GREEDY)
    assert cold.num_cached_tokens == 0
    assert cold.outputs[0].token_ids == warm.outputs[0].token_ids


def test_chat_uses_the_models_template(llm: LLM) -> None:
    messages = [{"role": "user", "content": "hi"}]
    [one] = llm.chat(messages, GREEDY)
    assert llm.tokenizer is not None
    expected = "<|im_start|>user\nhi<|im_end|>\n<|im_start|>assistant\n"
    assert llm.tokenizer.decode(one.prompt_token_ids, skip_special_tokens=False) == expected
    both = llm.chat([messages, messages], GREEDY)
    assert [o.outputs[0].text for o in both] == [one.outputs[0].text] * 2


def test_observers_see_every_step_and_the_end_of_every_request(llm: LLM) -> None:
    steps: list[StepStats] = []
    llm.add_observer(steps.append)
    try:
        llm.generate(["hello", "world"], GREEDY.clone(max_tokens=5))
    finally:
        llm.engine._observers.remove(steps.append)
    assert sum(s.num_generation_tokens for s in steps) == 10
    assert sum(s.num_prompt_tokens for s in steps) == 10
    assert sum(len(s.time_to_first_token) for s in steps) == 2
    assert sum(len(s.inter_token_latency) for s in steps) == 8
    finished = [f for s in steps for f in s.finished]
    assert [(f.finish_reason, f.num_generation_tokens) for f in finished] == [("length", 5)] * 2
    for f in finished:
        assert f.e2e_latency == pytest.approx(f.queued_time + f.inference_time)
        assert f.inference_time == pytest.approx(f.prefill_time + f.decode_time)


@pytest.mark.parametrize(
    ("prompt", "options", "param"),
    [
        ("", {}, "prompt"),
        ({"prompt_token_ids": []}, {}, "prompt"),
        ({"prompt_token_ids": [1, 259]}, {}, "prompt"),
        ({"prompt_token_ids": [1, -1]}, {}, "prompt"),
        ({"prompt_token_ids": [True]}, {}, "prompt"),
        ({"prompt_token_ids": "abc"}, {}, "prompt"),
        ({"text": "hello"}, {}, "prompt"),
        ({"prompt": None}, {}, "prompt"),
        (7, {}, "prompt"),
        ("x" * 256, {}, "prompt"),
        ("hello", {"logit_bias": {259: 1.0}}, "logit_bias"),
        ("hello", {"stop_token_ids": [259]}, "stop_token_ids"),
    ],
    ids=str,
)
def test_bad_input_is_refused_and_nothing_of_the_call_runs(
    llm: LLM, prompt: object, options: dict, param: str
) -> None:
    with pytest.raises(InvalidInputError) as refusal:
        llm.generate(["fine", prompt], GREEDY.clone(**options))
    assert refusal.value.param == param
    assert "\n" not in str(refusal.value)


def test_counts_that_do_not_match_are_refused(llm: LLM) -> None:
    with pytest.raises(InvalidInputError, match="2 entries for 1 prompts"):
        llm.generate(["hello"], [GREEDY, GREEDY])
    with pytest.raises(InvalidInputError, match="priority has 1 entries for 2 prompts"):
        llm.generate(["hello", "world"], GREEDY, priority=[1])


def test_an_interrupt_leaves_the_engine_usable(llm: LLM) -> None:
    def interrupt(stats: StepStats) -> None:
        raise KeyboardInterrupt

    llm.add_observer(interrupt)
    with pytest.raises(KeyboardInterrupt):
        llm.generate(["hello"] * 3, GREEDY)
    llm.engine._observers.remove(interrupt)
    assert len(text_of(llm, "hello")) == 24


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"max_model_len": 513}, "exceeds the model's context of 512"),
        ({"max_model_len": 400, "num_gpu_blocks_override": 10}, "hold 144"),
        ({"kv_cache_memory_bytes": 1}, "lower max_model_len or raise kv_cache_memory_bytes"),
        ({"kv_cache_memory_bytes": 2**60}, "memory that are free"),
        ({"dtype": "float16"}, "dtype must be one of"),
        ({"block_size": 0}, "block_size must be at least 1"),
        ({"scheduling_policy": "random"}, "scheduling_policy must be one of"),
    ],
    ids=str,
)
def test_settings_that_cannot_work_are_refused_at_the_door(
    tiny_model: Path, options: dict, message: str
) -> None:
    with pytest.raises(InvalidInputError, match=message):
        LLM(str(tiny_model), **options)


def test_an_unknown_model_is_refused() -> None:
    with pytest.raises(ModelLoadError, match="no-such-model"):
        LLM("no-such-model")


def test_the_context_is_what_the_cache_can_hold_when_nobody_asks_for_more(tiny_model: Path) -> None:
    llm = LLM(str(tiny_model), num_gpu_blocks_override=5)
    assert llm.engine.max_model_len == 64
    [output] = llm.generate("hello", GREEDY.clone(max_tokens=None))
    assert len(output.prompt_token_ids) + len(output.outputs[0].token_ids) == 64
