"""The end of a server: who may finish, who is told, and that it comes."""

from __future__ import annotations

import threading
from pathlib import Path

import openai
import pytest
from running import MODEL, running_server

from mini_vllm.engine.config import EngineConfig

ENDLESS = {
    "model": MODEL,
    "prompt": "a",
    "n": 16,
    "max_tokens": 500,
    "extra_body": {"ignore_eos": True},
}


@pytest.fixture
def config(tiny_model: Path) -> EngineConfig:
    return EngineConfig(model=str(tiny_model), num_gpu_blocks_override=1025, num_threads=1)


def test_an_idle_server_ends_at_once(config: EngineConfig) -> None:
    with running_server(config, drain_seconds=1000) as server:
        server.signal()
        server.thread.join(20)
        assert not server.thread.is_alive()


@pytest.mark.parametrize("seconds", [0.0, 0.2])
def test_after_the_drain_time_what_still_runs_is_told(config: EngineConfig, seconds: float) -> None:
    with running_server(config, drain_seconds=seconds) as server:
        chunks = iter(server.openai.completions.create(stream=True, **ENDLESS))
        next(chunks)
        server.signal()
        with pytest.raises(openai.APIError, match="before the answer was complete"):
            list(chunks)
        server.thread.join(20)
        assert not server.thread.is_alive()


def test_a_whole_answer_that_was_cut_off_is_an_error(config: EngineConfig) -> None:
    def stop_once_it_runs() -> None:
        server.wait_until(lambda: server.metric("vllm:num_requests_running") == 16)
        server.signal()

    with running_server(config, drain_seconds=0) as server:
        threading.Thread(target=stop_once_it_runs).start()
        with pytest.raises(openai.InternalServerError) as caught:
            server.openai.completions.create(**ENDLESS)
        assert caught.value.status_code == 503
        assert caught.value.response.headers["Retry-After"] == "1"


def test_a_second_signal_ends_the_waiting(config: EngineConfig) -> None:
    with running_server(config, drain_seconds=1000) as server:
        chunks = iter(server.openai.completions.create(stream=True, **ENDLESS))
        next(chunks)
        server.signal()
        server.wait_until(lambda: server.http.get("/health").status_code == 503)
        with pytest.raises(openai.InternalServerError, match="shutting down"):
            server.openai.completions.create(model=MODEL, prompt="a")
        server.signal()
        with pytest.raises(openai.APIError, match="before the answer was complete"):
            list(chunks)
        server.thread.join(20)
        assert not server.thread.is_alive()
