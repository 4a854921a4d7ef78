"""Whatever a client sends, it gets an answer in the agreed shape and the server goes on."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from running import MODEL, RunningServer, running_server

from mini_vllm.engine.config import EngineConfig
from mini_vllm.serve.protocol import (
    ChatCompletionRequest,
    CompletionRequest,
    DetokenizeRequest,
    TokenizeRequest,
)

PATHS = {
    "/v1/completions": (CompletionRequest, {"prompt": "a"}),
    "/v1/chat/completions": (
        ChatCompletionRequest,
        {"messages": [{"role": "user", "content": "Hello!"}]},
    ),
    "/tokenize": (TokenizeRequest, {"prompt": "a"}),
    "/detokenize": (DetokenizeRequest, {"tokens": [65, 66]}),
}
ODD = st.one_of(
    st.none(),
    st.booleans(),
    st.sampled_from([0, 1, -1, 2, 20, 255, 259, 2**31, -(2**63), 2**64, 10**40]),
    st.sampled_from([0.0, -0.0, 0.5, 1e-9, -2.5, 1e308, 1e-320]),
    st.sampled_from(["", "a", "\x00", "\u2028", "<|im_end|>", "0", "🦙", "auto", "text"]),
)
VALUES = st.recursive(
    ODD,
    lambda inner: st.one_of(
        st.lists(inner, max_size=3),
        st.dictionaries(
            st.sampled_from(["type", "text", "role", "content", "0", "65", "include_usage", "x"]),
            inner,
            max_size=3,
        ),
    ),
    max_leaves=6,
)


@pytest.fixture(scope="module")
def server(tiny_model: Path) -> Iterator[RunningServer]:
    config = EngineConfig(
        model=str(tiny_model),
        num_gpu_blocks_override=65,
        max_model_len=64,
        max_num_seqs=4,
        num_threads=1,
    )
    with running_server(config, max_waiting=4, max_body=20_000) as running:
        yield running


def check(response: httpx.Response) -> None:
    assert response.status_code in (200, 400, 404, 413, 415, 429), response.text
    if response.status_code != 200:
        error = response.json()["error"]
        assert set(error) == {"message", "type", "param", "code"}
        assert error["message"].isprintable()
        assert len(error["message"]) < 600
    elif response.headers["content-type"].startswith("text/event-stream"):
        assert response.text.endswith("data: [DONE]\n\n")


quickly = settings(
    max_examples=120,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
    derandomize=True,
)


@pytest.mark.parametrize("path", PATHS)
def test_odd_values_in_known_fields(server: RunningServer, path: str) -> None:
    kind, valid = PATHS[path]
    names = st.sampled_from([*kind.model_fields, *kind.NEUTRAL, *kind.IGNORED, "unknown"])

    with httpx.Client(base_url=server.url) as client:

        @quickly
        @given(st.dictionaries(names, VALUES, max_size=4), st.booleans())
        def send(changes: dict[str, Any], whole: bool) -> None:
            body = (valid if whole else {}) | changes
            check(client.post(path, json=body))

        send()
        assert client.get("/health").status_code == 200
        good = {"model": MODEL, "prompt": "a", "max_tokens": 1}
        assert client.post("/v1/completions", json=good).status_code == 200
    server.wait_idle()


def test_damaged_json(server: RunningServer) -> None:
    valid = json.dumps(
        {"model": MODEL, "prompt": ["a", "ü🦙"], "max_tokens": 2, "stop": ["x"], "n": 1}
    ).encode()

    with httpx.Client(base_url=server.url) as client:

        @quickly
        @given(
            st.integers(0, len(valid)),
            st.integers(0, 5),
            st.binary(max_size=6),
            st.sampled_from(["application/json", "application/json; charset=latin-1", "text/json"]),
        )
        def send(at: int, removed: int, inserted: bytes, content_type: str) -> None:
            body = valid[:at] + inserted + valid[at + removed :]
            check(
                client.post("/v1/completions", content=body, headers={"Content-Type": content_type})
            )

        send()
        assert client.get("/health").status_code == 200
    server.wait_idle()


@pytest.mark.parametrize(
    "request_bytes",
    [
        b"\x16\x03\x01\x02\x00",
        b"GET / HTTP/9.9\r\n\r\n",
        b"POST /v1/completions HTTP/1.1\r\nHost: a\r\nContent-Length: -1\r\n\r\n",
        b"POST /v1/completions HTTP/1.1\r\nHost: a\r\nContent-Type: application/json\r\n"
        b"Content-Length: 99999999999999999999999\r\n\r\n{}",
        b"POST /v1/completions HTTP/1.1\r\nHost: a\r\nContent-Type: application/json\r\n"
        b"Transfer-Encoding: chunked\r\n\r\nzz\r\n",
        b"GET /v1/models/%ff%00%0d%0a HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n",
        b"GET /" + b"a" * 70_000 + b" HTTP/1.1\r\nHost: a\r\n\r\n",
    ],
)
def test_what_is_hardly_http(server: RunningServer, request_bytes: bytes) -> None:
    import socket
    from urllib.parse import urlsplit

    address = urlsplit(server.url)
    with socket.create_connection((address.hostname, address.port), timeout=5) as connection:
        connection.sendall(request_bytes)
        answer = connection.recv(4096)
    assert answer.startswith((b"HTTP/1.1 4", b"")), answer
    assert b" 500 " not in answer.split(b"\r\n")[0]
    assert server.http.get("/health").status_code == 200
