"""Every mistake is answered in OpenAI's shape, with the field that is wrong."""

from __future__ import annotations

import socket
from typing import Any
from urllib.parse import urlsplit

import httpx
import openai
import pytest
from openai import OpenAI
from running import MODEL, RunningServer, running_server

from mini_vllm.engine.config import EngineConfig
from mini_vllm.serve import limits

COMPLETIONS, CHAT = "/v1/completions", "/v1/chat/completions"
HELLO = [{"role": "user", "content": "Hello!"}]


def refused(response: httpx.Response, status: int) -> dict[str, Any]:
    """The error of a response, after checking its shape."""
    assert response.status_code == status, response.text
    document = response.json()
    assert set(document) == {"error"}
    assert set(document["error"]) == {"message", "type", "param", "code"}
    assert document["error"]["message"]
    error: dict[str, Any] = document["error"]
    return error


@pytest.mark.parametrize(
    ("path", "body", "param", "message"),
    [
        (COMPLETIONS, {}, "prompt", "the field 'prompt' is required"),
        (COMPLETIONS, {"prompt": None}, "prompt", "required"),
        (COMPLETIONS, {"prompt": []}, "prompt", "none of them empty"),
        (COMPLETIONS, {"prompt": [[]]}, "prompt", "none of them empty"),
        (COMPLETIONS, {"prompt": ""}, "prompt", "empty"),
        (COMPLETIONS, {"prompt": ["a", 1]}, "prompt", "got ['a', 1]"),
        (COMPLETIONS, {"prompt": [True, 1]}, "prompt", "token ids"),
        (COMPLETIONS, {"prompt": [-1]}, "prompt", "token ids"),
        (COMPLETIONS, {"prompt": [259]}, "prompt", "259"),
        (COMPLETIONS, {"prompt": [2**40]}, "prompt", "token ids"),
        (COMPLETIONS, {"prompt": "a", "max_tokens": 0}, "max_tokens", "at least 1"),
        (COMPLETIONS, {"prompt": "a", "max_tokens": "5"}, "max_tokens", "got '5'"),
        (COMPLETIONS, {"prompt": "a", "max_tokens": 10**30}, "max_tokens", "less than"),
        (COMPLETIONS, {"prompt": "a", "max_token": 5}, "max_token", "did you mean 'max_tokens'?"),
        (COMPLETIONS, {"prompt": "a", "zebra": None}, "zebra", "unknown field 'zebra'"),
        (COMPLETIONS, {"prompt": "a", "temperature": -1}, "temperature", "-1"),
        (COMPLETIONS, {"prompt": "a", "temperature": True}, "temperature", "number"),
        (COMPLETIONS, {"prompt": "a", "top_p": 0}, "top_p", "(0, 1]"),
        (COMPLETIONS, {"prompt": "a", "n": 0}, "n", "in [1, 16384]"),
        (COMPLETIONS, {"prompt": "a", "n": 2, "temperature": 0}, "n", "1 when temperature is 0"),
        (COMPLETIONS, {"prompt": "a", "n": 100000}, "n", "in [1, 16384]"),
        (COMPLETIONS, {"prompt": "a", "logprobs": 21}, "logprobs", "20"),
        (COMPLETIONS, {"prompt": "a", "logprobs": -1}, "logprobs", "20"),
        (COMPLETIONS, {"prompt": "a", "stop": [""]}, "stop", "empty"),
        (COMPLETIONS, {"prompt": "a", "stop": [1]}, "stop", "list of strings"),
        (COMPLETIONS, {"prompt": "a", "stop_token_ids": [999]}, "stop_token_ids", "999"),
        (COMPLETIONS, {"prompt": "a", "logit_bias": {"999": 1}}, "logit_bias", "999"),
        (COMPLETIONS, {"prompt": "a", "logit_bias": {"x": 1}}, "logit_bias", "'x'"),
        (COMPLETIONS, {"prompt": "a", "logit_bias": {"1": 101}}, "logit_bias", "101"),
        (COMPLETIONS, {"prompt": "a", "min_tokens": 20}, "min_tokens", "max_tokens"),
        (COMPLETIONS, {"prompt": "a", "seed": 2**64}, "seed", "less than"),
        (COMPLETIONS, {"prompt": "a", "stream": 1}, "stream", "boolean"),
        (COMPLETIONS, {"prompt": "a", "stream_options": {}}, "stream_options", "stream=true"),
        (
            COMPLETIONS,
            {"prompt": "a", "stream": True, "stream_options": {"x": 1}},
            "stream_options",
            "stream_options.x",
        ),
        (
            COMPLETIONS,
            {"prompt": "a", "stream": True, "prompt_logprobs": 1},
            "prompt_logprobs",
            "stream=true",
        ),
        (
            COMPLETIONS,
            {"prompt": "a", "stream": True, "echo": True, "logprobs": 1},
            "echo",
            "stream=true",
        ),
        (COMPLETIONS, {"prompt": "a", "priority": 1}, "priority", "--scheduling-policy"),
        (COMPLETIONS, {"prompt": "a", "best_of": 3}, "best_of", "not supported"),
        (COMPLETIONS, {"prompt": "a", "suffix": "z"}, "suffix", "not supported"),
        (CHAT, {"messages": []}, "messages", "at least one"),
        (CHAT, {"messages": "hi"}, "messages", "list"),
        (CHAT, {"messages": ["hi"]}, "messages", "0: must be an object"),
        (CHAT, {"messages": [*HELLO, {"role": "robot"}]}, "messages", "1: role must be one of"),
        (CHAT, {"messages": [{"role": "user"}]}, "messages", "content must be"),
        (
            CHAT,
            {"messages": [{"role": "user", "content": [{"type": "image_url"}]}]},
            "messages",
            "text",
        ),
        (
            CHAT,
            {"messages": [{"role": "assistant", "content": "", "tool_calls": [1]}]},
            "messages",
            "tool_calls",
        ),
        (CHAT, {"messages": [{"role": "user", "content": "refuse me"}]}, "messages", "refused"),
        (CHAT, {"messages": HELLO, "tools": [{"type": "function"}]}, "tools", "not supported"),
        (
            CHAT,
            {"messages": HELLO, "response_format": {"type": "json_object"}},
            "response_format",
            "not supported",
        ),
        (
            CHAT,
            {"messages": HELLO, "reasoning_effort": "high"},
            "reasoning_effort",
            "not supported",
        ),
        (CHAT, {"messages": HELLO, "top_logprobs": 3}, "top_logprobs", "logprobs=true"),
        (CHAT, {"messages": HELLO, "logprobs": 1}, "logprobs", "boolean"),
        (
            CHAT,
            {"messages": HELLO, "chat_template_kwargs": {"messages": []}},
            "chat_template_kwargs",
            "messages",
        ),
        ("/tokenize", {}, "prompt", "either"),
        ("/tokenize", {"prompt": "a", "messages": HELLO}, "prompt", "either"),
        ("/detokenize", {"tokens": [300]}, "tokens", "300"),
        ("/detokenize", {"tokens": "a"}, "tokens", "list"),
    ],
)
def test_a_wrong_field_is_named(
    tiny_server: RunningServer, path: str, body: dict[str, Any], param: str, message: str
) -> None:
    error = refused(tiny_server.http.post(path, json=body), 400)
    assert error["param"] == param
    assert message in error["message"]
    assert error["type"] == "invalid_request_error"


