from __future__ import annotations

from pathlib import Path

import pytest

from mini_vllm.engine.config import EngineConfig


@pytest.fixture(scope="session")
def small_engine(tiny_model: Path) -> EngineConfig:
    """An engine that starts in no time; its cache holds a few hundred tokens."""
    return EngineConfig(str(tiny_model), num_gpu_blocks_override=129, num_threads=1)
