"""The official client against a real server: what it asks for is what it gets."""

from __future__ import annotations

import itertools
import math
import threading
from pathlib import Path

import pytest
from openai import OpenAI
from running import MODEL, RunningServer

from mini_vllm import LLM, SamplingParams
from mini_vllm.engine.outputs import RequestOutput
from tiny_model import IM_END, SPECIAL

PROMPT = "The quick brown fox"
GREEDY = {"model": MODEL, "temperature": 0, "max_tokens": 24}
CHAT = {
    "model": MODEL,
    "messages": [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Hello!"}],
    "temperature": 0,
}


def ids(text: str) -> list[int]:
    """The tiny model's tokens are bytes."""
    return list(text.encode())


def test_models_are_listed_and_found(client: OpenAI) -> None:
    (listed,) = client.models.list().data
    assert listed.id == MODEL
    assert client.models.retrieve(MODEL) == listed


def test_a_completion_is_what_the_engine_generates_offline(
    client: OpenAI, tiny_model: Path
) -> None:
    llm = LLM(str(tiny_model), dtype="float32", num_gpu_blocks_override=65)
    [expected] = llm.generate(PROMPT, SamplingParams(temperature=0, max_tokens=24))

    completion = client.completions.create(prompt=PROMPT, **GREEDY)

    [choice] = completion.choices
    assert choice.text == expected.outputs[0].text
    assert choice.finish_reason == expected.outputs[0].finish_reason == "length"
    assert completion.usage is not None
    assert completion.usage.prompt_tokens == len(ids(PROMPT))
    assert completion.usage.completion_tokens == 24
    assert completion.usage.total_tokens == len(ids(PROMPT)) + 24


def test_max_tokens_defaults_to_16_for_a_completion(client: OpenAI) -> None:
    completion = client.completions.create(model=MODEL, prompt=PROMPT, extra_body=IGNORE_EOS)
    assert completion.usage is not None
    assert completion.usage.completion_tokens == 16


IGNORE_EOS = {"ignore_eos": True}


def test_a_stream_adds_up_to_the_whole_completion(
    tiny_server: RunningServer, client: OpenAI, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = client.completions.create(prompt=PROMPT, **GREEDY)
    engine, arrived, steps = tiny_server.engine._engine, threading.Event(), itertools.count()
    step = engine.step

    def step_once_the_first_chunk_arrived() -> list[RequestOutput]:
        # The step after a request's last, which lets go of it, may still be to come.
        if engine.num_unfinished_requests:
            assert next(steps) == 0 or arrived.wait(20)
        return step()

    monkeypatch.setattr(engine, "step", step_once_the_first_chunk_arrived)
    stream = client.completions.create(prompt=PROMPT, stream=True, **GREEDY)
    chunks = [next(stream)]
    arrived.set()
    chunks += stream

    assert "".join(chunk.choices[0].text for chunk in chunks) == whole.choices[0].text
    assert len(chunks) > 1
    assert len({chunk.id for chunk in chunks}) == 1
    reasons = [chunk.choices[0].finish_reason for chunk in chunks]
    assert reasons == [None] * (len(chunks) - 1) + ["length"]
    assert all(chunk.usage is None for chunk in chunks)


def test_include_usage_adds_one_last_chunk_without_choices(client: OpenAI) -> None:
    stream = client.completions.create(
        prompt=PROMPT, stream=True, stream_options={"include_usage": True}, **GREEDY
    )
    *chunks, last = stream
    assert last.choices == []
    assert last.usage is not None
    assert (last.usage.prompt_tokens, last.usage.completion_tokens) == (len(PROMPT), 24)
    assert all(chunk.usage is None for chunk in chunks)


def test_continuous_usage_counts_up(client: OpenAI) -> None:
    options = {"include_usage": True, "continuous_usage_stats": True}
    stream = client.completions.create(
        prompt=PROMPT,
        stream=True,
        stream_options=options,  # type: ignore[arg-type]
        **GREEDY,
    )
    counts = [chunk.usage.completion_tokens for chunk in stream if chunk.usage is not None]
    assert counts == sorted(counts)
    assert counts[-1] == 24


def test_chat_stream_adds_up_to_the_whole_answer(client: OpenAI) -> None:
    whole = client.chat.completions.create(max_completion_tokens=20, **CHAT)
    chunks = list(
        client.chat.completions.create(
            max_completion_tokens=20, stream=True, stream_options={"include_usage": True}, **CHAT
        )
    )
    message = whole.choices[0].message
    assert message.role == "assistant"
    assert message.content
    deltas = [chunk.choices[0].delta for chunk in chunks if chunk.choices]
    assert deltas[0].role == "assistant"
    assert all(delta.role is None for delta in deltas[1:])
    assert "".join(delta.content or "" for delta in deltas) == message.content
    assert chunks[-1].usage is not None
    assert whole.usage is not None
    assert chunks[-1].usage.total_tokens == whole.usage.total_tokens


def test_an_answer_can_be_sent_back_as_history(client: OpenAI) -> None:
    first = client.chat.completions.create(max_tokens=4, **CHAT)
    messages = [
        *CHAT["messages"],
        first.choices[0].message.model_dump(),
        {"role": "user", "content": [{"type": "text", "text": "And then?"}]},
    ]
    second = client.chat.completions.create(model=MODEL, messages=messages, max_tokens=4)  # type: ignore[arg-type]
    assert first.usage is not None
    assert second.usage is not None
    assert second.usage.prompt_tokens > first.usage.prompt_tokens


def test_n_gives_numbered_sequences(client: OpenAI) -> None:
    completion = client.completions.create(
        model=MODEL, prompt=[PROMPT, "Another"], n=3, seed=1, max_tokens=20, temperature=2
    )
    assert [choice.index for choice in completion.choices] == list(range(6))
    assert len({choice.text for choice in completion.choices}) == 6
    assert completion.usage is not None
    assert completion.usage.prompt_tokens == len(PROMPT) + len("Another")


def test_a_stream_of_several_prompts_and_n_is_the_same_choices(client: OpenAI) -> None:
    asked = {"model": MODEL, "prompt": [PROMPT, "Another"], "n": 2, "seed": 5, "max_tokens": 12}
    whole = client.completions.create(**asked)
    texts = dict.fromkeys(range(4), "")
    for chunk in client.completions.create(stream=True, **asked):
        for choice in chunk.choices:
            texts[choice.index] += choice.text
    assert texts == {choice.index: choice.text for choice in whole.choices}


def test_chat_streams_each_of_n(client: OpenAI) -> None:
    asked = CHAT | {"temperature": 1.5, "n": 3, "seed": 3, "max_tokens": 12}
    whole = client.chat.completions.create(**asked)
    texts = {0: "", 1: "", 2: ""}
    for chunk in client.chat.completions.create(stream=True, **asked):
        for choice in chunk.choices:
            texts[choice.index] += choice.delta.content or ""
    assert texts == {choice.index: choice.message.content for choice in whole.choices}


def test_prompts_may_be_token_ids(client: OpenAI) -> None:
    text = client.completions.create(prompt=PROMPT, **GREEDY).choices[0].text
    flat = client.completions.create(prompt=ids(PROMPT), **GREEDY)
    nested = client.completions.create(prompt=[ids("Another"), ids(PROMPT)], **GREEDY)
    assert flat.choices[0].text == text
    assert nested.choices[1].text == text


def test_a_stop_string_over_several_tokens_ends_the_text_before_it(client: OpenAI) -> None:
    text = client.completions.create(prompt=PROMPT, **GREEDY).choices[0].text
    stop = text[9:13]
    end = text.index(stop)

    completion = client.completions.create(prompt=PROMPT, stop=[stop], **GREEDY)
    chunks = list(client.completions.create(prompt=PROMPT, stop=stop, stream=True, **GREEDY))
    included = client.completions.create(
        prompt=PROMPT, stop=stop, extra_body={"include_stop_str_in_output": True}, **GREEDY
    )

    assert completion.choices[0].text == text[:end]
    assert completion.choices[0].finish_reason == "stop"
    assert completion.choices[0].model_extra == {"stop_reason": stop}
    assert "".join(chunk.choices[0].text for chunk in chunks) == text[:end]
    assert included.choices[0].text == text[: end + len(stop)]


def test_stop_token_ids_end_the_text(client: OpenAI) -> None:
    text = client.completions.create(prompt=PROMPT, **GREEDY).choices[0].text
    completion = client.completions.create(
        prompt=PROMPT, extra_body={"stop_token_ids": ids(text[5])}, **GREEDY
    )
    assert text.startswith(completion.choices[0].text)
    assert completion.choices[0].finish_reason == "stop"
    assert completion.choices[0].model_extra == {"stop_reason": ids(text[5])[0]}


def test_end_of_sequence_stops_unless_ignored(client: OpenAI) -> None:
    always_eos = {"logit_bias": {str(IM_END): 100}, "max_tokens": 5, "model": MODEL}
    ended = client.completions.create(prompt=PROMPT, **always_eos)
    ignored = client.completions.create(prompt=PROMPT, extra_body=IGNORE_EOS, **always_eos)
    at_least = client.completions.create(prompt=PROMPT, extra_body={"min_tokens": 3}, **always_eos)

    assert ended.choices[0].finish_reason == "stop"
    assert ended.choices[0].text == ""
    assert ignored.usage is not None
    assert ignored.usage.completion_tokens == 5
    assert at_least.usage is not None
    assert at_least.usage.completion_tokens == 4
    assert at_least.choices[0].finish_reason == "stop"


def test_special_tokens_are_shown_on_request(client: OpenAI) -> None:
    asked = {"prompt": PROMPT, "model": MODEL, "max_tokens": 2, "logit_bias": {str(IM_END): 100}}
    shown = client.completions.create(
        extra_body={"ignore_eos": True, "skip_special_tokens": False}, **asked
    )
    assert shown.choices[0].text == "<|im_end|>" * 2


def test_a_seed_makes_a_request_reproducible(client: OpenAI) -> None:
    def text(seed: int) -> str:
        completion = client.completions.create(
            model=MODEL, prompt=PROMPT, seed=seed, temperature=1.5, max_tokens=24
        )
        return completion.choices[0].text

    assert text(11) == text(11)
    assert text(11) != text(12)


def test_vllm_sampling_fields_reach_the_sampler(client: OpenAI) -> None:
    greedy = client.completions.create(prompt=PROMPT, **GREEDY).choices[0].text
    for only_likeliest in ({"top_k": 1}, {"min_p": 1.0}):
        completion = client.completions.create(
            model=MODEL, prompt=PROMPT, max_tokens=24, extra_body=only_likeliest
        )
        assert completion.choices[0].text == greedy
    penalised = client.completions.create(
        prompt=PROMPT, extra_body={"repetition_penalty": 50.0}, **GREEDY
    )
    letters = penalised.choices[0].text
    assert len(set(letters)) == len(letters)


def test_completion_logprobs(client: OpenAI) -> None:
    completion = client.completions.create(prompt=PROMPT, logprobs=3, **GREEDY)
    choice = completion.choices[0]
    logprobs = choice.logprobs
    assert logprobs is not None
    assert logprobs.tokens is not None
    assert logprobs.token_logprobs is not None
    assert logprobs.top_logprobs is not None
    assert "".join(logprobs.tokens) == choice.text
    assert logprobs.text_offset == list(range(24))
    for token, logprob, top in zip(
        logprobs.tokens, logprobs.token_logprobs, logprobs.top_logprobs, strict=True
    ):
        assert len(top) == 3
        assert top[token] == logprob == max(top.values())
        assert sum(math.exp(value) for value in top.values()) <= 1.000001


def test_streamed_completion_logprobs_are_the_same_lists(client: OpenAI) -> None:
    whole = client.completions.create(prompt=PROMPT, logprobs=2, **GREEDY).choices[0].logprobs
    assert whole is not None
    lists: dict[str, list[object]] = {"tokens": [], "token_logprobs": [], "text_offset": []}
    for chunk in client.completions.create(prompt=PROMPT, logprobs=2, stream=True, **GREEDY):
        for name, values in lists.items():
            values += getattr(chunk.choices[0].logprobs, name)
    assert lists == {name: getattr(whole, name) for name in lists}


def test_chat_logprobs_list_the_likeliest_with_bytes(client: OpenAI) -> None:
    asked = CHAT | {"temperature": 3.0, "seed": 2, "max_tokens": 30, "logprobs": True}
    completion = client.chat.completions.create(top_logprobs=4, **asked)
    choice = completion.choices[0]
    assert choice.logprobs is not None
    assert choice.logprobs.content is not None
    said = b"".join(bytes(token.bytes or []) for token in choice.logprobs.content)
    assert said.decode("utf-8", "replace") == choice.message.content
    for token in choice.logprobs.content:
        likeliest = [top.logprob for top in token.top_logprobs]
        assert len(likeliest) == 4
        assert likeliest == sorted(likeliest, reverse=True)
        assert token.logprob <= likeliest[0]
    # At this temperature some sampled token is none of the likeliest, and is told all the same.
    assert any(token.logprob < token.top_logprobs[-1].logprob for token in choice.logprobs.content)


def test_chat_logprobs_without_top_logprobs(client: OpenAI) -> None:
    choice = client.chat.completions.create(logprobs=True, max_tokens=3, **CHAT).choices[0]
    assert choice.logprobs is not None
    assert choice.logprobs.content is not None
    assert [token.top_logprobs for token in choice.logprobs.content] == [[], [], []]


def test_echo_puts_the_prompt_first(client: OpenAI) -> None:
    plain = client.completions.create(prompt=PROMPT, **GREEDY).choices[0].text
    for prompt in (PROMPT, ids(PROMPT)):
        whole = client.completions.create(prompt=prompt, echo=True, **GREEDY)
        chunks = client.completions.create(prompt=prompt, echo=True, stream=True, **GREEDY)
        assert whole.choices[0].text == PROMPT + plain
        assert "".join(chunk.choices[0].text for chunk in chunks) == PROMPT + plain


def test_echo_without_generation_scores_the_prompt(client: OpenAI) -> None:
    """What the model gave its own tokens while generating is what it gives them when reading."""
    generated = client.completions.create(prompt=PROMPT, logprobs=0, **GREEDY).choices[0]
    scored = client.completions.create(
        model=MODEL, prompt=PROMPT + generated.text, echo=True, logprobs=0, max_tokens=0
    )
    logprobs = scored.choices[0].logprobs
    assert scored.choices[0].text == PROMPT + generated.text
    assert scored.usage is not None
    assert logprobs is not None
    assert generated.logprobs is not None
    assert logprobs.token_logprobs is not None
    assert logprobs.token_logprobs[0] is None
    assert logprobs.token_logprobs[len(PROMPT) :] == pytest.approx(
        generated.logprobs.token_logprobs, abs=1e-3
    )


def test_prompt_logprobs_have_vllms_shape(client: OpenAI) -> None:
    completion = client.completions.create(
        prompt=PROMPT, extra_body={"prompt_logprobs": 1}, **GREEDY
    )
    extra = completion.choices[0].model_extra
    assert extra is not None
    first, *others = extra["prompt_logprobs"]
    assert first is None
    assert len(others) == len(PROMPT) - 1
    for token_id, position in zip(ids(PROMPT)[1:], others, strict=True):
        chosen = position[str(token_id)]
        assert chosen["decoded_token"] == chr(token_id)
        assert chosen["logprob"] <= 0
        assert chosen["rank"] >= 1


def test_return_token_ids(client: OpenAI) -> None:
    extra = {"return_token_ids": True}
    whole = client.completions.create(prompt=PROMPT, extra_body=extra, **GREEDY).choices[0]
    streamed: list[int] = []
    for chunk in client.completions.create(prompt=PROMPT, extra_body=extra, stream=True, **GREEDY):
        streamed += (chunk.choices[0].model_extra or {})["token_ids"]
    assert whole.model_extra is not None
    assert whole.model_extra["prompt_token_ids"] == ids(PROMPT)
    assert whole.model_extra["token_ids"] == streamed == ids(whole.text)


def test_a_repeated_prompt_comes_from_the_prefix_cache(client: OpenAI) -> None:
    prompt = "a prompt that nobody else sends, long enough to fill several blocks " * 2
    first = client.completions.create(prompt=prompt, **GREEDY)
    second = client.completions.create(prompt=prompt, **GREEDY)
    assert first.usage is not None
    assert second.usage is not None
    assert first.usage.prompt_tokens_details is not None
    assert second.usage.prompt_tokens_details is not None
    assert first.usage.prompt_tokens_details.cached_tokens == 0
    assert second.usage.prompt_tokens_details.cached_tokens == (len(prompt) - 1) // 16 * 16
    assert first.choices[0].text == second.choices[0].text


def test_tokenize_and_detokenize(tiny_server: RunningServer) -> None:
    def post(path: str, body: dict[str, object]) -> dict[str, object]:
        answer: dict[str, object] = tiny_server.http.post(path, json=body).json()
        return answer

    text = "Grüße, 世界<|im_end|>"
    tokens = [*"Grüße, 世界".encode(), IM_END]
    found = post("/tokenize", {"model": MODEL, "prompt": text, "return_token_strs": True})
    assert found["tokens"] == tokens
    assert found["count"] == len(tokens)
    assert found["max_model_len"] == 512
    assert found["token_strs"][-1] == "<|im_end|>"  # type: ignore[index]
    assert post("/detokenize", {"tokens": tokens}) == {"prompt": text}


def test_tokenize_of_messages_is_the_prompt_of_a_chat(
    client: OpenAI, tiny_server: RunningServer
) -> None:
    found = tiny_server.http.post("/tokenize", json={"messages": CHAT["messages"]}).json()
    answer = client.chat.completions.create(max_tokens=1, **CHAT)
    assert answer.usage is not None
    assert found["count"] == answer.usage.prompt_tokens
    assert found["tokens"][0] == SPECIAL["<|im_start|>"]


def test_health_version_and_wire_format(tiny_server: RunningServer) -> None:
    for path in ("/health", "/ping"):
        assert tiny_server.http.get(path).status_code == 200
    assert set(tiny_server.http.get("/version").json()) == {"version"}
    body = {"prompt": PROMPT, "max_tokens": 3, "stream": True}
    response = tiny_server.http.post("/v1/completions", json=body)
    assert response.headers["content-type"].startswith("text/event-stream")
    *events, end = response.text.split("\n\n")
    assert end == ""
    assert all(event.startswith("data: {") for event in events[:-1])
    assert events[-1] == "data: [DONE]"


class TestRealModel:
    """A few things that take a model that was trained."""

    ASKED = {  # noqa: RUF012
        "model": "smollm2-135m",
        "messages": [{"role": "user", "content": "Name the capital of France."}],
        "temperature": 0,
    }

    def test_it_answers(self, smollm_server: RunningServer) -> None:
        answer = smollm_server.openai.chat.completions.create(**self.ASKED)
        assert answer.choices[0].message.content == "The capital of France is Paris."
        assert answer.choices[0].finish_reason == "stop"

    def test_characters_of_several_tokens_arrive_whole(self, smollm_server: RunningServer) -> None:
        asked = {
            "model": "smollm2-135m",
            "prompt": "🦙 漢字 🦙 漢字 🦙",
            "temperature": 0,
            "max_tokens": 8,
        }
        client = smollm_server.openai
        whole = client.completions.create(**asked).choices[0].text
        parts = [c.choices[0].text for c in client.completions.create(stream=True, **asked)]
        assert "🦙" in whole
        assert "".join(parts) == whole
        # Only the length limit may cut a character in two.
        assert not any("\ufffd" in part for part in parts[:-1])