@pytest.mark.parametrize(
    "field",
    [
        {"user": "me"},
        {"store": True, "metadata": {"a": "b"}, "service_tier": "auto"},
        {"tools": [], "tool_choice": "none", "parallel_tool_calls": True},
        {"response_format": {"type": "text"}, "modalities": ["text"]},
        {"stop": None, "seed": None, "logit_bias": None, "stream_options": None},
        {"stream": False, "frequency_penalty": 0},
    ],
)
def test_fields_that_ask_for_nothing_are_taken(
    tiny_server: RunningServer, field: dict[str, Any]
) -> None:
    body = {"messages": HELLO, "max_tokens": 1} | field
    assert tiny_server.http.post(CHAT, json=body).status_code == 200


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"{",
        b"[]",
        b"null",
        b'"text"',
        b"\xff\xfe",
        b'{"prompt": "\xff"}',
        b'{"prompt": "\\ud800"}',
        b'{"prompt": "a", "temperature": NaN}',
        b'{"prompt": "a", "temperature": Infinity}',
        b'{"prompt": "a", "temperature": 1e999}',
        b'{"prompt": "a", "n": ' + b"9" * 5000 + b"}",
        b"[" * 100_000,
        b'{"metadata": ' + b'{"a":' * 10_000 + b"1" + b"}" * 10_000 + b"}",
    ],
)
def test_what_is_no_json_object_is_refused(tiny_server: RunningServer, body: bytes) -> None:
    headers = {"Content-Type": "application/json"}
    refused(tiny_server.http.post(COMPLETIONS, content=body, headers=headers), 400)


@pytest.mark.parametrize(
    "content_type", [None, "text/plain", "application/x-www-form-urlencoded", "multipart/form-data"]
)
def test_only_json_is_read(tiny_server: RunningServer, content_type: str | None) -> None:
    headers = {} if content_type is None else {"Content-Type": content_type}
    response = tiny_server.http.post(CHAT, content=b'{"messages": 1}', headers=headers)
    assert "application/json" in refused(response, 415)["message"]


