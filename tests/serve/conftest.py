from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from openai import OpenAI
from running import RunningServer, running_server

from mini_vllm.engine.config import EngineConfig


@pytest.fixture(scope="session")
def tiny_config(tiny_model: Path) -> EngineConfig:
    return EngineConfig(
        model=str(tiny_model), dtype="float32", num_gpu_blocks_override=2049, num_threads=1
    )


@pytest.fixture(scope="session")
def tiny_server(tiny_config: EngineConfig) -> Iterator[RunningServer]:
    with running_server(tiny_config) as server:
        yield server


@pytest.fixture
def client(tiny_server: RunningServer) -> OpenAI:
    return tiny_server.openai


@pytest.fixture(scope="session")
def smollm_server() -> Iterator[RunningServer]:
    config = EngineConfig(dtype="float32", num_gpu_blocks_override=257, max_model_len=1024)
    with running_server(config, name="smollm2-135m") as server:
        yield server
