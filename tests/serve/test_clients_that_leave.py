"""Clients that leave, that do not read, and that come all at once: none costs the others."""

from __future__ import annotations

import json
import re
import socket
import subprocess
import sys
from pathlib import Path
from urllib.parse import urlsplit

import pytest
from openai import OpenAI
from running import MODEL, RunningServer, running_server

from mini_vllm.engine.config import EngineConfig

BENCHMARK = Path(__file__).parents[2] / "benchmarks" / "concurrent_clients.py"
LONG = {"prompt": "a", "max_tokens": 500, "ignore_eos": True}


def send(
    server: RunningServer, body: dict[str, object], path: str = "/v1/completions"
) -> socket.socket:
    """A connection on which `body` was sent and nothing was read."""
    address = urlsplit(server.url)
    connection = socket.socket()
    # So small that the server cannot get rid of much before somebody reads.
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    connection.connect((address.hostname, address.port))
    data = json.dumps(body).encode()
    head = (
        f"POST /v1/completions HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: close\r\n"
        f"Content-Type: application/json\r\nContent-Length: {len(data)}\r\n\r\n"
    )
    connection.sendall(head.encode() + data)
    return connection


def aborted(server: RunningServer) -> float:
    return server.metric("vllm:request_success_total", finished_reason="abort")


def test_a_client_that_leaves_a_stream_frees_its_blocks(
    client: OpenAI, tiny_server: RunningServer
) -> None:
    before = aborted(tiny_server)
    stream = client.completions.create(
        model=MODEL, prompt="a", max_tokens=500, stream=True, extra_body={"ignore_eos": True}
    )
    next(iter(stream))
    assert tiny_server.metric("vllm:kv_cache_usage_perc") > 0
    stream.close()
    tiny_server.wait_idle()
    assert aborted(tiny_server) == before + 1
    assert tiny_server.server.service.admission.held == 0


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("extra", [{}, {"n": 3}, {"prompt": ["a", "b"]}])
def test_so_does_one_that_leaves_before_it_has_read_anything(
    tiny_server: RunningServer, stream: bool, extra: dict[str, object]
) -> None:
    before = aborted(tiny_server)
    connection = send(tiny_server, LONG | {"stream": stream} | extra)
    tiny_server.wait_until(lambda: tiny_server.metric("vllm:num_requests_running") > 0)
    connection.close()
    tiny_server.wait_idle()
    assert aborted(tiny_server) > before
    assert tiny_server.server.service.admission.held == 0


def test_one_that_leaves_while_sending_is_forgotten(
    client: OpenAI, tiny_server: RunningServer
) -> None:
    address = urlsplit(tiny_server.url)
    with socket.create_connection((address.hostname, address.port)) as connection:
        connection.sendall(
            b"POST /v1/completions HTTP/1.1\r\nHost: 127.0.0.1\r\n"
            b'Content-Type: application/json\r\nContent-Length: 1000\r\n\r\n{"prompt": '
        )
    assert client.models.list()


# Twenty candidates a token, four sequences: far more than the buffers on the way hold.
LARGE = LONG | {"max_tokens": 150, "stream": True, "n": 4, "logprobs": 20, "seed": 1}
SMALL_BUFFER = (socket.SOL_SOCKET, socket.SO_SNDBUF, 4096)


def test_one_that_never_reads_holds_nobody_up_and_loses_nothing(tiny_config: EngineConfig) -> None:
    with running_server(tiny_config, socket_options=[SMALL_BUFFER]) as server:
        connection = send(server, LARGE)
        server.wait_until(lambda: server.metric("vllm:num_requests_running") == 4)
        assert server.openai.completions.create(model=MODEL, prompt="b", max_tokens=5).choices
        # The engine is done with it although its client has not read a byte.
        server.wait_idle()
        assert server.server.service.admission.held == 4

        data = bytearray()
        while part := connection.recv(1 << 20):
            data += part
        connection.close()
        server.wait_until(lambda: server.server.service.admission.held == 0)
    text = data.decode()
    assert text.endswith("0\r\n\r\n")  # of the chunked response
    assert "data: [DONE]" in text
    assert text.count('"finish_reason":"length"') == 4
    assert text.count('"token_logprobs":[') < 4 * 150  # what had to wait was merged
    events = [json.loads(e[6:]) for e in re.findall(r"data: \{.*\}", text)]
    tokens = [len(c["logprobs"]["tokens"]) for event in events for c in event["choices"]]
    assert sum(tokens) == 4 * 150


@pytest.mark.skipif(not hasattr(socket, "TCP_USER_TIMEOUT"), reason="the kernel has no such timer")
def test_one_that_never_reads_at_all_is_dropped_in_the_end(tiny_config: EngineConfig) -> None:
    soon = (socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, 300)
    with running_server(tiny_config, socket_options=[SMALL_BUFFER, soon]) as server:
        connection = send(server, LARGE)
        server.wait_until(lambda: server.server.service.admission.held == 4)
        server.wait_until(lambda: server.server.service.admission.held == 0)
        connection.close()
        server.wait_idle()


@pytest.mark.parametrize("max_num_seqs", [256, 64])
def test_256_streaming_clients_are_all_served_in_order(tiny_model: Path, max_num_seqs: int) -> None:
    config = EngineConfig(
        model=str(tiny_model),
        num_gpu_blocks_override=1025,
        num_threads=1,
        max_num_seqs=max_num_seqs,
    )
    with running_server(config) as server:
        command = [sys.executable, BENCHMARK, "--url", server.url, "--json"]
        command += ["--clients", "256", "--max-tokens", "16"]
        done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
        figures = json.loads(done.stdout)
        assert figures["failures"] == []
        assert figures["short_answers"] == 0
        assert figures["kv_cache_usage_afterwards"] == 0
        # Tokens of one step may reach a client's ear in another order, but nobody waits for long.
        assert figures["most_overtaken"] <= 8
        assert done.returncode == 0, done.stderr
        assert server.server.service.admission.held == 0
        assert server.metric("vllm:generation_tokens_total") == 256 * 16