def test_unknown_paths_and_methods(tiny_server: RunningServer) -> None:
    assert "/v1" in refused(tiny_server.http.get("/v2/nothing"), 404)["message"]
    refused(tiny_server.http.get("/v1/models/other"), 404)
    error = refused(tiny_server.http.get(COMPLETIONS), 405)
    assert "GET" in error["message"]
    refused(tiny_server.http.delete("/v1/models"), 405)


def test_a_body_over_the_limit_is_refused_announced_or_not(tiny_server: RunningServer) -> None:
    body = b'{"prompt": "' + b"a" * tiny_server.server.service.config.max_body + b'"}'
    headers = {"Content-Type": "application/json"}

    def chunks() -> Any:
        for start in range(0, len(body), 65536):
            yield body[start : start + 65536]

    for content in (body, chunks()):
        response = tiny_server.http.post(COMPLETIONS, content=content, headers=headers)
        assert "--max-body" in refused(response, 413)["message"]


def test_an_unknown_model_is_not_found(client: OpenAI) -> None:
    with pytest.raises(openai.NotFoundError) as caught:
        client.chat.completions.create(model="gpt-4", messages=HELLO)  # type: ignore[arg-type]
    assert caught.value.code == "model_not_found"
    assert caught.value.param == "model"
    with pytest.raises(openai.NotFoundError):
        client.models.retrieve("gpt-4")


def test_bad_input_is_a_bad_request_error(client: OpenAI) -> None:
    with pytest.raises(openai.BadRequestError) as caught:
        client.completions.create(model=MODEL, prompt="a", temperature=-1)
    assert caught.value.param == "temperature"
    with pytest.raises(openai.BadRequestError):
        client.completions.create(model=MODEL, prompt="a", temperature=-1, stream=True)


def test_a_prompt_beyond_the_context_says_so(client: OpenAI) -> None:
    long = "a" * 600
    for call in (
        lambda: client.completions.create(model=MODEL, prompt=long),
        lambda: client.chat.completions.create(
            model=MODEL, messages=[{"role": "user", "content": long}]
        ),
    ):
        with pytest.raises(openai.BadRequestError, match=r"6\d\d tokens") as caught:
            call()
        assert caught.value.code == "context_length_exceeded"
        assert "512" in caught.value.message


def test_a_prompt_that_just_fits_is_answered(client: OpenAI) -> None:
    completion = client.completions.create(model=MODEL, prompt="a" * 511, max_tokens=100)
    assert completion.usage is not None
    assert completion.usage.total_tokens == 512
    assert completion.choices[0].finish_reason == "length"


def test_one_refused_prompt_takes_the_others_with_it(tiny_server: RunningServer) -> None:
    body = {"prompt": [[1, 2, 3], [999]], "max_tokens": 400, "ignore_eos": True}
    refused(tiny_server.http.post(COMPLETIONS, json=body), 400)
    tiny_server.wait_idle()
    assert tiny_server.server.service.admission.held == 0


def test_a_body_that_does_not_arrive_is_not_waited_for(
    tiny_server: RunningServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(limits, "BODY_SECONDS", 0.1)
    address = urlsplit(tiny_server.url)
    with socket.create_connection((address.hostname, address.port)) as connection:
        connection.sendall(
            b"POST /v1/completions HTTP/1.1\r\nHost: a\r\nConnection: close\r\n"
            b"Content-Type: application/json\r\nContent-Length: 100\r\n\r\n{"
        )
        assert connection.recv(4096).startswith(b"HTTP/1.1 408 ")


def test_the_servers_own_mistake_tells_nothing_of_its_insides(
    tiny_server: RunningServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken() -> bytes:
        raise ZeroDivisionError("a secret")

    monkeypatch.setattr(tiny_server.server.service.metrics, "exposition", broken)
    error = refused(tiny_server.http.get("/metrics"), 500)
    assert error["type"] == "server_error"
    assert "secret" not in str(error)


@pytest.mark.parametrize("stream", [False, True])
def test_a_dead_engine_fails_its_requests_and_ends_the_server(
    tiny_config: EngineConfig, stream: bool
) -> None:
    with running_server(tiny_config) as server:

        def fails() -> None:
            raise RuntimeError("a step went wrong")

        server.engine._engine.step = fails  # type: ignore[assignment,method-assign]
        with pytest.raises(openai.APIError, match="engine stopped") as caught:
            list(server.openai.completions.create(model=MODEL, prompt="a", stream=stream))
        assert "a step went wrong" not in caught.value.message
        if not stream:
            assert isinstance(caught.value, openai.InternalServerError)
            assert caught.value.status_code == 503
        server.thread.join(20)
        assert not server.thread.is_alive()
